package nft

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/mdlayher/netlink"
	"go.uber.org/zap/zaptest"
	"golang.org/x/sys/unix"

	"nftsentry/integration/netns"
)

// guarded makes a host with a table and opens a Monitor of it.
func guarded(t testing.TB, blocks ...Element) (*netns.Host, *Table, *Monitor) {
	t.Helper()
	host := netns.New(t, "host")
	table, err := Open(host.FD(), 64)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = table.Close() })
	m, err := OpenMonitor(table, zaptest.NewLogger(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	if err := table.Load(enforce(), slices.Values(blocks), nil); err != nil {
		t.Fatal(err)
	}
	return host, table, m
}

// run runs a Monitor until the test ends.
func run(t testing.TB, m *Monitor) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// script has nft(8) run commands as one transaction.
func script(t testing.TB, host *netns.Host, commands string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "script.nft")
	if err := os.WriteFile(file, []byte(commands), 0o600); err != nil {
		t.Fatal(err)
	}
	host.Output(t, netns.Tool(t, "nft"), "-f", file)
}

func change(t testing.TB, m *Monitor) Change {
	t.Helper()
	select {
	case c := <-m.Changes():
		return c
	case <-time.After(time.Minute):
		t.Fatal("no change was told")
		return Change{}
	}
}

// fence is a change that a Monitor tells after all that came before it. What
// it tells with it, or before it, is not the fence's.
func fence(t *testing.T, host *netns.Host, m *Monitor) {
	t.Helper()
	script(t, host, "add element inet nftsentry blocked4 { 203.0.113.250 timeout 1h }")
	want := Change{Hosts: []netip.Addr{netip.MustParseAddr("203.0.113.250")}, Process: "nft"}
	if diff := diffChange(want, change(t, m)); diff != "" {
		t.Errorf("told besides the change of somebody else (-want +got):\n%s", diff)
	}
}

func diffChange(want, got Change) string {
	byAddress := cmpopts.SortSlices(func(a, b netip.Addr) bool { return a.Less(b) })
	return cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), byAddress,
		cmpopts.IgnoreFields(Change{}, "PID"), cmpopts.EquateEmpty())
}

var guardedBlocks = []Element{
	element("192.0.2.7/32", time.Hour, "one"), element("192.0.2.8/32", time.Hour, "two"),
	element("2001:db8:1:2::/64", time.Hour, "wide"), element("2001:db8:1:3::5/128", time.Hour, "neighbour"),
	element("198.51.100.0/24", time.Hour, "net"), element("2001:db8:ff00::/40", time.Hour, "net"),
}

func addresses(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

// TestDamage has somebody else damage the table in every way, and shows that
// it is told, what Intact makes of it, and that a Load repairs it.
func TestDamage(t *testing.T) {
	shaped := Change{Shape: true}
	for _, tt := range []struct {
		name, script string
		want         Change
		intact       bool
	}{
		{"flush ruleset", "flush ruleset", Change{Shape: true, All: true}, false},
		{"delete table", "delete table inet nftsentry", Change{Shape: true, All: true}, false},
		{"table made anew", "delete table inet nftsentry\nadd table inet nftsentry", Change{Shape: true, All: true}, false},
		{"dormant table", "add table inet nftsentry { flags dormant; }", shaped, false},

		{"flush set of hosts", "flush set inet nftsentry blocked4", Change{Hosts: addresses("192.0.2.7", "192.0.2.8")}, true},
		{"flush set of IPv6 hosts", "flush set inet nftsentry blocked6", Change{Hosts: addresses("2001:db8:1:2::", "2001:db8:1:3::5")}, true},
		{"flush set of prefixes", "flush set inet nftsentry nets4", Change{Nets: addresses("198.51.100.0")}, true},
		{"flush set of IPv6 prefixes", "flush set inet nftsentry nets6", Change{Nets: addresses("2001:db8:ff00::")}, true},
		{"delete host", "delete element inet nftsentry blocked4 { 192.0.2.8 }", Change{Hosts: addresses("192.0.2.8")}, true},
		{"delete prefix", "delete element inet nftsentry nets4 { 198.51.100.0/24 }", Change{Nets: addresses("198.51.100.0")}, true},
		{"shorten block", "delete element inet nftsentry blocked4 { 192.0.2.8 }\nadd element inet nftsentry blocked4 { 192.0.2.8 timeout 1s }",
			Change{Hosts: addresses("192.0.2.8", "192.0.2.8")}, true},
		{"add host", "add element inet nftsentry blocked6 { 2001:db8:9:: timeout 1h }", Change{Hosts: addresses("2001:db8:9::")}, true},

		{"flush ignored", "flush set inet nftsentry ignored4", shaped, false},
		{"ignore a source", "add element inet nftsentry ignored4 { 203.0.113.0/24 }", shaped, false},
		{"ignore all", "add element inet nftsentry ignored6 { 2000::/3 }", shaped, false},
		{"add neighbours", "add element inet nftsentry onlink6 { 2001:db8:77::/64 }", shaped, false},
		{"delete decoy port", "delete element inet nftsentry decoy_tcp { 2323 }", shaped, false},
		{"delete watched TCP port", "delete element inet nftsentry watch_tcp { 1024 }", shaped, false},
		{"flush watched UDP ports", "flush set inet nftsentry watch_udp", shaped, false},

		{"flush table", "flush table inet nftsentry", shaped, false},
		{"flush chain", "flush chain inet nftsentry refuse", shaped, false},
		{"delete base chain", "flush chain inet nftsentry shield\ndelete chain inet nftsentry shield", shaped, false},
		{"policy drop", "add chain inet nftsentry shield { policy drop; }", shaped, false},
		{"other priority", "flush chain inet nftsentry shield_new\ndelete chain inet nftsentry shield_new\n" +
			"add chain inet nftsentry shield_new { type filter hook prerouting priority -311; }\n" +
			"add rule inet nftsentry shield_new tcp flags & (rst | ack) == 0x0 goto shield_open", shaped, false},
		{"delete rule", "delete rule inet nftsentry refuse_new handle HANDLE", shaped, false},
		{"replace rule", "replace rule inet nftsentry refuse_new handle HANDLE ip saddr @ignored4 accept", shaped, false},
		{"add rule", "add rule inet nftsentry shield accept", shaped, false},
		{"insert rule", "insert rule inet nftsentry shield accept", shaped, false},
		{"insert rule with a set", "insert rule inet nftsentry shield ip saddr { 203.0.113.1, 203.0.113.2 } accept", shaped, false},
		{"insert rule with a counter", "insert rule inet nftsentry shield counter return", shaped, false},
		{"move rule", "delete rule inet nftsentry refuse_new handle HANDLE\nadd rule inet nftsentry refuse_new ip saddr @ignored4 return", shaped, false},

		{"add chain", "add chain inet nftsentry mine", shaped, false},
		{"rename chain", "rename chain inet nftsentry convicted condemned", shaped, false},
		{"delete set", "flush chain inet nftsentry sense_session\nflush chain inet nftsentry judge4\nflush chain inet nftsentry count4\ndelete set inet nftsentry peers4", shaped, false},
		{"delete set of blocks", "flush chain inet nftsentry shield\nflush chain inet nftsentry shield_open\nflush chain inet nftsentry convict\n" +
			"delete set inet nftsentry blocked4", Change{Shape: true, All: true}, false},
		{"delete set of prefixes", "flush chain inet nftsentry shield\nflush chain inet nftsentry shield_open\ndelete set inet nftsentry nets4", Change{Shape: true, All: true}, false},
		{"delete counter", "flush chain inet nftsentry crowded\ndelete counter inet nftsentry crowded", shaped, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			host, table, m := guarded(t, guardedBlocks...)
			run(t, m)
			pristine := list(t, host)
			wantIntact(t, table, true)

			tt.want.Process = "nft"
			script(t, host, strings.ReplaceAll(tt.script, "HANDLE", firstHandle(t, host, "refuse_new")))
			got := change(t, m)
			if diff := diffChange(tt.want, got); diff != "" {
				t.Errorf("change (-want +got):\n%s", diff)
			}
			if got.PID == 0 {
				t.Errorf("no process")
			}
			wantIntact(t, table, tt.intact)

			if err := table.Load(enforce(), slices.Values(guardedBlocks), nil); err != nil {
				t.Fatal(err)
			}
			wantIntact(t, table, true)
			if diff := cmp.Diff(timeless(pristine), timeless(list(t, host))); diff != "" {
				t.Errorf("after Load (-before the damage +now):\n%s", diff)
			}
			fence(t, host, m)
		})
	}
}

// firstHandle finds the handle of the first rule of a chain.
func firstHandle(t testing.TB, host *netns.Host, chain string) string {
	t.Helper()
	out := host.Output(t, netns.Tool(t, "nft"), "-a", "list", "chain", "inet", TableName, chain)
	var handles []string
	for line := range strings.Lines(out) {
		if _, handle, ok := strings.Cut(line, "# handle "); ok {
			handles = append(handles, strings.TrimSpace(handle))
		}
	}
	return handles[1] // the chain has the first
}

func wantIntact(t testing.TB, table *Table, want bool) {
	t.Helper()
	if got, err := table.Intact(); got != want || err != nil {
		t.Errorf("Intact() = %v, %v, want %v", got, err, want)
	}
}

// timeless is a listing without the times that elements have left, in any
// order of elements.
func timeless(listing string) []string {
	words := strings.Fields(timesLeft.ReplaceAllString(strings.ReplaceAll(listing, ",", ""), ""))
	slices.Sort(words)
	return words
}

// TestOwnChangesAreSilent shows that nothing that a Table does is told, also
// after it has had to connect anew.
func TestOwnChangesAreSilent(t *testing.T) {
	host, table, m := guarded(t, guardedBlocks...)
	run(t, m)
	for _, do := range []func() error{
		func() error {
			return table.Load(enforce(), slices.Values(guardedBlocks), []Service{{unix.IPPROTO_TCP, 80, time.Hour}})
		},
		func() error { return table.Block(element("203.0.113.1/32", time.Hour, "")) },
		func() error { return table.Block(element("203.0.113.0/24", time.Hour, "")) },
		func() error {
			return table.Unblock(netip.MustParsePrefix("203.0.113.1/32"), netip.MustParsePrefix("203.0.113.0/24"))
		},
		func() error { return table.Forgive() },
		func() error { return table.SetHost(prefixList("203.0.113.0/24"), nil) },
		func() error { return table.RestoreNets() },
		func() error { return table.Check(enforce()) },
		func() error { return table.Unlure() },
		func() error { _, err := table.Delete(); return err },
		func() error {
			if err := table.Block(element("203.0.113.1/32", time.Hour, "")); !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("block without a table: %w, want ENOENT", err) // a new connection
			}
			return nil
		},
		func() error { return table.Load(enforce(), slices.Values(guardedBlocks), nil) },
	} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
	}
	fence(t, host, m)
}

// TestOwnFloodIsSilent shows that our own elements take no room in the socket,
// which is too small for even a hundredth of them.
func TestOwnFloodIsSilent(t *testing.T) {
	host, table, m := guarded(t)
	if err := m.conn.SetReadBuffer(64 << 10); err != nil {
		t.Fatal(err)
	}
	if err := table.Load(enforce(), slices.Values(manyHosts(DefaultHosts-1)), nil); err != nil {
		t.Fatal(err)
	}
	run(t, m)
	fence(t, host, m)
}

func manyHosts(n int) []Element {
	all := make([]Element, n)
	for i := range all {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		all[i] = Element{Prefix: netip.PrefixFrom(a, 32), Timeout: time.Hour, Comment: "tcp/23 connect"}
	}
	return all
}

// TestOthersAreSilent shows that other tables, and what rules count, are
// nobody's damage.
func TestOthersAreSilent(t *testing.T) {
	host, table, m := guarded(t)
	run(t, m)
	for _, s := range []string{
		"add table ip nftsentry\nadd chain ip nftsentry shield\ndelete table ip nftsentry",
		"add table inet other\nadd set inet other blocked4 { type ipv4_addr; elements = { 192.0.2.7 } }\nflush set inet other blocked4\ndelete table inet other",
		"add element inet nftsentry served { tcp . 80 }\nflush set inet nftsentry served\nflush set inet nftsentry peers4",
		"reset counters table inet nftsentry",
	} {
		script(t, host, s)
	}
	wantIntact(t, table, true)
	fence(t, host, m)
}

// TestExpiryIsSilent shows that the kernel sends no event of an element whose
// time is up, be it found by its collector or by who adds another one.
func TestExpiryIsSilent(t *testing.T) {
	host, table, m := guarded(t,
		element("192.0.2.7/32", time.Second, ""), element("2001:db8:1:2::/64", time.Second, ""),
		element("198.51.100.0/24", time.Second, ""), element("2001:db8:ff00::/40", time.Second, ""))
	run(t, m)
	for range 50 {
		if out := list(t, host); !strings.Contains(out, "expires") {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	time.Sleep(2500 * time.Millisecond) // the collector comes every 2 s or less
	if err := table.Block(element("203.0.113.0/24", time.Hour, "")); err != nil {
		t.Fatal(err)
	}
	wantIntact(t, table, true)
	fence(t, host, m)
}

// TestOverrun shows that lost events are told once, as everything, and that
// the Monitor goes on after it.
func TestOverrun(t *testing.T) {
	host, _, m := guarded(t)
	if err := m.conn.SetReadBuffer(8 << 10); err != nil {
		t.Fatal(err)
	}
	var elems []string
	for _, e := range manyHosts(5000) {
		elems = append(elems, e.Prefix.Addr().String())
	}
	script(t, host, "add table ip other\nadd set ip other many { type ipv4_addr; elements = { "+strings.Join(elems, ", ")+" } }")
	script(t, host, "flush chain inet nftsentry refuse")
	run(t, m)
	if diff := diffChange(Change{Shape: true, All: true}, change(t, m)); diff != "" {
		t.Errorf("change (-want +got):\n%s", diff)
	}
	fence(t, host, m)
}

// TestTooMany shows that a change which touches more elements than can be
// named says that it may be any.
func TestTooMany(t *testing.T) {
	host, _, m := guarded(t, manyHosts(maxTouched+1)...)
	run(t, m)
	script(t, host, "flush set inet nftsentry blocked4")
	if diff := diffChange(Change{All: true, Process: "nft"}, change(t, m)); diff != "" {
		t.Errorf("change (-want +got):\n%s", diff)
	}
}

// TestJoined shows that changes which nobody takes are joined, and hold up nothing.
func TestJoined(t *testing.T) {
	host, _, m := guarded(t, guardedBlocks...)
	script(t, host, "delete element inet nftsentry blocked4 { 192.0.2.7 }")
	script(t, host, "delete element inet nftsentry nets4 { 198.51.100.0/24 }")
	script(t, host, "flush chain inet nftsentry refuse")
	run(t, m)
	want := Change{Shape: true, Hosts: addresses("192.0.2.7"), Nets: addresses("198.51.100.0"), Process: "nft"}
	var got Change
	for !got.Shape {
		got = got.join(change(t, m))
	}
	if diff := diffChange(want, got); diff != "" {
		t.Errorf("change (-want +got):\n%s", diff)
	}
}

// TestRunEnds shows that Run ends with its context, also in an endless overrun.
func TestRunEnds(t *testing.T) {
	_, _, m := guarded(t)
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(20*time.Millisecond, cancel)
	if err := m.Run(ctx); err != nil {
		t.Errorf("Run = %v, want nil", err)
	}
	if err := m.overrun(ctx); err != nil {
		t.Errorf("overrun = %v, want nil", err)
	}
}

// TestEventsCarryPort shows what the filter relies on: that all messages of a
// datagram have the port id of who made the transaction.
func TestEventsCarryPort(t *testing.T) {
	host, table, _ := guarded(t)
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: host.FD(), Groups: 1 << (unix.NFNLGRP_NFTABLES - 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetReadBuffer(eventBuffer); err != nil {
		t.Fatal(err)
	}
	if err := table.Load(enforce(), slices.Values(manyHosts(100)), nil); err != nil {
		t.Fatal(err)
	}
	script(t, host, "flush ruleset")
	for _, want := range []bool{true, false} { // ours, and then another's
		n := 0
		for ended := false; !ended; {
			messages, err := conn.Receive()
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range messages {
				n++
				if ours := m.Header.PID == table.port; ours != want {
					t.Errorf("type %#x of port %d: ours %v, want %v", m.Header.Type, m.Header.PID, ours, want)
				}
				ended = m.Header.Type&0xff == unix.NFT_MSG_NEWGEN
			}
		}
		t.Logf("%d messages, ours: %v", n, want)
	}
}

// BenchmarkHeal measures from the start of "nft flush ruleset" until the table
// is back and verified, when whoever hears of it calls Load at once.
func BenchmarkHeal(b *testing.B) {
	for _, n := range []int{10000, DefaultHosts} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			blocks := manyHosts(n)
			host, table, m := guarded(b, blocks...)
			run(b, m)
			nft := netns.Tool(b, "nft")
			for b.Loop() {
				host.Output(b, nft, "flush", "ruleset")
				if c := change(b, m); !c.All {
					b.Fatalf("change %+v, want all", c)
				}
				if err := table.Load(enforce(), slices.Values(blocks), nil); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N), "ms/heal")
			b.StopTimer()
			wantIntact(b, table, true)
		})
	}
}

var timesLeft = regexp.MustCompile(`expires \S+`)
