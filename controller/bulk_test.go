package controller

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nftsentry/nft"
	"nftsentry/state"
)

// sources are those that texts name.
func sourcesOf(texts ...string) (out []netip.Prefix) {
	for _, text := range texts {
		out = append(out, source(text))
	}
	return out
}

// TestBlockMany blocks all or none.
func TestBlockMany(t *testing.T) {
	for _, tt := range []struct {
		name    string
		sources []netip.Prefix
		refuse  error // of the kernel
		want    error
		lines   int // of the error
		live    int
	}{
		{"hosts and prefixes", sourcesOf("203.0.113.7", "2001:db8:8::/64", "198.51.100.0/24"), nil, nil, 0, 4},
		{"one twice, and one that is blocked", sourcesOf("203.0.113.7", "203.0.113.7", "203.0.113.1"), nil, nil, 0, 2},
		{"two are ignored", sourcesOf("203.0.113.7", "192.0.2.1", "10.0.0.1"), nil, ErrIgnored, 2, 1},
		{"host bits", []netip.Prefix{source("203.0.113.7"), netip.MustParsePrefix("10.0.0.1/8")}, nil, ErrInvalid, 1, 1},
		{"many are ignored", slices.Repeat(sourcesOf("192.0.2.1", "192.0.2.2", "192.0.2.3"), 10), nil, nil, 0, 1},
		{"the kernel refuses", sourcesOf("203.0.113.7", "203.0.113.1"), unix.ENOMEM, unix.ENOMEM, 1, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			drive(t, testConfig(), func(r *rig) {
				if _, err := r.Block(r.ctx, source("203.0.113.1"), time.Hour, ""); err != nil {
					t.Fatal(err)
				}
				loads, saved := len(r.kernel.calls), len(r.store.live)
				r.in(func() { r.kernel.fail = tt.refuse })
				all, err := r.BlockMany(r.ctx, tt.sources, 2*time.Hour, "list")
				if tt.name == "many are ignored" {
					tt.want = ErrIgnored
					tt.lines = 3
				}
				if !errors.Is(err, tt.want) || err != nil && strings.Count(err.Error(), "\n")+1 != tt.lines {
					t.Fatalf("BlockMany = %v, want %v in %d lines", err, tt.want, tt.lines)
				}
				list, _ := r.List(r.ctx)
				if len(list) != tt.live {
					t.Errorf("%d are blocked, want %d", len(list), tt.live)
				}
				if err != nil {
					if len(r.store.live) != saved {
						t.Errorf("%d are on record after an error, want %d", len(r.store.live), saved)
					}
					return
				}
				if calls := len(r.kernel.calls) - loads; calls != 1 {
					t.Errorf("%d calls of the kernel, want one", calls)
				}
				for b := range all {
					if b.Comment != "operator: list" || time.Until(b.Until) != 2*time.Hour {
						t.Errorf("block %v", b)
					}
				}
			})
		})
	}
}

// TestBlockManyRoom fills a set: blocks on unproven evidence make room, and
// no others do.
func TestBlockManyRoom(t *testing.T) {
	const doubted = 100
	drive(t, testConfig(), func(r *rig) {
		r.in(func() {
			now := time.Now()
			for i := range nft.DefaultHosts - 10 {
				b := state.Block{
					Source: netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64 + byte(i>>16), byte(i >> 8), byte(i)}), 32),
					Since:  now, Until: now.Add(time.Hour), Evidence: "proven", Comment: "x",
				}
				if i < doubted {
					b.Evidence = unproven
				}
				r.blocks.put(b)
			}
			if err := r.load(); err != nil {
				t.Fatal(err)
			}
		})
		var many []netip.Prefix
		for i := range doubted + 11 {
			many = append(many, source(fmt.Sprintf("203.0.113.%d", i)))
		}
		if _, err := r.BlockMany(r.ctx, many, time.Hour, ""); !errors.Is(err, ErrNoRoom) {
			t.Errorf("one too many: %v, want %v", err, ErrNoRoom)
		}
		if s, _ := r.Stats(r.ctx); s.Live != nft.DefaultHosts-10 || s.Evicted != 0 {
			t.Errorf("%d are blocked, %d had to make room, want all and none", s.Live, s.Evicted)
		}
		r.in(func() { r.kernel.fail = unix.ENOMEM })
		if _, err := r.BlockMany(r.ctx, many[1:], time.Hour, ""); !errors.Is(err, unix.ENOMEM) {
			t.Errorf("a kernel that refuses: %v, want %v", err, unix.ENOMEM)
		}
		if s, _ := r.Stats(r.ctx); s.Live != nft.DefaultHosts-10 || s.Evicted != 0 || len(r.kernel.held()) != nft.DefaultHosts-10 {
			t.Errorf("after that %d are blocked, %d in the kernel, %d had to make room, want all and none", s.Live, len(r.kernel.held()), s.Evicted)
		}
		r.in(func() { r.kernel.fail = nil })
		if _, err := r.BlockMany(r.ctx, many[1:], time.Hour, ""); err != nil {
			t.Errorf("as many as there is room for: %v", err)
		}
		if s, _ := r.Stats(r.ctx); s.Live != nft.DefaultHosts || s.Evicted != doubted {
			t.Errorf("%d are blocked, %d had to make room, want %d and %d", s.Live, s.Evicted, nft.DefaultHosts, doubted)
		}
	})
}

// TestUnblockMany lets those go that are blocked, and names the others.
func TestUnblockMany(t *testing.T) {
	drive(t, testConfig(), func(r *rig) {
		blocked := sourcesOf("203.0.113.7", "203.0.113.8", "198.51.100.0/24")
		if _, err := r.BlockMany(r.ctx, blocked, time.Hour, ""); err != nil {
			t.Fatal(err)
		}
		ended, missing, err := r.UnblockMany(r.ctx, sourcesOf("203.0.113.7", "203.0.113.9", "198.51.100.0/24", "203.0.113.7", "198.51.100.1"))
		if err != nil || !errors.Is(missing, ErrNotBlocked) || strings.Count(missing.Error(), "\n") != 1 {
			t.Errorf("UnblockMany: missing %v, %v, want two that are not blocked", missing, err)
		}
		if want := sourcesOf("203.0.113.7", "198.51.100.0/24"); !slices.Equal(ended, want) {
			t.Errorf("ended %v, want %v", ended, want)
		}
		if got := r.kernel.held(); len(got) != 1 || len(r.store.live) != 1 {
			t.Errorf("the kernel holds %v, %d are on record, want one", got, len(r.store.live))
		}
	})
}

// TestVerb has the words for what an operator does to a block.
func TestVerb(t *testing.T) {
	now := time.Now()
	old := state.Block{Until: now}
	for want, b := range map[string]state.Block{"extend": {Until: now.Add(1)}, "shorten": {Until: now.Add(-1)}} {
		if got := verbOf(old, true, b); got != want {
			t.Errorf("%v is %q, want %q", b.Until.Sub(now), got, want)
		}
	}
	if got := verbOf(state.Block{}, false, old); got != "block" {
		t.Errorf("a new one is %q", got)
	}
}
