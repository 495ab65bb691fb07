package nft

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"nftsentry/integration/netns"
)

// TestIntact shows that all ways to change the shape are followed, and that
// what is no part of it is left out.
func TestIntact(t *testing.T) {
	host, table := load(t, enforce(), guardedBlocks...)
	observed := enforce()
	observed.Enforce, observed.Decoys = false, nil
	for _, step := range []struct {
		name string
		do   func() error
		want bool
	}{
		{"loaded", func() error { return nil }, true},
		{"a block", func() error { return table.Block(element("203.0.113.1/32", time.Hour, "")) }, true},
		{"a prefix", func() error { return table.Block(element("203.0.113.0/24", time.Hour, "")) }, true},
		{"unblocked", func() error { return table.Unblock(netip.MustParsePrefix("203.0.113.0/24")) }, true},
		{"host", func() error { return table.SetHost(prefixList("203.0.113.0/24"), prefixList("2001:db8::/64")) }, true},
		{"stopped", table.Unlure, true},
		{"another configuration", func() error { return table.Load(observed, nil, nil) }, true},
		{"dry run", func() error { return table.Check(enforce()) }, true},
		{"a Load that fails", func() error {
			if err := table.Load(enforce(), slices.Values(manyHosts(DefaultHosts+1)), nil); err == nil {
				t.Error("Load of too many succeeds")
			}
			return nil
		}, true},
		{"deleted", func() error { _, err := table.Delete(); return err }, false},
		{"back", func() error { return table.Load(enforce(), nil, nil) }, true},
	} {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if got, err := table.Intact(); got != step.want || err != nil {
			t.Errorf("%s: Intact() = %v, %v, want %v", step.name, got, err, step.want)
		}
	}

	other, err := Open(host.FD(), 64)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	wantIntact(t, other, false) // it does not know what the shape should be
	if err := other.Load(enforce(), nil, nil); err != nil {
		t.Fatal(err)
	}
	wantIntact(t, other, true)
	wantIntact(t, table, true) // the same configuration is the same shape
}

// TestIntactBetween has somebody else change the table while it is made: this
// is not taken for ours.
func TestIntactBetween(t *testing.T) {
	for name, damage := range map[string]string{
		"our table":     "add chain inet nftsentry mine\nflush set inet nftsentry ignored4\nadd rule inet nftsentry shield goto mine",
		"another table": "add table inet other",
		"a chain gone":  "delete chain inet nftsentry lure",
	} {
		t.Run(name, func(t *testing.T) {
			host, table := load(t, enforce(), guardedBlocks...)
			pristine := list(t, host)
			err := table.transform(func(b *builder, chains []string) error {
				script(t, host, damage)
				return b.fillSources()
			})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(timeless(pristine), timeless(list(t, host))); diff != "" {
				t.Errorf("table (-before +after):\n%s", diff)
			}
			wantIntact(t, table, true)
		})
	}
}

// TestIntactUnsure shows that a shape of which nobody can be sure is not
// called intact.
func TestIntactUnsure(t *testing.T) {
	host, table := load(t, enforce())
	sure, err := table.transformOnce(func(b *builder, chains []string) error {
		script(t, host, "add table inet other")
		return b.fillSources()
	})
	if sure || err != nil {
		t.Errorf("transformOnce = %v, %v, want false", sure, err)
	}
	wantIntact(t, table, false)
	if err := table.Load(enforce(), nil, nil); err != nil {
		t.Fatal(err)
	}
	wantIntact(t, table, true)
}

// TestIntactGone shows that a table that is deleted while the shape changes is
// not made again without its blocks.
func TestIntactGone(t *testing.T) {
	host, table := load(t, enforce(), guardedBlocks...)
	script(t, host, "flush ruleset")
	if err := table.SetHost(nil, nil); !errors.Is(err, unix.ENOENT) {
		t.Errorf("SetHost without a table = %v, want ENOENT", err)
	}
	wantIntact(t, table, false)
}

func TestNextGeneration(t *testing.T) {
	for before, want := range map[uint32]uint32{1: 2, 41: 42, 1<<32 - 1: 1} {
		if got := next(before); got != want {
			t.Errorf("next(%d) = %d, want %d", before, got, want)
		}
	}
}

func BenchmarkIntact(b *testing.B) {
	host := netns.New(b, "host")
	table, err := Open(host.FD(), 64)
	if err != nil {
		b.Fatal(err)
	}
	defer table.Close()
	if err := table.Load(enforce(), slices.Values(manyHosts(DefaultHosts)), nil); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		wantIntact(b, table, true)
	}
}
