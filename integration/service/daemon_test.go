package service

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"nftsentry/controller/api"
	"nftsentry/integration/netns"
)

// patience is how long anything may take on a slow machine.
const patience = time.Minute

// guardUser is the user that the daemon runs as. It needs no name.
const guardUser = 64123

// A place is where a daemon of a test lives: folders "etc", "state" and "run".
type place struct {
	t    *testing.T
	host *netns.Host
	dir  string
}

// newPlace makes a place for the daemon of a user on a host.
func newPlace(t *testing.T, host *netns.Host, uid int, conf string) *place {
	t.Helper()
	p := &place{t, host, t.TempDir()}
	passable(t, filepath.Join(p.dir, "x"))
	passable(t, os.Getenv(programEnv))
	for name, mode := range map[string]os.FileMode{"etc": 0o755, "state": 0o755, "run": 0o750} {
		must(t, os.Mkdir(p.path(name), mode))
		if name != "etc" {
			must(t, os.Chown(p.path(name), uid, uid))
		}
	}
	p.configure(conf)
	return p
}

func (p *place) path(names ...string) string {
	return filepath.Join(append([]string{p.dir}, names...)...)
}

func (p *place) configure(conf string) {
	p.t.Helper()
	text := fmt.Sprintf("%s\n[state]\ndir = %q\n[control]\nsocket = %q\n", conf, p.path("state"), p.path("run", "sock"))
	must(p.t, os.WriteFile(p.path("etc", "nftsentry.toml"), []byte(text), 0o644))
}

// A daemon is one that runs, or has run.
type daemon struct {
	*place
	cmd      *exec.Cmd
	out, log *buffer
	notes    chan string // what the service manager is told; closed when the daemon has ended
	ended    errgroup.Group
}

// start starts a daemon by a command that becomes it, which may be empty.
func (p *place) start(wrap, flags, env []string) *daemon {
	p.t.Helper()
	path := p.path("notify")
	_ = os.Remove(path)
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	must(p.t, err)
	must(p.t, os.Chmod(path, 0o666))
	d := &daemon{place: p, out: &buffer{}, log: &buffer{}, notes: make(chan string, 4096)}
	command := append(append(wrap[:len(wrap):len(wrap)], os.Getenv(programEnv), "run", "-c", p.path("etc", "nftsentry.toml")), flags...)
	d.cmd = p.host.Command(command[0], command[1:]...)
	d.cmd.Env = append(append(os.Environ(), "NOTIFY_SOCKET="+path), env...)
	d.cmd.Stdout, d.cmd.Stderr = d.out, d.log
	p.host.Start(p.t, d.cmd)
	d.ended.Go(func() error {
		defer socket.Close()
		return d.cmd.Wait()
	})
	d.ended.Go(func() error { d.listen(socket); return nil })
	p.t.Cleanup(func() {
		_ = d.cmd.Process.Kill()
		_ = d.ended.Wait()
		if p.t.Failed() {
			p.t.Logf("log of the daemon:\n%s", d.log)
		}
	})
	return d
}

// listen plays the service manager until the daemon has ended.
func (d *daemon) listen(socket net.Conn) {
	defer close(d.notes)
	buf := make([]byte, 4096)
	for {
		n, err := socket.Read(buf)
		if err != nil {
			return
		}
		d.notes <- string(buf[:n])
	}
}

// hear waits until the service manager is told something that begins so, and returns it.
func (d *daemon) hear(prefix string) string {
	d.t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case note, open := <-d.notes:
			if !open {
				d.t.Fatalf("the daemon has ended (%v), and %q was not heard\n%s", d.cmd.ProcessState, prefix, d.log)
			}
			if strings.HasPrefix(note, prefix) {
				return note
			}
		case <-deadline:
			d.t.Fatalf("%q was not heard\n%s", prefix, d.log)
		}
	}
}

// stop ends the daemon and returns how it has ended.
func (d *daemon) stop(signal unix.Signal) *os.ProcessState {
	d.t.Helper()
	must(d.t, d.cmd.Process.Signal(signal))
	timer := time.AfterFunc(patience, func() { _ = d.cmd.Process.Kill() })
	defer timer.Stop()
	_ = d.ended.Wait() // the state tells
	return d.cmd.ProcessState
}

// A result is what a command has come to.
type result struct {
	stdout, stderr string
	code           int
}

// ask runs a command of the program, as root.
func (p *place) ask(args ...string) result {
	p.t.Helper()
	cmd := p.host.Command(os.Getenv(programEnv), append(args, "-c", p.path("etc", "nftsentry.toml"))...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	p.host.Start(p.t, cmd)
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		p.t.Fatal(err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

func (p *place) must(args ...string) string {
	p.t.Helper()
	r := p.ask(args...)
	if r.code != 0 {
		p.t.Fatalf("nftsentry %s: exit status %d\n%s", strings.Join(args, " "), r.code, r.stderr)
	}
	return r.stdout
}

func (p *place) status() api.Status {
	p.t.Helper()
	var s api.Status
	must(p.t, json.Unmarshal([]byte(p.must("status", "--json")), &s))
	return s
}

// A buffer may be read while it is written.
type buffer struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// passable lets all users reach a file.
func passable(t *testing.T, path string) {
	t.Helper()
	for dir := filepath.Dir(path); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		must(t, os.Chmod(dir, 0o755))
	}
}

// eventually waits until something is so.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !so(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not after %v: %s", patience, what)
		}
	}
}
