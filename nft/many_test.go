package nft

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"nftsentry/integration/netns"
)

// large is enforce for more hosts than are listed, or taken at once.
func large(hosts int) Config {
	cfg := enforce()
	cfg.Hosts = hosts
	return cfg
}

// blockedFor counts those of the elements that are blocked with just the time that
// they are to have.
func blockedFor(t *testing.T, table *Table, elems []Element) (n int) {
	t.Helper()
	for _, e := range elems {
		got, err := table.Held(e.Prefix.Addr())
		if err != nil {
			t.Fatal(err)
		}
		if len(got) == 1 && got[0].Comment == e.Comment && got[0].Timeout <= e.Timeout && got[0].Timeout > e.Timeout-5*time.Minute {
			n++
		}
	}
	return n
}

// resizes tells whether the kernel can give a set another size: from Linux 6.5 on.
func resizes(t *testing.T) bool {
	t.Helper()
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	var major, minor int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &major, &minor); err != nil {
		t.Fatal(err)
	}
	return major > 6 || major == 6 && minor >= 5
}

// TestConfigure shows that the blocks stay where they are while all else
// changes, and that a table which cannot be kept is told of.
func TestConfigure(t *testing.T) {
	host, table := load(t, enforce(), element("192.0.2.7/32", time.Hour, "old"), element("198.51.100.0/24", time.Hour, "net"))
	host.Output(t, netns.Tool(t, "nft"), "add element inet nftsentry blocked4 { 192.0.2.8 timeout 1h }")
	want := rounded(t, table)
	other := large(200_000)
	if !resizes(t) {
		other = enforce()
	}
	other.Reject, other.Ports, other.Sessions = true, 7, nil
	for _, cfg := range []Config{other, enforce(), other} {
		if err := table.Configure(cfg, []Service{{Protocol: 6, Port: 22, Timeout: time.Hour}}); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, rounded(t, table), cmp.Comparer(netipEqual)); diff != "" {
			t.Errorf("blocked (-want +got):\n%s", diff)
		}
		got := list(t, host)
		if size := fmt.Sprintf("size %d\n", cfg.MaxHosts()); strings.Count(got[:strings.Index(got, "set nets4")], size) != 2 || strings.Contains(got, "reject with icmpx") != cfg.Reject {
			t.Errorf("want %q for both sets of hosts, and reject %v, in\n%s", size, cfg.Reject, got)
		}
		wantIntact(t, table, true)
	}
	fresh, err := Open(host.FD(), 56)
	if err != nil {
		t.Fatal(err)
	}
	defer fresh.Close()
	narrow := other
	narrow.Prefix6 = 56
	for _, try := range []struct {
		name  string
		table *Table
		cfg   Config
		spoil string
	}{
		{"another prefix6", table, narrow, ""},
		{"another prefix6 in the kernel", fresh, narrow, ""},
		{"asleep", table, other, "add table inet nftsentry { flags dormant; }"},
		{"a Load was not finished", table, other, "add table inet nftsentry_stand_in"},
		{"sets are gone", table, other, "delete table inet nftsentry; add table inet nftsentry"},
		{"no table", table, other, "delete table inet nftsentry"},
	} {
		if try.spoil != "" {
			script(t, host, try.spoil)
		}
		if err := try.table.Configure(try.cfg, nil); !errors.Is(err, ErrUnlike) {
			t.Errorf("%s: %v, want %v", try.name, err, ErrUnlike)
		}
		if try.spoil == "" {
			continue
		}
		if err := table.Load(other, nil, nil); err != nil {
			t.Fatal(err)
		}
		if got := host.Output(t, netns.Tool(t, "nft"), "list", "tables"); got != "table inet nftsentry\n" {
			t.Errorf("%s: tables %q after Load, want ours alone", try.name, got)
		}
	}
}

// TestLoadMany loads more than one transaction takes, over more of others: what
// is asked for is there, and nothing else, nor the table that stood in.
func TestLoadMany(t *testing.T) {
	const n = atOnce + 20_000
	all := manyHosts(n)
	host, table := load(t, large(n))
	stale := element("203.0.113.7/32", 2*time.Hour, "stale")
	for _, blocks := range [][]Element{append(all[:n-1:n-1], stale), append(all[1:n:n], element("198.51.100.0/24", time.Hour, "net"))} {
		if err := table.Load(large(n), slices.Values(blocks), nil); err != nil {
			t.Fatal(err)
		}
	}
	if got := blockedFor(t, table, append(some(all), stale, all[0])); got != len(some(all)) {
		t.Errorf("%d are blocked, want the %d that were asked for and none of before", got, len(some(all)))
	}
	if got := host.Output(t, netns.Tool(t, "nft"), "list tables"); got != "table inet nftsentry\n" {
		t.Errorf("tables: %q, want ours alone", got)
	}
	if _, whole, err := table.Blocked(); whole || err != nil {
		t.Errorf("Blocked() = whole %v, %v, want it to give up", whole, err)
	}
	for i := range all {
		all[i].Timeout = 2 * time.Hour
	}
	if err := table.BlockAll(slices.Values(all[1:])); err != nil {
		t.Fatal(err)
	}
	if got := blockedFor(t, table, some(all)); got != len(some(all)) {
		t.Errorf("%d of %d have the new time", got, len(some(all)))
	}
	var gone []netip.Prefix
	for _, e := range all {
		gone = append(gone, e.Prefix)
	}
	if err := table.Unblock(gone...); err != nil {
		t.Fatal(err)
	}
	if got, whole, err := table.Blocked(); len(got) != 1 || !whole || err != nil {
		t.Errorf("%d are blocked after all were let go, want the prefix alone; %v, %v", len(got), whole, err)
	}
}

// some of many, without the first.
func some(all []Element) (out []Element) {
	for i := 1; i < len(all)-1; i += 977 {
		out = append(out, all[i])
	}
	return out
}

// TestConvicted shows that what rules have blocked is found by itself, as it is
// blocked, and not when it is blocked no more.
func TestConvicted(t *testing.T) {
	host, table := load(t, enforce(), element("192.0.2.7/32", time.Hour, "ours"))
	if got, err := table.Convicted(); len(got) != 0 || err != nil {
		t.Errorf("Convicted() = %v, %v, want none", got, err)
	}
	nft := netns.Tool(t, "nft")
	for _, set := range []string{"blocked4", "convicted4"} {
		host.Output(t, nft, "add element inet nftsentry "+set+" { 192.0.2.8 timeout 10m, 192.0.2.9 timeout 10m }")
	}
	for _, set := range []string{"blocked6", "convicted6"} {
		host.Output(t, nft, "add element inet nftsentry "+set+" { 2001:db8:: timeout 10m }")
	}
	if err := table.Unblock(netip.MustParsePrefix("192.0.2.9/32")); err != nil {
		t.Fatal(err)
	}
	if err := table.Block(element("192.0.2.8/32", time.Hour, "named")); err != nil {
		t.Fatal(err)
	}
	got, err := table.Convicted()
	if err != nil || len(got) != 2 || got[0].Comment != "named" || got[0].Timeout < 50*time.Minute || got[1].Prefix != netip.MustParsePrefix("2001:db8::/64") {
		t.Errorf("Convicted() = %v, %v", got, err)
	}
}
