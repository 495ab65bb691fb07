package controller

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"nftsentry/listener"
	"nftsentry/nft"
	"nftsentry/state"
)

// listedFile is a file whose lines are prefixes.
func listedFile(name string, prefixes ...string) ListedFile {
	return ListedFile{Name: name, Sources: func(yield func(int, netip.Prefix) bool) {
		for i, s := range prefixes {
			if !yield(i+1, netip.MustParsePrefix(s)) {
				return
			}
		}
	}}
}

func TestListed(t *testing.T) {
	listed := NewListed(
		listedFile("a", "198.51.100.0/24", "198.51.100.7/32", "192.0.2.0/24", "2001:db8::/32"),
		listedFile("b", "198.51.100.0/24", "198.51.0.0/16", "2001:db8:1::/48"),
	)
	l := newIgnoreList(listed, map[netip.Prefix]string{
		netip.MustParsePrefix("192.0.2.0/24"): "ignore.sources", netip.MustParsePrefix("198.51.100.4/30"): "gateway",
	}, never)
	for source, want := range map[string]string{
		"198.51.100.7/32":    "198.51.100.7/32 a:2",
		"198.51.100.6/32":    "198.51.100.4/30 gateway",
		"198.51.100.6/31":    "198.51.100.4/30 gateway",
		"198.51.100.0/29":    "198.51.100.0/24 a:1",
		"198.51.100.0/24":    "198.51.100.0/24 a:1",
		"198.51.100.0/23":    "198.51.0.0/16 b:2",
		"198.51.0.0/15":      "",
		"192.0.2.9/32":       "192.0.2.0/24 ignore.sources",
		"2001:db8:1:2::/64":  "2001:db8:1::/48 b:3",
		"2001:db8:2::1/128":  "2001:db8::/32 a:4",
		"2001:db9::1/128":    "",
		"127.0.0.1/32":       "127.0.0.0/8 loopback",
		"::/0":               "",
		"::ffff:1.2.3.4/128": "::ffff:0.0.0.0/96 not an address of another host",
	} {
		got := ""
		if by, reason, ok := l.covers(netip.MustParsePrefix(source)); ok {
			got = by.String() + " " + reason
		}
		if got != want {
			t.Errorf("%s is ignored by %q, want %q", source, got, want)
		}
	}
	if listed.Size() != 6 || l.size() != 6+2+len(never) || len(l.prefixes()) != l.size() {
		t.Errorf("%d listed, %d in all, %d told", listed.Size(), l.size(), len(l.prefixes()))
	}
	var none *Listed
	if _, _, ok := newIgnoreList(none).find(netip.MustParseAddr("192.0.2.1")); ok || none.Size() != 0 {
		t.Error("nothing listed, and something is ignored")
	}
}

// TestListedNaive holds look-ups to a search through all.
func TestListedNaive(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	some := func(least int) netip.Prefix {
		if random.IntN(2) == 0 {
			a := netip.AddrFrom16([16]byte{0x20, 1, byte(random.IntN(2)), byte(random.IntN(4)), byte(random.IntN(4))})
			return netip.PrefixFrom(a, least+random.IntN(129-least)).Masked()
		}
		a := netip.AddrFrom4([4]byte{10, byte(random.IntN(2)), byte(random.IntN(4)), byte(random.IntN(256))})
		return netip.PrefixFrom(a, least+random.IntN(33-least)).Masked()
	}
	var all []string
	for range 300 {
		all = append(all, some(8).String())
	}
	l := newIgnoreList(NewListed(listedFile("f", all...)))
	for range 5000 {
		p := some(0)
		want := ""
		for i, s := range all {
			around := netip.MustParsePrefix(s)
			if around.Bits() <= p.Bits() && around.Contains(p.Addr()) && (want == "" || around.Bits() > netip.MustParsePrefix(all[atLine(want)]).Bits()) {
				want = fmt.Sprintf("f:%d", i+1)
			}
		}
		if _, got, _ := l.covers(p); got != want {
			t.Fatalf("%s is ignored by %q, want %q", p, got, want)
		}
	}
}

func atLine(reason string) (index int) {
	_, _ = fmt.Sscanf(reason, "f:%d", &index)
	return index - 1
}

// TestSetListed shows that a source that is listed is unblocked, and can be
// blocked again once it is not.
func TestSetListed(t *testing.T) {
	drive(t, testConfig(), func(r *rig) {
		r.touch("203.0.113.1", 23)
		r.touch("203.0.113.2", 23)
		if err := r.SetListed(r.ctx, NewListed(listedFile("portsentry.ignore", "203.0.113.1/32"))); err != nil {
			t.Fatal(err)
		}
		r.expect("once it is listed", "203.0.113.2 10m0s tcp/23 connect")
		r.touch("203.0.113.1", 23)
		r.expect("when it touches again", "203.0.113.2 10m0s tcp/23 connect")
		_, err := r.Block(r.ctx, netip.MustParsePrefix("203.0.113.1/32"), time.Hour, "")
		if want := "203.0.113.1 is covered by 203.0.113.1 (portsentry.ignore:1): an ignored source is never blocked"; err == nil || err.Error() != want {
			t.Errorf("block: %v, want %q", err, want)
		}
		if err := r.SetHost(r.ctx, testHost()); err != nil { // does not forget the list
			t.Fatal(err)
		}
		if !slices.Contains(r.kernel.cfg.Ignored, netip.MustParsePrefix("203.0.113.1/32")) {
			t.Errorf("the kernel ignores %v", r.kernel.cfg.Ignored)
		}
		if err := r.SetListed(r.ctx, nil); err != nil {
			t.Fatal(err)
		}
		r.touch("203.0.113.1", 23)
		r.expect("once it is not listed", "203.0.113.1 1h0m0s tcp/23 connect x2", "203.0.113.2 10m0s tcp/23 connect")
	})
}

// TestSetListedFails shows that a list which the kernel does not take at first
// is in force as soon as it does.
func TestSetListedFails(t *testing.T) {
	drive(t, testConfig(), func(r *rig) {
		r.touch("203.0.113.1", 23)
		r.in(func() { r.kernel.faults = []fault{{name: "SetHost", when: before, err: unix.ENOMEM}} })
		if err := r.SetListed(r.ctx, NewListed(listedFile("f", "203.0.113.1/32"))); !errors.Is(err, unix.ENOMEM) {
			t.Errorf("error %v, want %v", err, unix.ENOMEM)
		}
		time.Sleep(repairMost)
		synctest.Wait()
		r.expect("when the kernel gives in")
		r.in(func() {
			if !slices.Contains(r.kernel.cfg.Ignored, netip.MustParsePrefix("203.0.113.1/32")) {
				t.Errorf("the kernel ignores %v", r.kernel.cfg.Ignored)
			}
		})
	})
}

// TestSetListedTableGone makes the table again, with the list.
func TestSetListedTableGone(t *testing.T) {
	drive(t, testConfig(), func(r *rig) {
		r.touch("203.0.113.1", 23)
		r.in(func() { r.kernel.deleteTable() })
		if err := r.SetListed(r.ctx, NewListed(listedFile("f", "198.51.100.0/24"))); err != nil {
			t.Fatal(err)
		}
		r.expect("after it", "203.0.113.1 10m0s tcp/23 connect")
		r.in(func() {
			if !slices.Contains(r.kernel.cfg.Ignored, netip.MustParsePrefix("198.51.100.0/24")) {
				t.Errorf("the kernel ignores %v", r.kernel.cfg.Ignored)
			}
		})
	})
}

// inForce tells what the kernel enforces, as it is told.
func (r *rig) inForce() (all string) {
	r.in(func() {
		all = fmt.Sprintf("enforce %t, %d blocks", r.kernel.cfg.Enforce, len(r.kernel.held()))
	})
	return all
}

const (
	nothing = "enforce false, 0 blocks"
	oneHost = "enforce true, 1 blocks"
)

// TestUnlisted shows that nothing is noticed or blocked while it is not known
// who is ignored, and that all is in force as soon as it is.
func TestUnlisted(t *testing.T) {
	cfg := testConfig()
	cfg.Unlisted = true
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		now := time.Now()
		for _, s := range []string{"203.0.113.1/32", "203.0.113.2/32"} {
			p := netip.MustParsePrefix(s)
			r.store.live[p] = state.Block{Source: p, Since: now, Until: now.Add(time.Hour), Evidence: "proven", Comment: "tcp/23 connect"}
		}
		r.start(cfg, func(r *rig) {
			r.touch("203.0.113.3", 23)
			if got := r.inForce(); got != nothing {
				t.Errorf("at the start: %s, want %s", got, nothing)
			}
			if _, err := r.Block(r.ctx, netip.MustParsePrefix("203.0.113.4/32"), time.Hour, ""); !errors.Is(err, ErrUnlisted) {
				t.Errorf("block: %v, want %v", err, ErrUnlisted)
			}
			if s, err := r.Stats(r.ctx); err != nil || !s.Unlisted || s.Live != 2 {
				t.Errorf("stats %+v, %v, want two blocks on record", s, err)
			}
			if err := r.SetListed(r.ctx, NewListed(listedFile("f", "203.0.113.1/32"))); err != nil {
				t.Fatal(err)
			}
			if got := r.inForce(); got != oneHost {
				t.Errorf("when it is known: %s, want %s", got, oneHost)
			}
			r.touch("203.0.113.3", 23)
			r.expect("when it is known", "203.0.113.2 1h0m0s tcp/23 connect", "203.0.113.3 10m0s tcp/23 connect")
			if s, err := r.Stats(r.ctx); err != nil || s.Unlisted {
				t.Errorf("stats %+v, %v", s, err)
			}
		})
	})
}

// TestUnlistedByReload ends the wait when the configuration names no such
// files any more, and a panic does not.
func TestUnlistedByReload(t *testing.T) {
	cfg := testConfig()
	cfg.Unlisted = true
	drive(t, cfg, func(r *rig) {
		if _, err := r.Reconfigure(r.ctx, testConfig(), nil); err != nil {
			t.Fatal(err)
		}
		r.touch("203.0.113.3", 23)
		r.expect("after the reload", "203.0.113.3 10m0s tcp/23 connect")
	})
}

// TestUnlistedAndPanic shows that each of the two lasts without the other.
func TestUnlistedAndPanic(t *testing.T) {
	type step struct {
		name string
		do   func(r *rig) error
		want string
	}
	panics := step{"panic", func(r *rig) error { _, err := r.Panic(r.ctx); return err }, nothing}
	resume := func(want string) step {
		return step{"resume", func(r *rig) error { _, err := r.Resume(r.ctx); return err }, want}
	}
	list := func(want string) step {
		return step{"list", func(r *rig) error { return r.SetListed(r.ctx, NewListed()) }, want}
	}
	for name, steps := range map[string][]step{
		"resume first": {panics, resume(nothing), list(oneHost)},
		"list first":   {panics, list(nothing), resume(oneHost)},
		"no panic":     {resume(nothing), list(oneHost), panics, resume(oneHost)},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig()
			cfg.Unlisted = true
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				p := netip.MustParsePrefix("203.0.113.1/32")
				r.store.live[p] = state.Block{Source: p, Since: time.Now(), Until: time.Now().Add(time.Hour), Evidence: "proven"}
				r.start(cfg, func(r *rig) {
					for _, s := range steps {
						if err := s.do(r); err != nil {
							t.Fatalf("%s: %v", s.name, err)
						}
						if got := r.inForce(); got != s.want {
							t.Errorf("after %s: %s, want %s", s.name, got, s.want)
						}
					}
				})
			})
		})
	}
}

// manyListed are 100,000 prefixes, a quarter of them IPv6.
func manyListed() ListedFile {
	return ListedFile{Name: "portsentry.ignore", Sources: func(yield func(int, netip.Prefix) bool) {
		for i := range 100000 {
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32-i%8)
			if i%4 == 0 {
				p = netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 0, byte(i >> 16), byte(i >> 8), byte(i)}), 64-i%8)
			}
			if !yield(i+1, p.Masked()) {
				return
			}
		}
	}}
}

// TestListedSpeed bounds what a long list costs, with room for a busy machine.
func TestListedSpeed(t *testing.T) {
	file := manyListed()
	began := time.Now()
	l := newIgnoreList(NewListed(file), never)
	took := time.Since(began)
	const looks = 100000
	began = time.Now()
	found := 0
	for i := range looks {
		if _, _, ok := l.find(netip.AddrFrom4([4]byte{byte(9 + i%3), byte(i >> 16), byte(i >> 8), byte(i)})); ok {
			found++
		}
	}
	each := time.Since(began) / looks
	t.Logf("made in %v; a look-up takes %v", took, each)
	if found == 0 || found == looks {
		t.Errorf("%d of %d found", found, looks)
	}
	if most := 5 * time.Microsecond; each > most && !raceEnabled {
		t.Errorf("a look-up takes %v, want at most %v", each, most)
	}
	if most := time.Second; took > most && !raceEnabled {
		t.Errorf("made in %v, want at most %v", took, most)
	}
}

func BenchmarkNewListed(b *testing.B) {
	list := maps.Collect(manyListed().Sources)
	file := ListedFile{Name: "f", Sources: maps.All(list)}
	for b.Loop() {
		NewListed(file)
	}
}

// BenchmarkListed looks up one that is listed, and one that is not.
func BenchmarkListed(b *testing.B) {
	l := newIgnoreList(NewListed(manyListed()), never)
	for name, source := range map[string]string{"found": "10.0.77.7", "not found": "203.0.113.7", "IPv6": "2001:db8:0:1::1"} {
		b.Run(name, func(b *testing.B) {
			a := netip.MustParseAddr(source)
			for b.Loop() {
				l.find(a)
			}
		})
	}
}

// TestListedInTheKernel shows that no listed source is lost on the way to the
// kernel's table.
func TestListedInTheKernel(t *testing.T) {
	c := New(testConfig(), false, testHost(), newFakeKernel(), newFakeStore(), nil, nil)
	c.cfg.Listed = NewListed(listedFile("f", "203.0.113.0/24", "203.0.113.7/32", "2001:db8:7::/48"))
	c.setHost(c.host)
	var listed []string
	for _, p := range c.cfg.Table.Ignored {
		if _, few := c.ignored.few.Get(p); !few {
			listed = append(listed, p.String())
		}
	}
	if diff := cmp.Diff([]string{"203.0.113.0/24", "203.0.113.7/32", "2001:db8:7::/48"}, listed); diff != "" {
		t.Errorf("told to the kernel (-want +got):\n%s", diff)
	}
}

func newRig(t *testing.T) *rig {
	return &rig{
		t: t, kernel: newFakeKernel(), store: newFakeStore(),
		events: make(chan listener.Event), missed: make(chan struct{}), changes: make(chan nft.Change),
	}
}
