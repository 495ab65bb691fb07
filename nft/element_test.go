package nft

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"nftsentry/integration/netns"
)

func element(prefix string, timeout time.Duration, comment string) Element {
	return Element{Prefix: netip.MustParsePrefix(prefix), Timeout: timeout, Comment: comment}
}

// rounded is what the kernel holds with the times left rounded up to minutes.
func rounded(t *testing.T, table *Table) []Element {
	t.Helper()
	all, _, err := table.Blocked()
	if err != nil {
		t.Fatal(err)
	}
	for i := range all {
		all[i].Timeout = (all[i].Timeout + time.Minute - 1).Truncate(time.Minute)
		all[i].Age = 0
	}
	return all
}

// counted is what nft(8) says of what an element has counted.
var counted = regexp.MustCompile(` counter packets \d+ bytes \d+`)

func TestBlock(t *testing.T) {
	for _, tt := range []struct {
		name   string
		blocks []Element
		want   []Element
		line   string // as a person sees it in nft list set
	}{
		{
			"host",
			[]Element{element("192.0.2.7/32", 10*time.Minute, "tcp/23 connect")},
			[]Element{element("192.0.2.7/32", 10*time.Minute, "tcp/23 connect")},
			`192.0.2.7 timeout 10m expires \S+ comment "tcp/23 connect"`,
		},
		{
			"longer",
			[]Element{element("192.0.2.7/32", 10*time.Minute, "a"), element("192.0.2.7/32", time.Hour, "b")},
			[]Element{element("192.0.2.7/32", time.Hour, "b")},
			`192.0.2.7 timeout 1h expires \S+ comment "b"`,
		},
		{
			"shorter",
			[]Element{element("192.0.2.7/32", time.Hour, "a"), element("192.0.2.7/32", 10*time.Minute, "b")},
			[]Element{element("192.0.2.7/32", 10*time.Minute, "b")},
			`192.0.2.7 timeout 10m expires \S+ comment "b"`,
		},
		{
			"half a second more is a second more",
			[]Element{element("192.0.2.7/32", time.Minute+500*time.Millisecond, "")},
			[]Element{element("192.0.2.7/32", 2*time.Minute, "")},
			`192.0.2.7 timeout 1m1s expires`,
		},
		{
			"an IPv6 prefix of the configured length and a neighbour",
			[]Element{element("2001:db8:1:2::/64", time.Hour, "wide"), element("2001:db8:1:3::5/128", time.Hour, "one")},
			[]Element{element("2001:db8:1:2::/64", time.Hour, "wide"), element("2001:db8:1:3::5/128", time.Hour, "one")},
			`2001:db8:1:2:: timeout 1h expires \S+ comment "wide"`,
		},
		{
			"the first address of an IPv6 prefix does not stand for all of it",
			[]Element{element("2001:db8:1:2::/128", time.Hour, "first")},
			[]Element{element("2001:db8:1:2::/128", time.Hour, "first")},
			`set nets6 {[^}]*2001:db8:1:2:: timeout 1h`,
		},
		{
			"a prefix",
			[]Element{element("198.51.100.0/24", time.Hour, "operator")},
			[]Element{element("198.51.100.0/24", time.Hour, "operator")},
			`198.51.100.0/24 timeout 1h expires \S+ comment "operator"`,
		},
		{
			"a longer block inside a prefix splits it",
			[]Element{element("10.0.0.0/8", time.Hour, "a"), element("10.64.0.0/10", 2*time.Hour, "b")},
			[]Element{
				element("10.0.0.0/10", time.Hour, "a"),
				element("10.64.0.0/10", 2*time.Hour, "b"),
				element("10.128.0.0/9", time.Hour, "a"),
			},
			`10.0.0.0-10.63.255.255 timeout 1h|10.0.0.0/10 timeout 1h`,
		},
		{
			"a shorter block inside a prefix adds nothing",
			[]Element{element("10.0.0.0/8", time.Hour, "a"), element("10.64.0.0/10", time.Minute, "b")},
			[]Element{element("10.0.0.0/8", time.Hour, "a")},
			`10.0.0.0/8 timeout 1h`,
		},
		{
			"a longer block around a prefix swallows it",
			[]Element{element("10.64.0.0/10", time.Minute, "b"), element("10.0.0.0/8", time.Hour, "a")},
			[]Element{element("10.0.0.0/8", time.Hour, "a")},
			`10.0.0.0/8 timeout 1h`,
		},
		{
			"everything",
			[]Element{element("0.0.0.0/0", time.Hour, ""), element("::/0", time.Hour, "")},
			[]Element{element("0.0.0.0/0", time.Hour, ""), element("::/0", time.Hour, "")},
			`set nets4`,
		},
		{
			"the highest prefixes",
			[]Element{element("255.0.0.0/8", time.Hour, ""), element("ff00::/8", time.Hour, "")},
			[]Element{element("255.0.0.0/8", time.Hour, ""), element("ff00::/8", time.Hour, "")},
			`255.0.0.0/8 timeout 1h|255.0.0.0-255.255.255.255 timeout 1h`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			host, table := load(t, enforce())
			for _, e := range tt.blocks {
				if err := table.Block(e); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(tt.want, rounded(t, table), cmp.Comparer(netipEqual)); diff != "" {
				t.Errorf("blocked (-want +got):\n%s", diff)
			}
			if got := counted.ReplaceAllString(list(t, host), ""); !regexp.MustCompile(tt.line).MatchString(got) {
				t.Errorf("nothing matches %q in\n%s", tt.line, got)
			}

			// A table that is loaded with the same blocks is the same.
			if err := table.Load(enforce(), slices.Values(lastOfEach(tt.blocks)), nil); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, rounded(t, table), cmp.Comparer(netipEqual)); diff != "" {
				t.Errorf("blocked after Load (-want +got):\n%s", diff)
			}

			for _, e := range tt.blocks {
				if err := table.Unblock(e.Prefix); err != nil {
					t.Fatal(err)
				}
			}
			if got := rounded(t, table); len(got) != 0 {
				t.Errorf("blocked after Unblock: %v", got)
			}
		})
	}
}

func netipEqual(a, b netip.Prefix) bool { return a == b }

func lastOfEach(blocks []Element) []Element {
	var out []Element
	for i, e := range blocks {
		again := false
		for _, later := range blocks[i+1:] {
			again = again || later.Prefix == e.Prefix
		}
		if !again {
			out = append(out, e)
		}
	}
	return out
}

// TestUnblockRestoresWhatLiesUnder shows that a prefix gives back exactly
// what was blocked before it.
func TestUnblockRestoresWhatLiesUnder(t *testing.T) {
	_, table := load(t, enforce())
	inner := element("10.64.0.0/10", time.Hour, "inner")
	outer := element("10.0.0.0/8", 2*time.Hour, "outer")
	for _, e := range []Element{inner, outer} {
		if err := table.Block(e); err != nil {
			t.Fatal(err)
		}
	}
	if err := table.Unblock(outer.Prefix); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Element{inner}, rounded(t, table), cmp.Comparer(netipEqual)); diff != "" {
		t.Errorf("blocked (-want +got):\n%s", diff)
	}
}

func TestBlockRefuses(t *testing.T) {
	_, table := load(t, enforce())
	for name, e := range map[string]Element{
		"no prefix":       {Timeout: time.Hour},
		"host bits":       element("192.0.2.7/24", time.Hour, ""),
		"mapped":          {Prefix: netip.PrefixFrom(netip.MustParseAddr("::ffff:192.0.2.7"), 128), Timeout: time.Hour},
		"no timeout":      element("192.0.2.7/32", 0, ""),
		"under a second":  element("192.0.2.7/32", 999*time.Millisecond, ""),
		"lengthy comment": element("192.0.2.7/32", time.Hour, strings.Repeat("x", MaxComment+1)),
	} {
		if err := table.Block(e); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if got := rounded(t, table); len(got) != 0 {
		t.Errorf("blocked: %v", got)
	}
	if err := table.Block(element("192.0.2.7/32", time.Hour, strings.Repeat("x", MaxComment))); err != nil {
		t.Errorf("longest comment: %v", err)
	}
}

// TestBlockErrors shows that the kernel's errors can be told apart, and that
// the table works on after them.
func TestBlockErrors(t *testing.T) {
	host, table := load(t, enforce())
	e := element("192.0.2.7/32", time.Hour, "")
	nft := netns.Tool(t, "nft")

	host.Output(t, nft, "delete table inet nftsentry")
	if err := table.Block(e); !errors.Is(err, unix.ENOENT) {
		t.Errorf("Block without a table: %v, want ENOENT", err)
	}
	if err := table.Unblock(e.Prefix); err != nil {
		t.Errorf("Unblock without a table: %v", err)
	}
	if err := table.Load(enforce(), nil, nil); err != nil {
		t.Fatal(err)
	}
	if err := table.Block(e); err != nil {
		t.Errorf("Block with the table back: %v", err)
	}
	for range 2 {
		if err := table.Unblock(e.Prefix); err != nil {
			t.Errorf("Unblock: %v", err)
		}
	}
}

// TestVerify shows that a write which did not take effect is noticed.
func TestVerify(t *testing.T) {
	host, table := load(t, enforce(), element("192.0.2.7/32", time.Hour, ""))
	nft := netns.Tool(t, "nft")
	for _, e := range []Element{element("192.0.2.8/32", time.Hour, ""), element("192.0.2.7/32", 2*time.Hour, "")} {
		if err := table.verifyHosts([]Element{e}, time.Now()); !errors.Is(err, ErrNotApplied) {
			t.Errorf("verifyHosts(%v) = %v, want ErrNotApplied", e, err)
		}
	}
	if err := table.verifyHosts([]Element{element("192.0.2.7/32", time.Hour, "")}, time.Now()); err != nil {
		t.Errorf("verifyHosts of what is there: %v", err)
	}
	if err := table.Block(element("198.51.100.0/24", time.Hour, "")); err != nil {
		t.Fatal(err)
	}
	host.Output(t, nft, "flush set inet nftsentry nets4")
	if err := table.verifyNets(); !errors.Is(err, ErrNotApplied) {
		t.Errorf("verifyNets = %v, want ErrNotApplied", err)
	}
}

// TestFull shows that a full set says so, and that what it holds can still be
// changed and taken away.
func TestFull(t *testing.T) {
	var blocks []Element
	for i := range DefaultHosts {
		blocks = append(blocks, element(fmt.Sprintf("10.%d.%d.%d/32", i>>16, i>>8&255, i&255), time.Hour, "tcp/23 connect x2"))
	}
	_, table := load(t, enforce(), blocks...)
	err := table.Block(element("192.0.2.7/32", time.Hour, ""))
	if !errors.Is(err, unix.ENFILE) {
		t.Errorf("Block in a full set: %v, want ENFILE", err)
	}
	for _, change := range []func() error{
		func() error { return table.Block(element("10.0.0.1/32", 2*time.Hour, "")) },
		func() error { return table.Unblock(netip.MustParsePrefix("192.0.2.7/32")) },
		func() error { return table.Unblock(netip.MustParsePrefix("10.0.0.1/32")) },
		func() error { return table.Block(element("192.0.2.7/32", time.Hour, "")) },
	} {
		if err := change(); err != nil {
			t.Error(err)
		}
	}
}

// TestExpiry shows that the kernel lets blocks go by itself, and that they
// can be made again at once.
func TestExpiry(t *testing.T) {
	_, table := load(t, enforce())
	blocks := []Element{
		element("192.0.2.7/32", 2*time.Second, ""), element("198.51.100.0/24", 2*time.Second, ""), element("2001:db8::/64", 2*time.Second, ""),
	}
	for range 2 {
		for _, e := range blocks {
			if err := table.Block(e); err != nil {
				t.Fatal(err)
			}
		}
		if got := rounded(t, table); len(got) != len(blocks) {
			t.Errorf("blocked: %v, want %v", got, blocks)
		}
		deadline := time.Now().Add(time.Minute)
		for len(rounded(t, table)) > 0 {
			if time.Now().After(deadline) {
				t.Fatalf("still blocked: %v", rounded(t, table))
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
}

// TestForgive shows that a source which is forgiven is counted from the first
// port again, and that others are not forgiven with it.
func TestForgive(t *testing.T) {
	host, table := load(t, enforce())
	nft := netns.Tool(t, "nft")
	for set, elems := range map[string]string{"suspects4": "192.0.2.7, 192.0.2.8", "suspects6": "2001:db8::, 2001:db8:1::"} {
		host.Output(t, nft, fmt.Sprintf("add element inet nftsentry %s { %s }", set, strings.ReplaceAll(elems, ",", " timeout 1m,")+" timeout 1m"))
	}
	suspects := func() string {
		return host.Output(t, nft, "list set inet nftsentry suspects4") + host.Output(t, nft, "list set inet nftsentry suspects6")
	}
	for range 2 { // the second time there is nothing to forgive
		if err := table.Forgive(netip.MustParsePrefix("192.0.2.7/32"), netip.MustParsePrefix("2001:db8::/64")); err != nil {
			t.Fatal(err)
		}
	}
	got := suspects()
	if strings.Contains(got, "192.0.2.7") || strings.Contains(got, "2001:db8:: ") || !strings.Contains(got, "192.0.2.8") || !strings.Contains(got, "2001:db8:1::") {
		t.Errorf("suspects after two were forgiven:\n%s", got)
	}
	if err := table.Forgive(); err != nil {
		t.Fatal(err)
	}
	if got := suspects(); strings.Contains(got, "elements") {
		t.Errorf("suspects after all were forgiven:\n%s", got)
	}
	host.Output(t, nft, "delete table inet nftsentry")
	if err := errors.Join(table.Forgive(), table.Forgive(netip.MustParsePrefix("192.0.2.7/32"))); err != nil {
		t.Errorf("Forgive without a table: %v", err)
	}
}

// TestSample shows that few elements are read back after many were written,
// and that a run of missing ones among them is found all the same.
func TestSample(t *testing.T) {
	var hosts []Element
	for i := range 20000 {
		hosts = append(hosts, element(fmt.Sprintf("10.0.%d.%d/32", i>>8, i&255), time.Hour, ""))
	}
	if got := len(sample(slices.Values(hosts[:1024]), 1024)); got != 1024 {
		t.Errorf("%d of 1024, want all", got)
	}
	some := sample(slices.Values(hosts), len(hosts))
	if len(some) > len(hosts)/16+1 || some[len(some)-1] != hosts[len(hosts)-1] {
		t.Errorf("%d of %d, the last %v", len(some), len(hosts), some[len(some)-1])
	}
	host, table := load(t, enforce(), hosts...)
	host.Output(t, netns.Tool(t, "nft"), "delete element inet nftsentry blocked4 { "+keysOf(hosts[5000:5016])+" }")
	if err := table.verifyHosts(some, time.Now()); !errors.Is(err, ErrNotApplied) {
		t.Errorf("verifyHosts without 16 elements in a row: %v, want ErrNotApplied", err)
	}
}

func keysOf(elems []Element) string {
	var all []string
	for _, e := range elems {
		all = append(all, e.Prefix.Addr().String())
	}
	return strings.Join(all, ", ")
}
