package nft

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nftsentry/integration/netns"
)

func TestLeft(t *testing.T) {
	host, table := load(t, enforce(), element("192.0.2.7/32", time.Hour, ""), element("2001:db8:1:2::/64", time.Hour, ""))
	for _, tt := range []struct {
		prefix string
		want   bool
	}{
		{"192.0.2.7/32", true}, {"192.0.2.8/32", false}, {"2001:db8:1:2::/64", true}, {"2001:db8:1:3::/64", false}, {"192.0.2.7/32", true},
	} {
		left, found, err := table.Left(netip.MustParsePrefix(tt.prefix))
		if err != nil || found != tt.want || found && (left <= 0 || left > time.Hour) {
			t.Errorf("Left(%s) = %v, %v, %v, want found: %v", tt.prefix, left, found, err, tt.want)
		}
	}
	if there, err := table.Exists(); !there || err != nil {
		t.Errorf("Exists = %v, %v, want true", there, err)
	}
	host.Output(t, netns.Tool(t, "nft"), "delete table inet nftsentry")
	if _, found, err := table.Left(netip.MustParsePrefix("192.0.2.7/32")); found || err != nil {
		t.Errorf("Left without a table = %v, %v, want nothing", found, err)
	}
	if there, err := table.Exists(); there || err != nil {
		t.Errorf("Exists = %v, %v, want false", there, err)
	}
}

func TestPeer(t *testing.T) {
	host, table := load(t, enforce())
	nft := netns.Tool(t, "nft")
	host.Output(t, nft, "add element inet nftsentry peers4 { 192.0.2.7 }")
	host.Output(t, nft, "add element inet nftsentry peers6 { 2001:db8:1:2::, fd88::7 }")
	for addr, want := range map[string]bool{
		"192.0.2.7": true, "192.0.2.8": false, "2001:db8:1:2::99": true, "2001:db8:1:3::99": false, "fd88::7": true, "fd88::8": false,
	} {
		if got, err := table.Peer(netip.MustParseAddr(addr)); got != want || err != nil {
			t.Errorf("Peer(%s) = %v, %v, want %v", addr, got, err, want)
		}
	}
}

// TestFeatures tries all on a kernel that has them, beside a table that must
// not be touched, and one that none has.
func TestFeatures(t *testing.T) {
	host, table := load(t, enforce())
	want := list(t, host)
	before := generation(t, table)
	all := features
	t.Cleanup(func() { features = all })
	features = append(all[:len(all):len(all)], feature{name: "time machine", module: "nft_tardis", rule: func(*builder) rule { return count("nowhere") }})
	got, err := table.Features()
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(features) {
		t.Fatalf("%d features, want %d", len(got), len(features))
	}
	for _, f := range got {
		if lacks := f.Err != nil; lacks != (f.Module == "nft_tardis") {
			t.Errorf("%s: %v", f.Name, f.Err)
		}
	}
	if after := host.Output(t, netns.Tool(t, "nft"), "list", "ruleset"); after != want {
		t.Errorf("after Features:\n%s", after)
	}
	if after := generation(t, table); after != before {
		t.Errorf("generation %d after Features, want %d: something was there for a moment", after, before)
	}
}

// generation goes up with each transaction that takes effect.
func generation(t *testing.T, table *Table) uint32 {
	t.Helper()
	id, err := table.generation()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// TestBesides has no refusal hidden by the one that is meant to come.
func TestBesides(t *testing.T) {
	odd := errors.New("odd")
	for name, tt := range map[string]struct {
		err  error
		want []error
	}{
		"nothing":        {nil, nil},
		"as meant":       {errors.Join(unix.EEXIST), nil},
		"refused":        {errors.Join(unix.EBUSY, unix.EEXIST), []error{unix.EBUSY}},
		"one in another": {errors.Join(errors.Join(unix.Errno(524), unix.EEXIST), odd), []error{unix.Errno(524), odd}},
		"not one at all": {odd, []error{odd}},
	} {
		got := besides(tt.err, unix.EEXIST)
		if (got == nil) != (tt.want == nil) || errors.Is(got, unix.EEXIST) {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
		for _, want := range tt.want {
			if !errors.Is(got, want) {
				t.Errorf("%s: %v is not in %v", name, want, got)
			}
		}
	}
}
