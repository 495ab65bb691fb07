package controller

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"nftsentry/listener"
	"nftsentry/nft"
	"nftsentry/state"
)

// tooMany is more than the kernel lists.
const tooMany = nft.MostListed + 100

func manyConfig() Config {
	cfg := senseConfig()
	cfg.Table.Hosts = 2 * nft.DefaultHosts
	return cfg
}

// driveMany is drive with so many blocks in the store and in the kernel, where
// before may add what happened while nobody listened.
func driveMany(t *testing.T, n int, before, f func(r *rig)) {
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, kernel: newFakeKernel(), store: newFakeStore(), events: make(chan listener.Event), missed: make(chan struct{}), changes: make(chan nft.Change)}
		all := hosts(n)
		if err := r.kernel.Load(manyConfig().Table, slices.Values(all), nil); err != nil {
			t.Fatal(err)
		}
		for _, e := range all {
			r.store.live[e.Prefix] = state.Block{Source: e.Prefix, Address: e.Prefix.Addr(), Since: time.Now(), Until: time.Now().Add(e.Timeout), Evidence: "proven"}
		}
		if before != nil {
			before(r)
		}
		clear(r.kernel.named)
		r.start(manyConfig(), f)
	})
}

// convict is what the kernel's rules do.
func (k *fakeKernel) convict(p netip.Prefix, timeout time.Duration) {
	k.addHost(p, timeout)
	k.own[p] = true
}

// agreed tells whether list, store and kernel have the same hosts, but for some
// that the kernel alone may have.
func (r *rig) agreed(besides ...string) {
	r.t.Helper()
	r.in(func() {
		kernel := maps.Clone(r.kernel.ends)
		for _, text := range besides {
			if _, there := kernel[source(text)]; !there || r.blocks.has(source(text)) {
				r.t.Errorf("%s is not in the kernel alone", text)
			}
			delete(kernel, source(text))
		}
		for b := range r.blocks.all() {
			if _, stored := r.store.live[b.Source]; !stored || !r.kernel.lasts(b.Source) {
				r.t.Fatalf("%v is on record %v, in the kernel %v", b.Source, stored, r.kernel.lasts(b.Source))
			}
		}
		if n := r.blocks.len(); len(kernel) != n || len(r.store.live) != n {
			r.t.Errorf("%d are listed, %d in the kernel, %d on record", n, len(kernel), len(r.store.live))
		}
	})
}

// TestRestoreMany starts over more blocks than can be listed: what the kernel has
// blocked by itself is adopted, what is ignored by now is gone, what was added by
// hand stays, and nothing is loaded anew.
func TestRestoreMany(t *testing.T) {
	driveMany(t, tooMany, func(r *rig) {
		r.kernel.convict(source("203.0.113.9"), 10*time.Minute)
		r.kernel.addHost(source("203.0.113.10"), time.Hour)
		ignored := source("192.0.2.9")
		r.kernel.addHost(ignored, time.Hour)
		r.store.live[ignored] = state.Block{Source: ignored, Since: time.Now(), Until: time.Now().Add(time.Hour), Evidence: "proven"}
		r.kernel.deleteHost(hosts(1)[0].Prefix) // has to come back
	}, func(r *rig) {
		r.agreed("203.0.113.10")
		if !r.blocks.has(source("203.0.113.9")) || r.kernel.named["Load"] != 0 {
			t.Errorf("adopted %v, loaded %d times, want it adopted and nothing loaded", r.blocks.has(source("203.0.113.9")), r.kernel.named["Load"])
		}
	})
}

// TestManyUnheard looks up what the kernel has blocked and could not tell, and
// what somebody has added, without ever listing all.
func TestManyUnheard(t *testing.T) {
	driveMany(t, tooMany, nil, func(r *rig) {
		before := r.kernel.named["Blocked"]
		r.in(func() {
			r.kernel.convict(source("203.0.113.9"), 10*time.Minute)
			r.kernel.addHost(source("203.0.113.10"), time.Hour)
		})
		r.changes <- nft.Change{Hosts: []netip.Addr{netip.MustParseAddr("203.0.113.10")}, Process: "nft"}
		r.missed <- struct{}{}
		time.Sleep(2 * reconcileEvery)
		synctest.Wait()
		r.agreed()
		r.in(func() {
			if n := r.kernel.named["Blocked"] - before; n != 0 || !r.blocks.has(source("203.0.113.9")) || !r.blocks.has(source("203.0.113.10")) {
				t.Errorf("listed %d times, want both adopted and nothing listed", n)
			}
		})
	})
}

// TestReconfigureMax lets more be blocked, and then fewer: those that stay are
// not touched.
func TestReconfigureMax(t *testing.T) {
	driveMany(t, tooMany, nil, func(r *rig) {
		var began map[netip.Prefix]time.Time
		r.in(func() { began = maps.Clone(r.kernel.since) })
		time.Sleep(time.Minute)
		was := tooMany
		for _, most := range []int{nft.MostHosts, nft.DefaultHosts, 2000} {
			cfg := manyConfig()
			cfg.Table.Hosts = most
			evicted, err := r.Reconfigure(r.ctx, cfg, nil)
			if want := max(0, was-most); err != nil || evicted != want {
				t.Fatalf("%d evicted of %d, error %v, want %d", evicted, was, err, want)
			}
			was -= evicted
			r.agreed()
			r.in(func() {
				if n := min(most, tooMany); r.blocks.len() != n || r.kernel.cfg.Hosts != most || r.kernel.named["Load"] != 0 {
					t.Errorf("%d are blocked of %d in the kernel, loaded %d times, want %d of %d and never", r.blocks.len(), r.kernel.cfg.Hosts, r.kernel.named["Load"], n, most)
				}
				for p := range r.kernel.ends {
					if !r.kernel.since[p].Equal(began[p]) {
						t.Fatalf("%v was blocked anew", p)
					}
				}
			})
		}
		r.in(func() { r.kernel.faults = []fault{{name: "Configure", when: before, err: unix.ENOMEM, lasting: true}} })
		few := manyConfig()
		few.Table.Hosts = 1500
		if evicted, err := r.Reconfigure(r.ctx, few, nil); evicted != 0 || !errors.Is(err, unix.ENOMEM) {
			t.Errorf("a kernel that refuses: %d evicted, error %v, want 0 and %v", evicted, err, unix.ENOMEM)
		}
		if s, _ := r.Stats(r.ctx); s.Live != 2000 {
			t.Errorf("%d are blocked after a reload that failed, want 2000", s.Live)
		}
	})
}

// TestManyExcess shows that what could not be let go is gone once the table is
// mended, and by the next reload too.
func TestManyExcess(t *testing.T) {
	for _, reload := range []bool{false, true} {
		driveMany(t, tooMany, nil, func(r *rig) {
			gone := hosts(1)[0].Prefix
			r.in(func() { r.kernel.deaf = unix.ENOMEM })
			if _, err := r.Unblock(r.ctx, gone); !errors.Is(err, unix.ENOMEM) {
				t.Fatalf("Unblock: %v, want %v", err, unix.ENOMEM)
			}
			r.in(func() {
				r.kernel.deaf = nil
				r.kernel.addHost(source("203.0.113.10"), time.Hour) // nobody has asked for it
			})
			if reload {
				if _, err := r.Reconfigure(r.ctx, manyConfig(), nil); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(2 * repairMost)
			synctest.Wait()
			r.agreed()
		})
	}
}

// TestManyFull shows that of a set which is full of what nobody knows some go for
// a new block, and that not all is loaded for it.
func TestManyFull(t *testing.T) {
	driveMany(t, 2*nft.DefaultHosts-1, nil, func(r *rig) {
		r.in(func() { r.kernel.addHost(source("203.0.113.10"), time.Hour) })
		r.touch("203.0.113.7", 23)
		r.in(func() {
			if !r.blocks.has(source("203.0.113.7")) || !r.kernel.lasts(source("203.0.113.7")) || r.kernel.named["Load"] != 0 {
				t.Errorf("loaded %d times, want a new block and no load", r.kernel.named["Load"])
			}
		})
		if s, _ := r.Stats(r.ctx); s.Evicted != relief || s.Failed != 0 {
			t.Errorf("stats %+v, want %d evicted", s, relief)
		}
	})
}

// suspectsOf are n blocks, every third on unproven evidence.
func suspectsOf(n int) blocks {
	bs, now := newBlocks(64), time.Now()
	for i, e := range hosts(n) {
		b := state.Block{Source: e.Prefix, Since: now, Until: now.Add(time.Duration(i*7919%n) * time.Second), Evidence: "proven"}
		if i%3 == 0 {
			b.Evidence = unproven
		}
		bs.put(b)
	}
	return bs
}

// TestSpare takes all hosts in the order in which they can be spared, and puts
// others in their place meanwhile, which takes no time to speak of.
func TestSpare(t *testing.T) {
	const n = 100_000
	bs := suspectsOf(n)
	began := time.Now()
	for i := range n {
		b := bs.takeSpare(true, 1)[0]
		b.Source = netip.PrefixFrom(netip.AddrFrom4([4]byte{172, byte(i >> 16), byte(i >> 8), byte(i)}), 32)
		b.Until = b.Until.Add(1000 * time.Hour)
		bs.put(b)
	}
	if took := time.Since(began); took > time.Minute { // it would be an hour if each looked at all
		t.Errorf("%d evictions took %v", n, took)
	}
	var last state.Block
	for i := range n {
		b := bs.takeSpare(true, 1)[0]
		if i > 0 && (b.Evidence == unproven && last.Evidence != unproven || b.Evidence == last.Evidence && b.Until.Before(last.Until)) {
			t.Fatalf("%+v comes after %+v", b, last)
		}
		last = b
	}
	if bs.len() != 0 || bs.hosts(true) != 0 {
		t.Errorf("%d blocks are left, %d of them hosts", bs.len(), bs.hosts(true))
	}
}

// BenchmarkEvict is one block for another in a full set.
func BenchmarkEvict(b *testing.B) {
	for _, n := range []int{1000, 100_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			bs := suspectsOf(n)
			for b.Loop() {
				block := bs.takeSpare(true, 1)[0]
				block.Until = block.Until.Add(time.Duration(n) * time.Second)
				bs.put(block)
			}
		})
	}
}
