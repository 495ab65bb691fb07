package host

import (
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap/zaptest"
	"golang.org/x/sys/unix"

	"nftsentry/integration/netns"
)

// TestServices opens sockets of many kinds and looks which are found.
func TestServices(t *testing.T) {
	h := linked(t)
	var open []io.Closer
	defer func() {
		for _, c := range open {
			_ = c.Close()
		}
	}()
	for _, s := range []struct{ network, address string }{
		{"tcp", ":80"}, {"tcp4", "192.0.2.1:81"}, {"tcp6", "[2001:db8::1]:82"}, {"tcp4", "127.0.0.1:83"}, {"tcp6", "[::1]:84"},
	} {
		l, err := h.Listen(s.network, s.address)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, l)
	}
	for _, s := range []struct{ network, address string }{
		{"udp", ":53"}, {"udp4", "192.0.2.1:54"}, {"udp6", "[2001:db8::1]:55"}, {"udp4", "127.0.0.53:56"}, {"udp6", "[::1]:57"},
	} {
		c, err := h.ListenPacket(s.network, s.address)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
	}
	conn, err := h.Dial(t.Context(), "udp", "192.0.2.9:123", "192.0.2.1:58") // a client
	if err != nil {
		t.Fatal(err)
	}
	open = append(open, conn)

	got, err := New(zaptest.NewLogger(t), WithNetNS(h.FD())).Services()
	if err != nil {
		t.Fatal(err)
	}
	want := []Service{
		{unix.IPPROTO_TCP, 80}, {unix.IPPROTO_TCP, 81}, {unix.IPPROTO_TCP, 82},
		{unix.IPPROTO_UDP, 53}, {unix.IPPROTO_UDP, 54}, {unix.IPPROTO_UDP, 55},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("services (-want +got):\n%s", diff)
	}
}

func TestParseSocketCut(t *testing.T) {
	for n := range diagMessageSize {
		if _, err := parseSocket(make([]byte, n)); err == nil {
			t.Errorf("no error for %d bytes", n)
		}
	}
}

func FuzzParseSocket(f *testing.F) {
	f.Add(make([]byte, diagMessageSize))
	f.Add([]byte{unix.AF_INET6})
	f.Fuzz(func(t *testing.T, b []byte) {
		if local, err := parseSocket(b); err == nil && (!local.Addr().IsValid() || local.Addr().Is4In6()) {
			t.Errorf("parseSocket gives %v", local)
		}
	})
}

// TestSysctl reads the parameters of this very kernel.
func TestSysctl(t *testing.T) {
	h := netns.New(t, "host")
	h.Sysctl(t, "net.ipv4.ip_local_port_range", "20000 29999")
	h.Do(t, func() {
		if first, last, err := LocalPorts(); first != 20000 || last != 29999 || err != nil {
			t.Errorf("LocalPorts() = %d, %d, %v, want 20000, 29999", first, last, err)
		}
	})
	if most, err := ConntrackMax(); most < 1 || err != nil {
		t.Errorf("ConntrackMax() = %d, %v", most, err)
	}
	var n int
	if err := scanFile("/proc/self/comm", &n); err == nil {
		t.Error("no error for a file without a number")
	}
}
