package listener

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/zap/zaptest"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"nftsentry/integration/netns"
)

func TestMain(m *testing.M) { netns.Main(m) }

// open opens a decoy on a host.
func open(t *testing.T, host *netns.Host, cfg DecoyConfig) *Decoy {
	t.Helper()
	var d *Decoy
	var err error
	host.Do(t, func() { d, err = OpenDecoy(cfg, zaptest.NewLogger(t)) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

// run runs a decoy until the test or the returned function ends it.
func run(t *testing.T, d *Decoy, size int) (<-chan Event, func()) {
	t.Helper()
	events := make(chan Event, size)
	ctx, cancel := context.WithCancel(context.Background())
	var g errgroup.Group
	g.Go(func() error { return d.Run(ctx, events) })
	stop := func() {
		cancel()
		if err := g.Wait(); err != nil {
			t.Errorf("Run: %v", err)
		}
	}
	t.Cleanup(stop)
	return events, stop
}

func next(t *testing.T, events <-chan Event) Event {
	t.Helper()
	select {
	case e := <-events:
		return e
	case <-time.After(time.Minute):
		t.Fatal("no event")
		return Event{}
	}
}

func dial(t *testing.T, host *netns.Host, network, address string) net.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := host.Dial(ctx, network, address, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// TestDecoy connects to ports that the kernel redirects, and to one that it does not.
func TestDecoy(t *testing.T) {
	server, client := netns.New(t, "server"), netns.New(t, "client")
	netns.Link(t, server, client, "eth0", "eth0",
		[]string{"10.9.0.1/24", "2001:db8:9::1/64"}, []string{"10.9.0.2/24", "2001:db8:9::2/64"})
	d := open(t, server, DecoyConfig{Banner: "go away\r\n"})
	nft := netns.Tool(t, "nft")
	server.Output(t, nft, "add table inet away")
	server.Output(t, nft, "add chain inet away pre { type nat hook prerouting priority 0; }")
	server.Output(t, nft, fmt.Sprintf("add rule inet away pre tcp dport 2000-2999 redirect to :%d", d.Port()))
	events, _ := run(t, d, 16)

	for _, tt := range []struct{ address, source string }{
		{"10.9.0.1:2345", "10.9.0.2"},
		{"[2001:db8:9::1]:2346", "2001:db8:9::2"},
		{fmt.Sprintf("10.9.0.1:%d", d.Port()), "10.9.0.2"},
		{fmt.Sprintf("[2001:db8:9::1]:%d", d.Port()), "2001:db8:9::2"},
	} {
		conn := dial(t, client, "tcp", tt.address)
		if _, err := conn.Write([]byte("GET / HTTP/1.0\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		banner, err := io.ReadAll(conn)
		if err != nil || string(banner) != "go away\r\n" {
			t.Errorf("%s: read %q, %v, want the banner", tt.address, banner, err)
		}
		want := Event{
			Source:   netip.AddrPortFrom(netip.MustParseAddr(tt.source), conn.LocalAddr().(*net.TCPAddr).AddrPort().Port()),
			Target:   netip.MustParseAddrPort(tt.address),
			Protocol: TCP, Kind: Connect, Evidence: Proven,
		}
		got := next(t, events)
		if age := time.Since(got.Time); age < 0 || age > time.Minute {
			t.Errorf("%s: event is %v old", tt.address, age)
		}
		opts := cmp.Options{cmpopts.IgnoreFields(Event{}, "Time"), cmpopts.EquateComparable(netip.AddrPort{})}
		if diff := cmp.Diff(want, got, opts); diff != "" {
			t.Errorf("%s: event (-want +got):\n%s", tt.address, diff)
		}
	}
	if got, want := d.Stats(), (DecoyStats{Accepted: 4}); got != want {
		t.Errorf("stats %+v, want %+v", got, want)
	}
}

// TestDecoyWithoutIPv6 listens where the host has no IPv6 to listen on.
func TestDecoyWithoutIPv6(t *testing.T) {
	host := netns.New(t, "host")
	host.Sysctl(t, "net.ipv6.conf.all.disable_ipv6", "1")
	events, _ := run(t, open(t, host, DecoyConfig{Port: 777}), 1)
	dial(t, host, "tcp", "127.0.0.1:777")
	if got, want := next(t, events).Target, netip.MustParseAddrPort("127.0.0.1:777"); got != want {
		t.Errorf("target %v, want %v", got, want)
	}
}

func TestDecoyPort(t *testing.T) {
	host := netns.New(t, "host")
	for _, address := range []string{"127.0.0.1:1023", "[::1]:1021"} {
		l, err := host.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
	}
	avoid := func(p uint16) bool { return p == 1022 }
	if got := open(t, host, DecoyConfig{Avoid: avoid}).Port(); got != 1020 {
		t.Errorf("port %d, want 1020: 1023 and 1021 are taken, 1022 is avoided", got)
	}

	for name, tt := range map[string]struct {
		cfg  DecoyConfig
		want string
	}{
		"taken":   {DecoyConfig{Port: 1023}, "set tcp.port to a free port, or to 0"},
		"nothing": {DecoyConfig{Avoid: func(uint16) bool { return true }}, "no free port between 512 and 1023; set tcp.port"},
	} {
		var err error
		host.Do(t, func() { _, err = OpenDecoy(tt.cfg, zaptest.NewLogger(t)) })
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want one with %q", name, err, tt.want)
		}
	}
}

// TestDecoyLimits holds more connections than one source may.
func TestDecoyLimits(t *testing.T) {
	host := netns.New(t, "host")
	d := open(t, host, DecoyConfig{Port: 777, Banner: "hello"})
	events, stop := run(t, d, 64)
	// The first ones must be held for as long as it takes the others to come.
	for took := patience; took >= patience; {
		until(t, "nothing is held", func() bool { return d.held() == 0 })
		began, banners := time.Now(), 0
		for range maxConnsPerSource + 4 {
			conn := dial(t, host, "tcp", "127.0.0.1:777")
			next(t, events)
			buf := make([]byte, 5)
			_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
			if _, err := io.ReadFull(conn, buf); err == nil && string(buf) == "hello" {
				banners++
			}
		}
		if took = time.Since(began); took < patience && banners != maxConnsPerSource {
			t.Errorf("%d banners, want %d", banners, maxConnsPerSource)
		}
	}
	stop() // with connections open
	if d.total != 0 || len(d.holding) != 0 {
		t.Errorf("after the end %d connections are held, %v", d.total, d.holding)
	}
}

// TestDecoyPatience shows that a client that stays does not hold a connection for long.
func TestDecoyPatience(t *testing.T) {
	host := netns.New(t, "host")
	d := open(t, host, DecoyConfig{Port: 777, Banner: "hello"})
	events, _ := run(t, d, 64)
	dial(t, host, "tcp", "127.0.0.1:777")
	next(t, events)
	until(t, "nothing is held", func() bool { return d.held() == 0 })
}

// held is how many connections are.
func (d *Decoy) held() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.total
}

// until waits until something is so.
func until(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !so(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not after a minute: %s", what)
		}
	}
}

// TestDecoyDrops shows that a full channel holds nothing up.
func TestDecoyDrops(t *testing.T) {
	host := netns.New(t, "host")
	d := open(t, host, DecoyConfig{Port: 777})
	events, _ := run(t, d, 1)
	for range 5 {
		conn := dial(t, host, "tcp", "127.0.0.1:777")
		if _, err := io.ReadAll(conn); err != nil {
			t.Errorf("read: %v", err)
		}
	}
	if got, want := d.Stats(), (DecoyStats{Accepted: 5, Lost: 4}); got != want {
		t.Errorf("stats %+v, want %+v", got, want)
	}
	next(t, events)
}

// TestDecoyStarves takes all file descriptors away, and gives them back.
func TestDecoyStarves(t *testing.T) {
	host := netns.New(t, "host")
	d := open(t, host, DecoyConfig{Port: 777})
	dial(t, host, "tcp", "127.0.0.1:777") // waits in the socket

	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	restore := func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
			t.Error(err)
		}
	}
	defer restore()
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: lowestFree(t), Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	events, _ := run(t, d, 1)
	until(t, "accept fails without file descriptors", func() bool { return d.Stats().Starved >= 3 })
	restore()
	next(t, events)
}

// lowestFree is the number of the next file descriptor.
func lowestFree(t *testing.T) uint64 {
	t.Helper()
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return uint64(f.Fd())
}

// TestDecoyCloses shows that a closed socket is an error and not a loop.
func TestDecoyCloses(t *testing.T) {
	host := netns.New(t, "host")
	d := open(t, host, DecoyConfig{Port: 777})
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := d.Run(context.Background(), nil); err == nil {
		t.Error("Run on a closed socket: no error")
	}
}

// TestAnswersTwice shows that the kernel gives up on who does not acknowledge
// its answers before connection tracking forgets where they come from.
func TestAnswersTwice(t *testing.T) {
	d := open(t, netns.New(t, "host"), DecoyConfig{Port: 2000})
	raw, err := d.listener.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var again int
	var failed error
	err = raw.Control(func(fd uintptr) { again, failed = unix.GetsockoptInt(int(fd), unix.SOL_TCP, unix.TCP_SYNCNT) })
	if err != nil || failed != nil || again != 1 {
		t.Errorf("answers are sent again %d times, %v, %v, want once", again, err, failed)
	}
}
