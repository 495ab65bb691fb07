package host

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/netlink"
	"go.uber.org/zap/zaptest"
	"golang.org/x/sys/unix"

	"nftsentry/integration/netns"
)

// patience is how long a test waits for what should happen within about a second.
const patience = 30 * time.Second

// ipTool runs ip(8) on a host for each line.
func ipTool(t *testing.T, h *netns.Host, lines ...[]string) {
	t.Helper()
	ip := netns.Tool(t, "ip")
	for _, args := range lines {
		h.Output(t, ip, args...)
	}
}

// linked is a host with an interface eth0 at 192.0.2.1/24 and 2001:db8::1/64, and one eth1 without addresses. They have
// no link-local addresses, which are made up anew each time.
func linked(t *testing.T) *netns.Host {
	t.Helper()
	h, peer := netns.New(t, "host"), netns.New(t, "peer")
	h.Sysctl(t, "net.ipv6.conf.default.addr_gen_mode", "1")
	netns.Link(t, h, peer, "eth0", "eth0", []string{"192.0.2.1/24", "2001:db8::1/64"}, nil)
	netns.Link(t, h, peer, "eth1", "eth1", nil, nil)
	return h
}

// watcher is a Watcher of a host without resolvers.
func watcher(t *testing.T, h *netns.Host) *Watcher {
	t.Helper()
	return New(zaptest.NewLogger(t), WithNetNS(h.FD()), WithResolv(filepath.Join(t.TempDir(), "resolv.conf")))
}

// base is what linked hosts are.
func base() Facts {
	return Facts{
		Addresses: addrs("127.0.0.1", "192.0.2.1", "::1", "2001:db8::1"),
		OnLink6:   prefixes("2001:db8::/64", "fe80::/10"),
	}
}

func TestRead(t *testing.T) {
	tests := []struct {
		name  string
		lines [][]string
		want  func(*Facts)
	}{
		{"as it is", nil, func(*Facts) {}},
		{"addresses", [][]string{
			{"addr", "add", "203.0.113.1/32", "dev", "lo"},
			{"addr", "add", "fd00::1/48", "dev", "eth1"},
			{"addr", "add", "fd00:0:0:2::1/64", "dev", "eth1", "nodad"},
			{"addr", "add", "fe80::1/64", "dev", "eth1"},
			{"addr", "add", "10.0.0.1", "peer", "10.9.9.9/32", "dev", "eth1"},
			{"addr", "add", "fd01::1", "peer", "fd02::1/64", "dev", "eth1"},
		}, func(f *Facts) {
			f.Addresses = addrs("10.0.0.1", "127.0.0.1", "192.0.2.1", "203.0.113.1", "::1", "2001:db8::1", "fd00::1", "fd00:0:0:2::1", "fd01::1", "fe80::1")
			f.OnLink6 = prefixes("2001:db8::/64", "fd00::/48", "fd02::/64", "fe80::/10")
		}},
		{"default routes", [][]string{
			{"route", "add", "default", "via", "192.0.2.254"},
			{"-6", "route", "add", "default", "via", "fe80::fe", "dev", "eth0"},
		}, func(f *Facts) { f.Gateways = addrs("192.0.2.254", "fe80::fe") }},
		{"same next hop twice", [][]string{
			{"route", "add", "default", "via", "192.0.2.254"},
			{"route", "add", "198.51.100.0/24", "via", "192.0.2.254"},
			{"route", "add", "203.0.113.0/24", "dev", "eth0"},
			{"route", "add", "blackhole", "203.0.113.0/25"},
		}, func(f *Facts) { f.Gateways = addrs("192.0.2.254") }},
		{"other tables", [][]string{
			{"route", "add", "default", "via", "192.0.2.253", "table", "100"},
			{"-6", "route", "add", "default", "via", "2001:db8::fd", "table", "1000"},
		}, func(f *Facts) { f.Gateways = addrs("192.0.2.253", "2001:db8::fd") }},
		{"multipath", [][]string{
			{"route", "add", "default", "nexthop", "via", "192.0.2.252", "nexthop", "via", "192.0.2.251", "nexthop", "dev", "eth1"},
			{"-6", "route", "add", "default", "nexthop", "via", "2001:db8::fc", "nexthop", "via", "2001:db8::fb"},
		}, func(f *Facts) { f.Gateways = addrs("192.0.2.251", "192.0.2.252", "2001:db8::fb", "2001:db8::fc") }},
		{"IPv4 by IPv6", [][]string{
			{"route", "add", "default", "via", "inet6", "fe80::fe", "dev", "eth0"},
			{"route", "add", "198.51.100.0/24", "nexthop", "via", "inet6", "2001:db8::fe", "dev", "eth0", "nexthop", "via", "192.0.2.254"},
		}, func(f *Facts) { f.Gateways = addrs("192.0.2.254", "2001:db8::fe", "fe80::fe") }},
		{"nexthop objects", [][]string{
			{"nexthop", "add", "id", "1", "via", "192.0.2.250", "dev", "eth0"},
			{"nexthop", "add", "id", "2", "via", "2001:db8::fa", "dev", "eth0"},
			{"nexthop", "add", "id", "3", "via", "192.0.2.9", "fdb"},
			{"route", "add", "default", "nhid", "1"},
		}, func(f *Facts) { f.Gateways = addrs("192.0.2.250", "2001:db8::fa") }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := linked(t)
			ipTool(t, h, tt.lines...)
			want := base()
			tt.want(&want)
			got, err := watcher(t, h).Read()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got, exact); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// Without the compatibility mode, routes name their nexthop objects by number only.
func TestReadNexthopsByNumber(t *testing.T) {
	h := linked(t)
	h.Sysctl(t, "net.ipv4.nexthop_compat_mode", "0")
	ipTool(t, h,
		[]string{"nexthop", "add", "id", "1", "via", "192.0.2.250", "dev", "eth0"},
		[]string{"nexthop", "add", "id", "2", "via", "192.0.2.251", "dev", "eth0"},
		[]string{"nexthop", "add", "id", "10", "group", "1/2"},
		[]string{"route", "add", "default", "nhid", "10"})
	got, err := watcher(t, h).Read()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(addrs("192.0.2.250", "192.0.2.251"), got.Gateways, exact); diff != "" {
		t.Errorf("gateways: (-want +got)\n%s", diff)
	}
}

func TestReadManyRoutes(t *testing.T) {
	t.Parallel()
	h := linked(t)
	var batch []byte
	const routes, hops = 20_000, 10
	for i := range routes {
		batch = fmt.Appendf(batch, "route add 10.%d.%d.0/24 via 192.0.2.%d\n", i/256, i%256, 2+i%hops)
	}
	file := filepath.Join(t.TempDir(), "batch")
	write(t, file, string(batch))
	h.Output(t, netns.Tool(t, "ip"), "-batch", file)
	start := time.Now()
	got, err := watcher(t, h).Read()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d routes read in %s", routes, time.Since(start))
	if len(got.Gateways) != hops {
		t.Errorf("want %d gateways, got %v", hops, got.Gateways)
	}
}

// start runs a Watcher of a host and returns the Facts that it tells.
func start(t *testing.T, w *Watcher, changed func(Facts)) <-chan Facts {
	t.Helper()
	told := make(chan Facts, 100)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		done <- w.Run(ctx, func(f Facts) {
			changed(f)
			told <- f
		})
	}()
	t.Cleanup(func() {
		before := time.Now()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: want nil, got %v", err)
		}
		if took := time.Since(before); took > patience {
			t.Errorf("Run ended %s after its context", took)
		}
	})
	return told
}

// await waits until the Facts told last are those wanted.
func await(t *testing.T, told <-chan Facts, want Facts) {
	t.Helper()
	var got Facts
	timeout := time.After(patience)
	for !got.Equal(want) {
		select {
		case got = <-told:
		case <-timeout:
			t.Fatalf("after %s: (-want +got)\n%s", patience, cmp.Diff(want, got, exact))
		}
	}
}

func TestRunFollowsTheKernel(t *testing.T) {
	t.Parallel()
	h := linked(t)
	told := start(t, watcher(t, h), func(Facts) {})
	want := base()
	await(t, told, want)

	h.Addr(t, "eth1", "2001:db8:1::1/64")
	want.Addresses = addrs("127.0.0.1", "192.0.2.1", "::1", "2001:db8::1", "2001:db8:1::1")
	want.OnLink6 = prefixes("2001:db8::/64", "2001:db8:1::/64", "fe80::/10")
	await(t, told, want)

	h.Route(t, "default", "192.0.2.254")
	want.Gateways = addrs("192.0.2.254")
	await(t, told, want)

	h.Route(t, "default", "192.0.2.253")
	want.Gateways = addrs("192.0.2.253")
	await(t, told, want)

	ipTool(t, h, []string{"route", "replace", "default", "nexthop", "via", "192.0.2.252", "nexthop", "via", "192.0.2.251"})
	want.Gateways = addrs("192.0.2.251", "192.0.2.252")
	await(t, told, want)
}

// The kernel says nothing of the IPv4 routes that vanish with their link.
func TestRunFollowsLinks(t *testing.T) {
	t.Parallel()
	h := linked(t)
	h.Sysctl(t, "net.ipv6.conf.eth1.disable_ipv6", "1")
	h.Addr(t, "eth1", "198.51.100.1/24")
	h.Route(t, "default", "198.51.100.254")
	told := start(t, watcher(t, h), func(Facts) {})
	want := base()
	want.Addresses = addrs("127.0.0.1", "192.0.2.1", "198.51.100.1", "::1", "2001:db8::1")
	want.Gateways = addrs("198.51.100.254")
	await(t, told, want)
	ipTool(t, h, []string{"link", "set", "eth1", "down"})
	want.Gateways = nil
	await(t, told, want)
}

// While changed is busy, more changes come than the socket can hold.
func TestRunSurvivesOverrun(t *testing.T) {
	t.Parallel()
	h := linked(t)
	overrun, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{NetNS: h.FD(), Groups: groups})
	if err != nil {
		t.Fatal(err)
	}
	defer overrun.Close()
	busy, release := make(chan struct{}), make(chan struct{})
	first := true
	told := start(t, watcher(t, h), func(Facts) {
		if first {
			first = false
			close(busy)
			<-release
		}
	})
	<-busy
	want := base()
	var many []string
	for i := range 1500 {
		a := fmt.Sprintf("2001:db8::1:%x", i)
		many, want.Addresses = append(many, a+"/64"), append(want.Addresses, addrs(a)...)
	}
	h.Addr(t, "eth0", many...)
	if _, err := overrun.Receive(); !errors.Is(err, unix.ENOBUFS) {
		t.Errorf("a socket that nobody reads: want %v, got %v", unix.ENOBUFS, err)
	}
	close(release)
	await(t, told, want)
}

// silence waits until nothing more happens, such as what belongs to an earlier change.
func silence(t *testing.T, sub subscription) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		changed, err := sub.wait(t.Context(), 50*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		if !changed {
			return
		}
	}
	t.Fatalf("no silence within %s", patience)
}

func TestEventsWait(t *testing.T) {
	h := linked(t)
	sub, err := rtnl{netns: h.FD()}.subscribe()
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	silence(t, sub)
	h.Addr(t, "eth1", "192.0.2.129/25")
	if changed, err := sub.wait(t.Context(), patience); !changed || err != nil {
		t.Errorf("address added: want true, got %t, %v", changed, err)
	}
	silence(t, sub)
	for _, after := range []time.Duration{0, 10 * time.Millisecond} {
		ctx, cancel := context.WithTimeout(t.Context(), after)
		defer cancel()
		begin := time.Now()
		changed, err := sub.wait(ctx, time.Minute)
		if took := time.Since(begin); changed || err != nil || took > patience {
			t.Errorf("context of %s: want false, got %t, %v after %s", after, changed, err, took)
		}
	}
	if err := sub.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := sub.wait(t.Context(), time.Second); err == nil {
		t.Error("closed: want an error, got none")
	}
}

func TestDumpEndsWithContext(t *testing.T) {
	h := linked(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (rtnl{netns: h.FD()}).gateways(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("want %v, got %v", context.Canceled, err)
	}
}

// Nobody is left without facts because a namespace is gone.
func TestReadFails(t *testing.T) {
	w := New(zaptest.NewLogger(t), WithNetNS(-1))
	got, err := w.Read()
	if err == nil {
		t.Error("want an error, got none")
	}
	if diff := cmp.Diff(prefixes("fe80::/10"), got.OnLink6, exact); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
