// Package separate tests the daemon and its hook service as two users, in namespaces of their own: the daemon with no more
// than its capabilities, the service without any.
package separate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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

const (
	// programEnv names the program under test, built once for all tests.
	programEnv = "NFTSENTRY_TEST_PROGRAM"
	// home is below the /run that only the tests see, where nobody but root may write.
	home = "/run/separate"
	// The users of the daemon and of its hook service.
	daemonUser, hookUser = 61001, 61002
	server4              = "10.9.0.2"
	// patience is how long anything may take on a slow machine.
	patience = time.Minute
)

func TestMain(m *testing.M) {
	if os.Getenv(programEnv) != "" {
		netns.MainAsRoot(m)
	}
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "nftsentry-test-")
	if err == nil {
		err = os.Chmod(dir, 0o755) // other users run it
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "nftsentry")
	args := []string{"build", "-o", program}
	if raceEnabled {
		args = append(args, "-race")
	}
	build := exec.Command("go", append(args, "nftsentry/cmd/nftsentry")...)
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build the program under test:", err)
		return 1
	}
	for key, value := range map[string]string{programEnv: program, "GORACE": "halt_on_error=1 atexit_sleep_ms=0"} {
		if err := os.Setenv(key, value); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return netns.RunAsRoot(m)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// until waits until something is so.
func until(t testing.TB, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !so(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// A world is a server that is guarded, a client, and the folders of both users.
type world struct {
	t              testing.TB
	server, client *netns.Host
	conf           string
}

// folder makes a folder of a user below home.
func folder(t testing.TB, name string, user int, mode os.FileMode) string {
	t.Helper()
	dir := filepath.Join(home, name)
	must(t, os.MkdirAll(dir, 0o755))
	must(t, os.Chmod(dir, mode))
	must(t, os.Chown(dir, user, user))
	return dir
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, server: netns.New(t, "server"), client: netns.New(t, "client")}
	netns.Link(t, w.server, w.client, "eth0", "eth0", []string{server4 + "/24"}, []string{"10.9.0.1/24"})
	must(t, os.RemoveAll(home))
	must(t, os.Mkdir(home, 0o755))
	folder(t, "bin", 0, 0o755)
	folder(t, "etc", 0, 0o755)
	folder(t, "state", daemonUser, 0o700)
	folder(t, "control", daemonUser, 0o750)
	folder(t, "hook", hookUser, 0o755)
	folder(t, "lib", hookUser, 0o755)
	w.conf = filepath.Join(home, "etc", "nftsentry.toml")
	return w
}

// configure writes the configuration, with folders of the test's own.
func (w *world) configure(conf string) {
	w.t.Helper()
	text := fmt.Sprintf("%s\n[ignore]\nhost = false\n[state]\ndir = %q\n[control]\nsocket = %q\n", conf, home+"/state", home+"/control/sock")
	must(w.t, os.WriteFile(w.conf, []byte(text), 0o644))
}

// script writes a program of root's.
func (w *world) script(name, text string) string {
	w.t.Helper()
	path := filepath.Join(home, "bin", name)
	must(w.t, os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755))
	must(w.t, os.Chmod(path, 0o755))
	return path
}

// as is a command that becomes another as a user without rights, but for the capabilities named.
func as(t testing.TB, user int, caps ...string) []string {
	t.Helper()
	id := fmt.Sprint(user)
	command := []string{netns.Tool(t, "setpriv"), "--reuid", id, "--regid", id, "--clear-groups", "--no-new-privs"}
	all := "-all"
	for _, c := range caps {
		all += ",+" + c
	}
	return append(command, "--bounding-set", all, "--inh-caps", all, "--ambient-caps", all)
}

// A process is one of the two that runs.
type process struct {
	t     testing.TB
	cmd   *exec.Cmd
	log   *locked
	ended errgroup.Group
}

// start starts a command on the server, and waits until it says that it is ready.
func (w *world) start(command []string) *process {
	w.t.Helper()
	return w.startCommand(w.server.Command(command[0], command[1:]...))
}

func (w *world) startCommand(cmd *exec.Cmd) *process {
	w.t.Helper()
	notify := filepath.Join(home, "notify")
	_ = os.Remove(notify)
	ready, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"})
	must(w.t, err)
	must(w.t, os.Chmod(notify, 0o666))
	p := &process{t: w.t, log: &locked{}, cmd: cmd}
	p.cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+notify)
	p.cmd.Stderr = p.log
	w.server.Start(w.t, p.cmd)
	p.ended.Go(func() error {
		defer ready.Close() // who waits for a program that has ended waits no longer
		return p.cmd.Wait()
	})
	w.t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		_ = p.ended.Wait()
		if w.t.Failed() {
			w.t.Logf("log of %v:\n%s", cmd, p.log)
		}
	})
	buf := make([]byte, 64)
	_ = ready.SetReadDeadline(time.Now().Add(patience))
	n, err := ready.Read(buf)
	if err != nil || string(buf[:n]) != "READY=1" {
		w.t.Fatalf("%v does not get ready: %q, %v\n%s", cmd, buf[:n], err, p.log)
	}
	return p
}

// end sends a signal and returns the exit status, -1 if a signal ended it.
func (p *process) end(signal unix.Signal) int {
	p.t.Helper()
	must(p.t, p.cmd.Process.Signal(signal))
	timer := time.AfterFunc(patience, func() { _ = p.cmd.Process.Kill() })
	defer timer.Stop()
	_ = p.ended.Wait() // the exit status tells
	return p.cmd.ProcessState.ExitCode()
}

func hookSocket() string { return filepath.Join(home, "hook", "hook.sock") }

// service starts the hook service.
func (w *world) service() *process {
	w.t.Helper()
	return w.start(append(as(w.t, hookUser), os.Getenv(programEnv), "hook", "-c", w.conf, "--socket", hookSocket(), "--peer", fmt.Sprint(daemonUser)))
}

// inNamespace is a hook service in a user namespace that knows its user and root only, to which a socket is handed over.
func (w *world) inNamespace(socket *os.File) *exec.Cmd {
	w.t.Helper()
	cmd := w.server.Command("sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"`, "sh",
		os.Getenv(programEnv), "hook", "-c", w.conf, "--peer", fmt.Sprint(daemonUser))
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}, {ContainerID: hookUser, HostID: hookUser, Size: 1}}
	cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
	cmd.SysProcAttr.UidMappings, cmd.SysProcAttr.GidMappings, cmd.SysProcAttr.GidMappingsEnableSetgroups = ids, ids, true
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: hookUser, Gid: hookUser}
	cmd.ExtraFiles = []*os.File{socket}
	return cmd
}

// daemon starts the daemon, by a command if there is one.
func (w *world) daemon(by ...string) *process {
	w.t.Helper()
	command := append(by, as(w.t, daemonUser, "net_admin", "net_bind_service")...)
	return w.start(append(command, os.Getenv(programEnv), "run", "-c", w.conf, "--hook-socket", hookSocket()))
}

// command runs a command of the program as root, and returns its output, its messages and its exit status.
func (w *world) command(args ...string) (stdout, stderr string, code int) {
	w.t.Helper()
	return w.exec(append([]string{os.Getenv(programEnv)}, append(args, "-c", w.conf)...))
}

func (w *world) exec(command []string) (stdout, stderr string, code int) {
	w.t.Helper()
	return w.execCommand(w.server.Command(command[0], command[1:]...))
}

func (w *world) execCommand(cmd *exec.Cmd) (stdout, stderr string, code int) {
	w.t.Helper()
	var out, messages bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &messages
	w.server.Start(w.t, cmd)
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		w.t.Fatal(err)
	}
	return out.String(), messages.String(), cmd.ProcessState.ExitCode()
}

// must is command for what has to succeed.
func (w *world) must(args ...string) string {
	w.t.Helper()
	stdout, stderr, code := w.command(args...)
	if code != 0 {
		w.t.Fatalf("nftsentry %v: exit status %d\n%s", args, code, stderr)
	}
	return stdout
}

func (w *world) status() (s api.Status) {
	w.t.Helper()
	must(w.t, json.Unmarshal([]byte(w.must("status", "--json")), &s))
	return s
}

// scan has a new client touch a decoy, and returns how long it takes until it is blocked.
func (w *world) scan(n int) time.Duration {
	w.t.Helper()
	from := source(n)
	w.client.Addr(w.t, "eth0", from+"/24")
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if conn, err := w.client.Dial(ctx, "tcp", server4+":23", from); err == nil {
		_ = conn.Close()
	}
	nft := netns.Tool(w.t, "nft")
	until(w.t, from+" is blocked", func() bool {
		_, _, code := w.exec([]string{nft, "get", "element", "inet", "nftsentry", "blocked4", "{", from, "}"})
		return code == 0
	})
	return time.Since(began)
}

// source is the address of the nth client.
func source(n int) string { return fmt.Sprintf("10.9.0.%d", 100+n) }

// lines are those of a file below home, sorted; none if there is none.
func lines(name string) []string {
	data, err := os.ReadFile(filepath.Join(home, name))
	if err != nil {
		return nil
	}
	all := strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
	slices.Sort(all)
	return all
}

// locked is a buffer that may be written to and read at once.
type locked struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *locked) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *locked) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
