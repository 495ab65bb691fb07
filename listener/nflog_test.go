package listener

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/zap/zaptest"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"nftsentry/integration/netns"
)

const group = 4711

// openLog opens the group on a host.
func openLog(t testing.TB, host *netns.Host) *NFLOG {
	t.Helper()
	n, err := tryLog(t, host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
	return n
}

func tryLog(t testing.TB, host *netns.Host) (n *NFLOG, err error) {
	t.Helper()
	host.Do(t, func() { n, err = OpenNFLOG(group, zaptest.NewLogger(t)) })
	return n, err
}

// runLog runs it until the test or the returned function ends it.
func runLog(t *testing.T, n *NFLOG, size int) (<-chan Event, func()) {
	t.Helper()
	events := make(chan Event, size)
	ctx, cancel := context.WithCancel(context.Background())
	var g errgroup.Group
	g.Go(func() error { return n.Run(ctx, events) })
	stop := func() {
		cancel()
		if err := g.Wait(); err != nil {
			t.Errorf("Run: %v", err)
		}
	}
	t.Cleanup(stop)
	return events, stop
}

// wasMissed reports whether Missed tells something, within a minute.
func wasMissed(n *NFLOG) bool {
	select {
	case <-n.Missed():
		return true
	case <-time.After(time.Minute):
		return false
	}
}

// logging makes two hosts, of which the server logs probes of TCP port 23,
// and drops and logs what comes to UDP port 161.
func logging(t testing.TB) (server, client *netns.Host) {
	t.Helper()
	server, client = netns.New(t, "server"), netns.New(t, "client")
	netns.Link(t, server, client, "eth0", "eth0",
		[]string{"10.9.0.1/24", "2001:db8:9::1/64"}, []string{"10.9.0.2/24", "2001:db8:9::2/64"})
	nft := netns.Tool(t, "nft")
	for _, command := range []string{
		"add table inet t",
		"add chain inet t in { type filter hook input priority 0; }",
		fmt.Sprintf(`add rule inet t in tcp dport 23 log prefix "probe" group %d snaplen 128`, group),
		fmt.Sprintf(`add rule inet t in udp dport 161 log prefix "block" group %d snaplen 128 drop`, group),
	} {
		server.Output(t, nft, command)
	}
	return server, client
}

// send sends packets that begin with a transport header.
func send(t testing.TB, host *netns.Host, protocol int, from, to string, packets ...[]byte) {
	t.Helper()
	network := "ip4"
	if netip.MustParseAddr(from).Is6() {
		network = "ip6"
	}
	conn, err := host.ListenPacket(fmt.Sprintf("%s:%d", network, protocol), from)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, p := range packets {
		if _, err := conn.WriteTo(p, &net.IPAddr{IP: net.ParseIP(to)}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestNFLOG sends every kind of packet and reads what the kernel tells of them.
func TestNFLOG(t *testing.T) {
	server, client := logging(t)
	n := openLog(t, server)
	events, _ := runLog(t, n, 64)
	var want, got []Event
	for _, tt := range []struct{ from, to string }{{"10.9.0.2", "10.9.0.1"}, {"2001:db8:9::2", "2001:db8:9::1"}} {
		source := netip.AddrPortFrom(netip.MustParseAddr(tt.from), 40000)
		target := netip.MustParseAddr(tt.to)
		send(t, client, tcpNo, tt.from, tt.to, tcp(flagSYN), tcp(flagFIN), tcp(0), tcp(flagFIN|flagPSH|flagURG), tcp(flagSYN|flagFIN))
		send(t, client, udpNo, tt.from, tt.to, udp(strings.Repeat("x", 1000)))
		for _, kind := range []Kind{Syn, Fin, Null, Xmas, SynFin} {
			want = append(want, Event{Source: source, Target: netip.AddrPortFrom(target, 23), Protocol: TCP, Kind: kind})
		}
		want = append(want, Event{
			Source: source, Target: netip.AddrPortFrom(target, 161), Protocol: UDP, Kind: Datagram, Verdict: Convicted,
		})
	}
	for range want {
		got = append(got, next(t, events))
	}
	for _, e := range got {
		if age := time.Since(e.Time); age < 0 || age > time.Minute {
			t.Errorf("event is %v old", age)
		}
	}
	opts := gocmp.Options{cmpopts.IgnoreFields(Event{}, "Time"), compare, cmpopts.SortSlices(func(a, b Event) bool {
		return cmp.Or(a.Source.Compare(b.Source), cmp.Compare(a.Kind, b.Kind)) < 0
	})}
	if diff := gocmp.Diff(want, got, opts); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if got, want := n.Stats(), (NFLOGStats{Received: 12}); got != want {
		t.Errorf("stats %+v, want %+v", got, want)
	}
}

// TestNFLOGConnect makes an honest system's connection attempt, whose SYN has
// options.
func TestNFLOGConnect(t *testing.T) {
	server, client := logging(t)
	events, _ := runLog(t, openLog(t, server), 64)
	if _, err := client.Dial(t.Context(), "tcp", "10.9.0.1:23", "10.9.0.2:40001"); !errors.Is(err, unix.ECONNREFUSED) {
		t.Fatalf("dial: %v", err)
	}
	want := Event{
		Source: netip.MustParseAddrPort("10.9.0.2:40001"), Target: netip.MustParseAddrPort("10.9.0.1:23"),
		Protocol: TCP, Kind: Syn,
	}
	if diff := gocmp.Diff(want, next(t, events), compare, cmpopts.IgnoreFields(Event{}, "Time")); diff != "" {
		t.Errorf("event (-want +got):\n%s", diff)
	}
}

// TestNFLOGBatch sends more packets than a batch has: it waits for no timer.
func TestNFLOGBatch(t *testing.T) {
	server, client := logging(t)
	n := openLog(t, server)
	events, _ := runLog(t, n, 4*batch)
	flood(t, client, 3*batch)
	for range 3 * batch {
		next(t, events)
	}
	if got, want := n.Stats(), (NFLOGStats{Received: 3 * batch}); got != want {
		t.Errorf("stats %+v, want %+v", got, want)
	}
}

func flood(t testing.TB, client *netns.Host, n int) {
	t.Helper()
	packets := make([][]byte, n)
	for i := range packets {
		packets[i] = udp("")
	}
	send(t, client, udpNo, "10.9.0.2", "10.9.0.1", packets...)
}

// TestNFLOGConfig asks the kernel what it was told: group, copy mode, copy
// range in bytes and timeout in 1/100 s (seq_show in net/netfilter/nfnetlink_log.c).
func TestNFLOGConfig(t *testing.T) {
	host := netns.New(t, "host")
	openLog(t, host)
	var b []byte
	var err error
	host.Do(t, func() { b, err = os.ReadFile("/proc/thread-self/net/netfilter/nfnetlink_log") })
	if err != nil {
		t.Fatal(err)
	}
	var got [6]int // with the port id and the length of the queue
	if _, err := fmt.Sscan(string(b), &got[0], &got[1], &got[2], &got[3], &got[4], &got[5]); err != nil {
		t.Fatalf("%q: %v", b, err)
	}
	if diff := gocmp.Diff([6]int{group, got[1], 0, 2, 128, 10}, got); diff != "" {
		t.Errorf("configuration (-want +got):\n%s", diff)
	}
}

// TestNFLOGOverrun reads nothing until the kernel has no room left, and goes
// on after that.
func TestNFLOGOverrun(t *testing.T) {
	server, client := logging(t)
	n := openLog(t, server)
	if err := n.conn.SetReadBuffer(1); err != nil { // the kernel makes that a few kilobytes
		t.Fatal(err)
	}
	flood(t, client, 20*batch)
	events, _ := runLog(t, n, 20*batch)
	if !wasMissed(n) {
		t.Error("messages were lost, and Missed does not tell")
	}
	if s := n.Stats(); s.Overruns == 0 || s.Lost != 0 || s.Received >= 20*batch {
		t.Errorf("stats %+v, want overruns, and messages that have not come", s)
	}
	for end := time.Now().Add(time.Minute); ; {
		send(t, client, tcpNo, "10.9.0.2", "10.9.0.1", tcp(flagSYN)) // for which there may be no room yet
		for wait := time.After(200 * time.Millisecond); wait != nil; {
			select {
			case e := <-events:
				if e.Protocol == TCP {
					return
				}
			case <-wait:
				wait = nil
			}
		}
		if time.Now().After(end) {
			t.Fatal("nothing is told of after an overrun")
		}
	}
}

// TestNFLOGTaken opens a group twice, and again when it is free.
func TestNFLOGTaken(t *testing.T) {
	server, other := netns.New(t, "server"), netns.New(t, "other")
	first := openLog(t, server)
	_, err := tryLog(t, server)
	if !errors.Is(err, ErrGroupTaken) {
		t.Errorf("error %v, want one that is ErrGroupTaken", err)
	}
	want := "NFLOG group 4711 is taken by another program: set trigger.nflog_group to a free one"
	if err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	openLog(t, other)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	openLog(t, server)
}

// TestNFLOGRights has no rights, which is another thing than a group that is
// taken, also when it is.
func TestNFLOGRights(t *testing.T) {
	server := netns.New(t, "server")
	for _, taken := range []bool{false, true} {
		if taken {
			openLog(t, server)
		}
		var err error
		server.Do(t, func() {
			defer without(t, unix.CAP_NET_ADMIN)()
			_, err = OpenNFLOG(group, zaptest.NewLogger(t))
		})
		if !errors.Is(err, unix.EPERM) || errors.Is(err, ErrGroupTaken) {
			t.Errorf("taken %v: error %v, want EPERM and nothing of a taken group", taken, err)
		}
	}
}

// without takes a capability from the calling thread, and returns what gives it back.
func without(t *testing.T, capability int) func() {
	t.Helper()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var old [2]unix.CapUserData
	if err := unix.Capget(&header, &old[0]); err != nil {
		t.Fatal(err)
	}
	reduced := old
	reduced[capability/32].Effective &^= 1 << (capability % 32)
	if err := unix.Capset(&header, &reduced[0]); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := unix.Capset(&header, &old[0]); err != nil {
			t.Error(err)
		}
	}
}

// TestNFLOGEnds ends Run while it waits.
func TestNFLOGEnds(t *testing.T) {
	n := openLog(t, netns.New(t, "host"))
	_, stop := runLog(t, n, 1)
	time.Sleep(10 * time.Millisecond) // until it waits; if it does not yet, the test is easier
	began := time.Now()
	stop()
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("Run took %v to end", took)
	}
}

// TestNFLOGCloses shows that a closed group is an error and not a loop.
func TestNFLOGCloses(t *testing.T) {
	host := netns.New(t, "host")
	waiting, closed := openLog(t, host), openLog(t, netns.New(t, "other"))
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(10*time.Millisecond, func() { _ = waiting.Close() })
	for name, n := range map[string]*NFLOG{"closed": closed, "closed while it waits": waiting} {
		if err := n.Run(t.Context(), nil); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
