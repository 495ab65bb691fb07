package netns_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"nftsentry/integration/netns"
)

func TestMain(m *testing.M) {
	switch os.Getenv("NETNS_TEST_HELPER") { // the process that TestMainStatus and TestMainSignal start
	case "exit":
		if os.Getenv("NFTSENTRY_TEST_PARENT_NETNS") != "" {
			os.Exit(3)
		}
	case "sleep":
		if os.Getenv("NFTSENTRY_TEST_PARENT_NETNS") != "" {
			fmt.Println("ready")
			time.Sleep(time.Minute)
		}
	}
	netns.Main(m)
}

// pair is two hosts with a link between them.
func pair(t *testing.T) (a, b *netns.Host) {
	t.Helper()
	a, b = netns.New(t, "a"), netns.New(t, "b")
	netns.Link(t, a, b, "eth0", "eth1",
		[]string{"192.0.2.1/24", "2001:db8::1/64"}, []string{"192.0.2.2/24", "2001:db8::2/64"})
	return a, b
}

// current is the network namespace of the calling thread.
func current(t *testing.T) string {
	t.Helper()
	name, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func TestTCP(t *testing.T) {
	a, b := pair(t)
	tests := []struct {
		name, listen, local, want string
	}{
		{"IPv4", "192.0.2.2:0", "", "192.0.2.1"},
		{"IPv6", "[2001:db8::2]:0", "", "2001:db8::1"},
		{"local address", "192.0.2.2:0", "192.0.2.1", "192.0.2.1"},
		{"local port", "192.0.2.2:0", "192.0.2.1:4242", "192.0.2.1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l, err := b.Listen("tcp", tt.listen)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			out, err := a.Dial(t.Context(), "tcp", l.Addr().String(), tt.local)
			if err != nil {
				t.Fatal(err)
			}
			defer out.Close()
			in, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer in.Close()
			if got := in.RemoteAddr().(*net.TCPAddr).IP.String(); tt.want != got {
				t.Errorf("peer: want %s, got %s", tt.want, got)
			}
		})
	}
}

func TestUDP(t *testing.T) {
	a, b := pair(t)
	l, err := b.ListenPacket("udp", "192.0.2.2:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := a.Dial(t.Context(), "udp", l.LocalAddr().String(), "192.0.2.1")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("probe")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 16)
	n, from, err := l.ReadFrom(buf)
	if err != nil {
		t.Fatal(err)
	}
	if want, got := "probe from "+c.LocalAddr().String(), fmt.Sprintf("%s from %s", buf[:n], from); want != got {
		t.Errorf("want %q, got %q", want, got)
	}
}

func TestDialRefusesNames(t *testing.T) {
	a := netns.New(t, "a")
	if c, err := a.Dial(t.Context(), "tcp", "localhost:80", ""); err == nil {
		c.Close()
		t.Error("want an error, got a connection")
	}
	if _, err := a.Dial(t.Context(), "tcp", "127.0.0.1:80", "localhost"); err == nil {
		t.Error("want an error for a local name, got none")
	}
}

func TestHostsAreApart(t *testing.T) {
	a, b := netns.New(t, "a"), netns.New(t, "b")
	outside := current(t)
	var insideA, insideB, nested string
	a.Do(t, func() {
		insideA = current(t)
		b.Do(t, func() { nested = current(t) })
		if got := current(t); insideA != got {
			t.Errorf("after a nested Do: want %s, got %s", insideA, got)
		}
	})
	b.Do(t, func() { insideB = current(t) })
	if insideA == outside || insideA == insideB || nested != insideB {
		t.Errorf("want three namespaces, got outside %s, a %s, b %s and %s", outside, insideA, insideB, nested)
	}
	l, err := a.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = b.Dial(t.Context(), "tcp", l.Addr().String(), "")
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("b dials a's loopback: want %v, got %v", syscall.ECONNREFUSED, err)
	}
}

func TestDoComesBack(t *testing.T) {
	a := netns.New(t, "a")
	outside := current(t)
	tests := []struct {
		name string
		fn   func()
	}{
		{"returns", func() {}},
		{"fails", runtime.Goexit}, // as t.FailNow does
		{"panics", func() { panic("as expected") }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inGoroutine(func() {
				defer func() {
					if p := recover(); p != nil && p != "as expected" {
						panic(p)
					}
					if got := current(t); outside != got {
						t.Errorf("want %s, got %s", outside, got)
					}
				}()
				a.Do(t, tt.fn)
			})
		})
	}
}

func TestDoConcurrently(t *testing.T) {
	hosts := []*netns.Host{netns.New(t, "a"), netns.New(t, "b"), netns.New(t, "c")}
	want := make([]string, len(hosts))
	for i, h := range hosts {
		h.Do(t, func() { want[i] = current(t) })
	}
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			hosts[i%3].Do(t, func() {
				if got, err := os.Readlink("/proc/thread-self/ns/net"); err != nil || want[i%3] != got {
					t.Errorf("want %s, got %s, %v", want[i%3], got, err)
				}
			})
		})
	}
	wg.Wait()
}

func TestAddrThousand(t *testing.T) {
	a, b := netns.New(t, "a"), netns.New(t, "b")
	netns.Link(t, a, b, "eth0", "eth0", nil, nil)
	var prefixes []string
	for i := range 500 {
		prefixes = append(prefixes, fmt.Sprintf("10.0.%d.%d/16", i/250, i%250+1), fmt.Sprintf("2001:db8::%x/64", i+1))
	}
	start := time.Now()
	a.Addr(t, "eth0", prefixes...)
	if took := time.Since(start); took > 30*time.Second { // duplicate address detection would take a second for each
		t.Errorf("1,000 addresses: want less than half a minute, got %s", took)
	}
	var got int
	a.Do(t, func() {
		ifi, err := net.InterfaceByName("eth0")
		if err != nil {
			t.Fatal(err)
		}
		addrs, err := ifi.Addrs()
		if err != nil {
			t.Fatal(err)
		}
		for _, addr := range addrs {
			if !addr.(*net.IPNet).IP.IsLinkLocalUnicast() {
				got++
			}
		}
	})
	if want := 1000; want != got {
		t.Errorf("addresses: want %d, got %d", want, got)
	}
	for _, addr := range []string{"10.0.1.250:0", "[2001:db8::1f4]:0"} {
		l, err := a.Listen("tcp", addr)
		if err != nil {
			t.Fatalf("the last address is not usable at once: %v", err)
		}
		l.Close()
	}
}

func TestRoutedPath(t *testing.T) {
	client, router, server := netns.New(t, "client"), netns.New(t, "router"), netns.New(t, "server")
	netns.Link(t, client, router, "eth0", "eth0", []string{"192.0.2.2/24", "2001:db8:1::2/64"}, []string{"192.0.2.1/24", "2001:db8:1::1/64"})
	netns.Link(t, router, server, "eth1", "eth0", []string{"198.51.100.1/24", "2001:db8:2::1/64", "fe80::1/64"}, []string{"198.51.100.2/24", "2001:db8:2::2/64"})
	router.Forward(t)
	client.Route(t, "default", "192.0.2.1")
	client.Route(t, "2001:db8:2::/64", "2001:db8:1::1")
	server.Route(t, "192.0.2.0/24", "198.51.100.1")
	server.Route(t, "default", "fe80::1%eth0")
	for _, address := range []string{"198.51.100.2:0", "[2001:db8:2::2]:0"} {
		l, err := server.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		c, err := client.Dial(ctx, "tcp", l.Addr().String(), "")
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
}

func TestCommandRunsInside(t *testing.T) {
	a, b := pair(t)
	if got := a.Output(t, netns.Tool(t, "ip"), "-br", "addr", "show", "dev", "eth0"); !strings.Contains(got, "192.0.2.1/24") {
		t.Errorf("want the address of eth0, got %q", got)
	}
	var want string
	b.Do(t, func() { want = current(t) })
	cmd := b.Command("cat")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	b.Start(t, cmd)
	got, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", cmd.Process.Pid))
	if err != nil || want != got {
		t.Errorf("want a process in %s, got %s, %v", want, got, err)
	}
	stdin.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func TestStartKillsAtTheEnd(t *testing.T) {
	var pid int
	t.Run("inner", func(t *testing.T) {
		h := netns.New(t, "a")
		cmd := h.Command("sleep", "60")
		h.Start(t, cmd)
		pid = cmd.Process.Pid
	})
	if pid == 0 {
		t.Skip("nothing was started")
	}
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("want %v, got %v", syscall.ESRCH, err)
	}
}

func TestRunIsFresh(t *testing.T) {
	netns.Require(t)
	if strings.HasPrefix(os.TempDir(), "/run/") {
		t.Skip("the test itself lives below /run")
	}
	entries, err := os.ReadDir("/run")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "nftsentry" {
			t.Errorf("want an empty /run, got %s", e.Name())
		}
	}
	if err := os.MkdirAll(filepath.Join("/run", "nftsentry"), 0o755); err != nil {
		t.Error(err)
	}
}

// helper starts this test binary anew, from outside of its namespaces as far as it knows.
func helper(t *testing.T, mode string) *exec.Cmd {
	t.Helper()
	netns.Require(t)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "NFTSENTRY_TEST_PARENT_NETNS") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Env = append(cmd.Env, "NETNS_TEST_HELPER="+mode)
	return cmd
}

func TestMainStatus(t *testing.T) {
	cmd := helper(t, "exit")
	out, err := cmd.CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 3 {
		t.Errorf("want exit status 3, got %v\n%s", err, out)
	}
}

func TestMainSignal(t *testing.T) {
	tests := []struct {
		signal syscall.Signal
		code   int
	}{
		{syscall.SIGTERM, 128 + int(syscall.SIGTERM)}, // handed on
		{syscall.SIGKILL, -1},                         // cannot be handed on
	}
	for _, tt := range tests {
		t.Run(tt.signal.String(), func(t *testing.T) {
			cmd := helper(t, "sleep")
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			r := bufio.NewReader(stdout)
			if line, err := r.ReadString('\n'); line != "ready\n" {
				t.Fatalf("want ready, got %q, %v", line, err)
			}
			if err := cmd.Process.Signal(tt.signal); err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, r); err != nil { // ends when the tests have ended too
				t.Fatal(err)
			}
			err = cmd.Wait()
			if exit, ok := errors.AsType[*exec.ExitError](err); !ok || tt.code != exit.ExitCode() {
				t.Errorf("want exit status %d, got %v", tt.code, err)
			}
		})
	}
}

// recorder is a testing.TB that records how a test would end.
type recorder struct {
	testing.TB
	skipped, failed string
}

func (r *recorder) Helper() {}

func (r *recorder) Skipf(format string, args ...any) {
	r.skipped = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.failed = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// inGoroutine runs fn in a goroutine that it may end.
func inGoroutine(fn func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		fn()
	}()
	<-done
}

func TestToolMissing(t *testing.T) {
	const want = "no-such-program is not installed: it is in the Debian package no-such-program"
	tests := []struct{ ci, skipped, failed string }{
		{"", want, ""},
		{"false", want, ""},
		{"true", "", want},
	}
	for _, tt := range tests {
		t.Setenv("CI", tt.ci)
		r := &recorder{TB: t}
		inGoroutine(func() { netns.Tool(r, "no-such-program") })
		if tt.skipped != r.skipped || tt.failed != r.failed {
			t.Errorf("CI=%s: want skip %q, failure %q, got %q, %q", tt.ci, tt.skipped, tt.failed, r.skipped, r.failed)
		}
	}
}
