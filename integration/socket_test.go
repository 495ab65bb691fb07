package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"nftsentry/controller/api"
	"nftsentry/integration/netns"
)

// outsideEnv is the number of the file by which tests ask for an outsider.
const outsideEnv = "NFTSENTRY_TEST_OUTSIDE"

// An outsider is a command that runs as another user. The namespaces of the
// tests have no user but root, so it runs outside, which needs root there.
type outsider struct {
	Args     []string
	UID, GID uint32
	Groups   []uint32
}

// An outcome is how an outsider has ended.
type outcome struct {
	Stdout, Stderr string
	Code           int
}

// outside leads to the process that has started the tests; nil if it has no
// right to run a command as another user.
var outside = struct {
	sync.Mutex
	file *os.File // guarded by the mutex once it is there
}{file: openOutside()}

// openOutside is called in two processes: in the one that has a right to
// everything it answers for as long as that lives, which is why nothing waits
// for it, and in the tests it asks.
func openOutside() *os.File {
	if fd, err := strconv.Atoi(os.Getenv(outsideEnv)); err == nil {
		unix.CloseOnExec(fd)
		return os.NewFile(uintptr(fd), "outside")
	}
	if os.Geteuid() != 0 {
		return nil
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil || os.Setenv(outsideEnv, strconv.Itoa(fds[1])) != nil {
		return nil
	}
	unix.CloseOnExec(fds[0])
	go serveOutside(os.NewFile(uintptr(fds[0]), "inside"))
	return os.NewFile(uintptr(fds[1]), "outside")
}

// serveOutside runs outsiders until the process ends.
func serveOutside(file *os.File) {
	in, out := json.NewDecoder(file), json.NewEncoder(file)
	for {
		var o outsider
		if in.Decode(&o) != nil || out.Encode(o.run()) != nil {
			return
		}
	}
}

func (o outsider) run() outcome {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, o.Args[0], o.Args[1:]...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: o.UID, Gid: o.GID, Groups: o.Groups}}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); cmd.ProcessState == nil {
		return outcome{"", err.Error(), -1}
	}
	return outcome{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// as runs a command of the program as another user, by the socket alone.
func (d *daemon) as(uid, gid uint32, groups []uint32, command ...string) outcome {
	d.t.Helper()
	return askOutside(d.t, outsider{append(append([]string{os.Getenv(programEnv)}, command...), "--socket", d.socket()), uid, gid, groups})
}

// askOutside has an outsider run, and waits for it.
func askOutside(t testing.TB, o outsider) outcome {
	t.Helper()
	outside.Lock()
	defer outside.Unlock()
	if err := json.NewEncoder(outside.file).Encode(o); err != nil {
		t.Fatal(err)
	}
	var r outcome
	if err := json.NewDecoder(outside.file).Decode(&r); err != nil {
		t.Fatal(err)
	}
	return r
}

// socket is the path of the control socket, see configure.
func (p *program) socket() string { return filepath.Join(p.dir, "sock") }

// requireOutside skips a test that needs other users; in CI it fails.
func requireOutside(t *testing.T) {
	t.Helper()
	if outside.file != nil {
		return
	}
	const text = "only root can run a command as another user"
	if os.Getenv("CI") == "true" {
		t.Fatal(text)
	}
	t.Skip(text)
}

// passable lets all users reach a file.
func passable(t *testing.T, path string) {
	t.Helper()
	for dir := filepath.Dir(path); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSocketPeers shows who may use the control socket: nobody else may, even
// when the mode of the file lets everybody in.
func TestSocketPeers(t *testing.T) {
	requireOutside(t)
	const nobody, root = 65534, 0
	passable(t, os.Getenv(programEnv))
	for _, tt := range []struct {
		name    string
		control string // the group, the only one that the namespace has
		mode    os.FileMode
		gid     uint32
		groups  []uint32
		want    bool
	}{
		{"nobody, by the mode", "", 0o660, nobody, nil, false},
		{"nobody", "", 0o666, nobody, nil, false},
		{"nobody, there is a group", "root", 0o666, nobody, nil, false},
		{"member of what is not the group", "", 0o666, root, []uint32{root}, false},
		{"member by its own group", "root", 0o660, root, nil, true},
		{"member by a supplementary group", "root", 0o660, nobody, []uint32{7, root}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := guardSocket(t, netns.New(t, "server"), tt.control)
			passable(t, d.socket())
			if err := os.Chmod(d.socket(), tt.mode); err != nil {
				t.Fatal(err)
			}
			d.must("block", "198.51.100.7")
			list := d.as(nobody, tt.gid, tt.groups, "list", "--json")
			unblock := d.as(nobody, tt.gid, tt.groups, "unblock", "--all")
			if tt.want {
				if list.Code != 0 || !strings.Contains(list.Stdout, "198.51.100.7") || unblock.Code != 0 || len(d.list()) != 0 {
					t.Errorf("list: %+v\nunblock: %+v", list, unblock)
				}
				return
			}
			want := outcome{"", fmt.Sprintf("nftsentry: no right to use %s: run as root, or as a member of control.group\n", d.socket()), 1}
			list.Stderr = strings.Replace(list.Stderr, ": permission denied", "", 1)
			if list != want || unblock.Code != 1 || len(d.list()) != 1 {
				t.Errorf("list: %+v, want %+v\nunblock: %+v", list, want, unblock)
			}
			if strings.Contains(d.log.String(), "refused") {
				t.Errorf("every refusal is in the log:\n%s", d.log)
			}
		})
	}
}

// guardSocket starts a daemon whose socket is for a group.
func guardSocket(t *testing.T, host *netns.Host, group string) *daemon {
	t.Helper()
	p := newProgram(t, host, "")
	text, err := os.ReadFile(p.conf)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p.conf, fmt.Appendf(text, "group = %q\n", group), 0o600); err != nil { // [control] is the last section
		t.Fatal(err)
	}
	return p.run()
}

// TestSocketCrowd has a thousand clients at once that do nothing, or no good,
// while commands and a decoy are timed.
func TestSocketCrowd(t *testing.T) {
	const (
		clients = 1000
		enough  = 100 * time.Millisecond
	)
	w := newWorld(t)
	everywhere(t, w)
	serve(t, w.server, ":80", "welcome")
	d := guard(t, w.server, "")
	client := api.NewClient(d.socket())
	files := openFiles(t, d.cmd.Process.Pid) + 8 // the daemon opens some only when it needs them

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var crowd errgroup.Group
	var in sync.WaitGroup
	for i := range clients {
		in.Add(1)
		crowd.Go(func() error {
			return loiter(ctx, d.socket(), [...]string{"", "", "", "GET /v1/sta", "\x00\xff nonsense\n\n", "POST /v1/blocks HTTP/1.1\r\nContent-Length: 9999999\r\n\r\n"}[i%6], in.Done)
		})
	}
	in.Wait()

	took := timed(t, 50, func() error {
		_, err := client.Status(t.Context())
		return err
	})
	if took > enough {
		t.Errorf("status took %v, want %v at most", took, enough)
	}
	took = timed(t, 50, func() error {
		_, err := client.Block(t.Context(), api.BlockRequest{Source: "203.0.113.7"})
		return err
	})
	if took > enough {
		t.Errorf("block took %v, want %v at most", took, enough)
	}
	if n := openFiles(t, d.cmd.Process.Pid) - files; n > 900 {
		t.Errorf("%d files are open for the crowd", n)
	}
	if got := d.status(); got.Blocks.Live != 1 {
		t.Errorf("status by the command: %+v, want 1 block", got.Blocks)
	}

	touches := 0
	took = timed(t, 9, func() error {
		touches++
		from := fmt.Sprintf("10.16.0.%d", touches)
		_, _ = touch(w.client, from, server4, 23)
		eventually(t, "a decoy blocks "+from, patience, func() bool {
			all, err := client.List(t.Context())
			return err == nil && len(all) == 1+touches
		})
		return nil
	})
	if took > enough {
		t.Errorf("a decoy has blocked after %v, want %v at most", took, enough)
	}
	expectSilence(t, w.client, "10.16.0.1", server4, 80)

	cancel()
	if err := crowd.Wait(); err != nil {
		t.Error(err)
	}
	eventually(t, "the files of the crowd are closed", patience, func() bool { return openFiles(t, d.cmd.Process.Pid) <= files })
}

// loiter connects, sends what is no request, and waits to be thrown out; and
// again, until ctx ends. It calls in when it has connected for the first time.
func loiter(ctx context.Context, socket, text string, in func()) error {
	once := sync.OnceFunc(in)
	defer once()
	for ctx.Err() == nil {
		conn, err := net.Dial("unix", socket)
		once()
		if err != nil {
			return err
		}
		stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
		_, _ = io.WriteString(conn, text) // it may be closed already
		_, _ = io.Copy(io.Discard, conn)
		stop()
		_ = conn.Close()
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
	return nil
}

// timed is the time that half of n calls took at most: what else the machine
// does delays some of them, and a crowd that is waited for delays all.
func timed(t *testing.T, n int, f func() error) time.Duration {
	t.Helper()
	var took []time.Duration
	for range n {
		began := time.Now()
		if err := f(); err != nil {
			t.Error(err)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	t.Logf("half in %v, 90%% in %v, all in %v", took[n/2], took[n*9/10], took[n-1])
	return took[n/2]
}

// openFiles is how many files a process has open.
func openFiles(t *testing.T, pid int) int {
	t.Helper()
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}
