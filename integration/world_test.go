package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"nftsentry/controller/api"
	"nftsentry/integration/netns"
)

// A world is three hosts in a row: the server that is guarded, its router,
// and a client behind that.
type world struct {
	server, router, client *netns.Host
}

// The addresses in a world.
const (
	server4, server6 = "10.9.0.2", "2001:db8:9::2"
	router4, router6 = "10.9.0.1", "2001:db8:9::1"
	client4, client6 = "10.8.0.2", "2001:db8:8::2"
)

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{netns.New(t, "server"), netns.New(t, "router"), netns.New(t, "client")}
	netns.Link(t, w.server, w.router, "eth0", "srv", []string{server4 + "/24", server6 + "/64"}, []string{router4 + "/24", router6 + "/64"})
	netns.Link(t, w.client, w.router, "eth0", "cli", []string{client4 + "/24", client6 + "/64"}, []string{"10.8.0.1/24", "2001:db8:8::1/64"})
	w.router.Forward(t)
	for host, via := range map[*netns.Host][2]string{w.server: {router4, router6}, w.client: {"10.8.0.1", "2001:db8:8::1"}} {
		host.Route(t, "default", via[0])
		host.Route(t, "default", via[1])
	}
	return w
}

// families are what tests do once for IPv4 and once for IPv6.
var families = []struct{ name, server, client, source, set string }{
	{"IPv4", server4, client4, client4, "blocked4"},
	{"IPv6", server6, client6, "2001:db8:8::/64", "blocked6"},
}

// A program is nftsentry with a configuration and folders of its own, on a host.
type program struct {
	t    testing.TB
	host *netns.Host
	dir  string
	conf string   // file
	wrap []string // a command that becomes the daemon, whose own command line follows it; may be empty
}

func newProgram(t testing.TB, host *netns.Host, conf string) *program {
	t.Helper()
	p := &program{t: t, host: host, dir: t.TempDir()}
	p.conf = filepath.Join(p.dir, "nftsentry.toml")
	p.configure(conf)
	return p
}

// configure writes the configuration: what a test asks for, and folders of the test's own.
func (p *program) configure(conf string) {
	p.t.Helper()
	text := fmt.Sprintf("%s\n[state]\ndir = %q\n[control]\nsocket = %q\n", conf, p.state(""), filepath.Join(p.dir, "sock"))
	if err := os.WriteFile(p.conf, []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// state is the path of a file in the state folder.
func (p *program) state(file string) string { return filepath.Join(p.dir, "state", file) }

// file reads a file of the state folder.
func (p *program) file(name string) string {
	p.t.Helper()
	data, err := os.ReadFile(p.state(name))
	if err != nil {
		p.t.Fatal(err)
	}
	return string(data)
}

// A result is how a command ended.
type result struct {
	stdout, stderr string
	code           int
}

// command runs a command of the program to its end.
func (p *program) command(args ...string) result {
	p.t.Helper()
	return p.exec(append(args, "-c", p.conf)...)
}

// exec is command without -c.
func (p *program) exec(args ...string) result {
	p.t.Helper()
	cmd := p.host.Command(os.Getenv(programEnv), args...)
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

// must is command for what has to succeed, and returns its standard output.
func (p *program) must(args ...string) string {
	p.t.Helper()
	r := p.command(args...)
	if r.code != 0 {
		p.t.Fatalf("nftsentry %s: exit status %d\n%s", strings.Join(args, " "), r.code, r.stderr)
	}
	return r.stdout
}

// list asks who is blocked.
func (p *program) list() []api.Block {
	p.t.Helper()
	var all []api.Block
	if err := json.Unmarshal([]byte(p.must("list", "--json")), &all); err != nil {
		p.t.Fatal(err)
	}
	return all
}

// listed waits until just one source is listed, and returns its block. It asks
// without a process, which is soon enough for blocks that last a few seconds.
func (p *program) listed() api.Block {
	p.t.Helper()
	var all []api.Block
	eventually(p.t, "one source is listed", patience, func() bool {
		var err error
		if all, err = p.ask().List(p.t.Context()); err != nil {
			p.t.Fatal(err)
		}
		return len(all) == 1
	})
	return all[0]
}

// expectSources waits until just these sources are listed, in this order.
func (p *program) expectSources(want ...string) {
	p.t.Helper()
	var got []string
	defer func() {
		if !slices.Equal(got, want) {
			p.t.Logf("blocked %v, want %v", got, want)
		}
	}()
	eventually(p.t, "those are listed who should be", patience, func() bool {
		got = p.sources()
		return slices.Equal(got, want)
	})
}

// sources are those of list.
func (p *program) sources() []string {
	p.t.Helper()
	out := []string{}
	for _, b := range p.list() {
		out = append(out, b.Source)
	}
	return out
}

// status asks what the daemon is doing.
func (p *program) status() api.Status {
	p.t.Helper()
	var s api.Status
	if err := json.Unmarshal([]byte(p.must("status", "--json")), &s); err != nil {
		p.t.Fatal(err)
	}
	return s
}

// elementCounter is what nft(8) says of what an element has counted.
var elementCounter = regexp.MustCompile(` counter packets \d+ bytes \d+`)

// nftSet is what nft(8) lists of a set of the table, but for what its elements
// have counted.
func (p *program) nftSet(name string) string {
	p.t.Helper()
	return elementCounter.ReplaceAllString(p.host.Output(p.t, netns.Tool(p.t, "nft"), "list", "set", "inet", "nftsentry", name), "")
}

// A daemon is a program that runs.
type daemon struct {
	*program
	cmd   *exec.Cmd
	log   *lockedBuffer
	notes *lockedBuffer  // what the service manager was told
	ended errgroup.Group // waits for the process
}

// run starts the daemon and waits until it says that it is ready.
func (p *program) run() *daemon {
	p.t.Helper()
	notify := filepath.Join(p.dir, "notify")
	_ = os.Remove(notify)
	ready, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"})
	if err != nil {
		p.t.Fatal(err)
	}
	d := &daemon{program: p, log: &lockedBuffer{}, notes: &lockedBuffer{}}
	command := append(slices.Clone(p.wrap), os.Getenv(programEnv), "run", "-c", p.conf)
	d.cmd = p.host.Command(command[0], command[1:]...)
	d.cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+notify)
	d.cmd.Stderr = d.log
	p.host.Start(p.t, d.cmd)
	d.ended.Go(func() error {
		defer ready.Close() // who waits for a program that has ended waits no longer
		return d.cmd.Wait()
	})
	p.t.Cleanup(func() {
		_ = d.cmd.Process.Kill()
		_ = d.ended.Wait()
		if p.t.Failed() {
			p.t.Logf("log of the daemon:\n%s", d.log)
		}
	})
	heard := make(chan string, 1) // the first message
	d.ended.Go(func() error {
		defer close(heard)
		for buf := make([]byte, 4096); ; {
			n, err := ready.Read(buf)
			if err != nil {
				return nil // the program has ended
			}
			fmt.Fprintf(d.notes, "%s\n", buf[:n])
			select {
			case heard <- string(buf[:n]):
			default:
			}
		}
	})
	first := ""
	select {
	case first = <-heard:
	case <-time.After(patience):
	}
	if first != "READY=1" {
		p.t.Fatalf("the daemon does not get ready: %q\n%s", first, d.log)
	}
	return d
}

// guard configures and starts a daemon on a host.
func guard(t testing.TB, host *netns.Host, conf string) *daemon {
	t.Helper()
	return newProgram(t, host, conf).run()
}

// end sends a signal and returns the exit status, -1 if a signal ended it.
func (d *daemon) end(signal unix.Signal) int {
	d.t.Helper()
	if err := d.cmd.Process.Signal(signal); err != nil {
		d.t.Fatal(err)
	}
	timer := time.AfterFunc(patience, func() { _ = d.cmd.Process.Kill() })
	defer timer.Stop()
	_ = d.ended.Wait() // the exit status tells
	return d.cmd.ProcessState.ExitCode()
}

// lockedBuffer is a buffer that a process writes while a test reads.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// serve answers connections on a host with a greeting, as a real service does.
func serve(t testing.TB, host *netns.Host, address, greeting string) {
	t.Helper()
	l, err := host.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	var g errgroup.Group
	g.Go(func() error {
		for {
			conn, err := l.Accept()
			if err != nil {
				return nil
			}
			_, _ = io.WriteString(conn, greeting)
			_ = conn.Close()
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		_ = g.Wait()
	})
}

// echo sends back on a host what one client at a time sends.
func echo(t testing.TB, host *netns.Host, network, address string) {
	t.Helper()
	var g errgroup.Group
	var closer io.Closer
	if network == "udp" {
		conn, err := host.ListenPacket(network, address)
		if err != nil {
			t.Fatal(err)
		}
		closer = conn
		g.Go(func() error {
			buf := make([]byte, 64)
			for {
				n, from, err := conn.ReadFrom(buf)
				if err != nil {
					return nil
				}
				_, _ = conn.WriteTo(buf[:n], from)
			}
		})
	} else {
		l, err := host.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		closer = l
		g.Go(func() error {
			conn, err := l.Accept()
			if err != nil {
				return nil
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
			_, _ = io.Copy(conn, conn)
			return nil
		})
	}
	t.Cleanup(func() {
		_ = closer.Close()
		_ = g.Wait()
	})
}

// answers sends a byte and reports whether an echo of any comes back at once.
func answers(t testing.TB, conn net.Conn) bool {
	t.Helper()
	if _, err := conn.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
	n, _ := conn.Read(make([]byte, 64))
	return n > 0
}

// touch connects from a host and returns what it reads until the other end
// closes.
func touch(host *netns.Host, from, to string, port int) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), slowness*700*time.Millisecond)
	defer cancel()
	addr := netip.AddrPortFrom(netip.MustParseAddr(to), uint16(port))
	conn, err := host.Dial(ctx, "tcp", addr.String(), from)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(slowness * 2 * time.Second))
	data, err := io.ReadAll(conn)
	return string(data), err
}

// expectRead fails unless a connection is answered with want.
func expectRead(t testing.TB, host *netns.Host, from, to string, port int, want string) {
	t.Helper()
	got, err := touch(host, from, to, port)
	if err != nil || got != want {
		t.Errorf("%s to %s port %d reads %q, %v, want %q", from, to, port, got, err, want)
	}
}

// converse has a client log in on port 22, as one of SSH does, which speaks
// first: it fails unless it is answered with want.
func converse(t testing.TB, host *netns.Host, from, to, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, err := host.Dial(ctx, "tcp", net.JoinHostPort(to, "22"), from)
	if err != nil {
		t.Errorf("%s to %s: %v", from, to, err)
		return
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	_, err = io.WriteString(conn, "SSH-2.0-test\r\n")
	got := make([]byte, len(want))
	if err == nil {
		_, err = io.ReadFull(conn, got)
	}
	if err != nil || string(got) != want {
		t.Errorf("%s to %s port 22 reads %q, %v, want %q", from, to, got, err, want)
	}
}

// expectSilence fails if a connection is answered in any way.
func expectSilence(t testing.TB, host *netns.Host, from, to string, port int) {
	t.Helper()
	got, err := touch(host, from, to, port)
	if !errors.Is(err, context.DeadlineExceeded) && !os.IsTimeout(err) || got != "" {
		t.Errorf("%s to %s port %d reads %q, %v, want no answer", from, to, port, got, err)
	}
}

// patience is how long a test waits for what has to come, on the busiest
// machine. It is no promise: those have bounds of their own.
const patience = time.Minute

// eventually waits until something is so.
func eventually(t testing.TB, what string, within time.Duration, so func() bool) {
	t.Helper()
	within *= slowness
	for deadline := time.Now().Add(within); !so(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not after %v: %s", within, what)
		}
	}
}

// touchQuickly is touch for many sources, most of which get no answer.
func touchQuickly(host *netns.Host, from, to string, port int) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	conn, err := host.Dial(ctx, "tcp", netip.AddrPortFrom(netip.MustParseAddr(to), uint16(port)).String(), from)
	if err != nil {
		return "", err
	}
	time.Sleep(10 * time.Millisecond) // the event is on its way
	return "", conn.Close()
}
