package controller

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"nftsentry/listener"
	"nftsentry/nft"
	"nftsentry/state"
)

// TestRepairPace shows that a kernel which refuses everything is tried again
// with growing pauses, that the error is said once, and that all is well when
// it gives in.
func TestRepairPace(t *testing.T) {
	drive(t, senseConfig(), func(r *rig) {
		logs := observed(r)
		r.in(func() { r.kernel.deaf = unix.ENOMEM })
		r.touch("203.0.113.7", 23)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		var tries int
		r.in(func() { tries = r.kernel.refused })
		if tries < 4 || tries > 10 {
			t.Errorf("%d tries in 5s, want 4 to 10", tries)
		}
		if got := messages(logs, "cannot make our table again; trying on"); got != 1 {
			t.Errorf("said %d times that it cannot, want once", got)
		}
		if s, _ := r.Stats(r.ctx); !errors.Is(s.Damage, unix.ENOMEM) {
			t.Errorf("damage %v, want ENOMEM", s.Damage)
		}
		r.in(func() { r.kernel.deaf = nil })
		time.Sleep(repairMost)
		synctest.Wait()
		r.expect("when it gives in", "203.0.113.7 9m53s tcp/23 connect")
		if s, _ := r.Stats(r.ctx); s.Damage != nil || s.Mended != 1 {
			t.Errorf("stats %+v, want it mended once", s)
		}
	})
}

// TestRoom shows that a set which is full makes room by the unproven block
// that ends soonest, and then by the proven one.
func TestRoom(t *testing.T) {
	drive(t, senseConfig(), func(r *rig) {
		host := func(i int) netip.Prefix {
			return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(1 + i>>16), byte(i >> 8), byte(i)}), 32)
		}
		r.in(func() {
			now := time.Now()
			for i := range nft.DefaultHosts {
				b := state.Block{Source: host(i), Since: now, Until: now.Add(time.Minute + time.Duration(i)*time.Millisecond), Evidence: "proven"}
				if i == 100 || i == 200 { // unproven, the second ending sooner
					b.Evidence, b.Until = unproven, now.Add(2*time.Hour-time.Duration(i)*time.Second)
				}
				r.blocks.put(b)
			}
		})
		for i, victim := range []int{200, 100, 0, 1} {
			r.touch(fmt.Sprintf("203.0.113.%d", i+1), 23)
			r.in(func() {
				if _, ok := r.blocks.get(host(victim)); ok || r.blocks.count(true) != nft.DefaultHosts {
					t.Errorf("block %d too many: %d blocks, and %s is still one", i+1, r.blocks.count(true), host(victim))
				}
			})
		}
		r.touch("2001:db8:2::1", 23)
		if s, _ := r.Stats(r.ctx); s.Evicted != 4 || s.Live != nft.DefaultHosts+1 {
			t.Errorf("stats %+v, want 4 evicted", s)
		}
	})
}

// TestNothingLostWhileRulesAreMended shows that a block that comes while the
// rules alone are to be mended, and cannot be, is in the kernel in the end.
func TestNothingLostWhileRulesAreMended(t *testing.T) {
	drive(t, senseConfig(), func(r *rig) {
		r.in(func() {
			r.kernel.addChain()
			r.kernel.faults = []fault{
				{name: "Reshape", when: before, err: unix.ENOMEM, lasting: true}, {name: "Load", when: before, err: unix.ENOMEM, lasting: true},
			}
		})
		r.changes <- nft.Change{Shape: true, Process: "nft"}
		synctest.Wait()
		r.touch("203.0.113.7", 23)
		r.in(func() { r.kernel.faults = nil })
		time.Sleep(10 * time.Second)
		synctest.Wait()
		r.in(func() {
			if held := r.kernel.held(); len(held) != 1 || r.blocks.len() != 1 {
				t.Errorf("the kernel holds %v, %d are listed, want one", held, r.blocks.len())
			}
		})
	})
}

// TestReloadKeepsUntold shows that a block of the kernel that nobody was told
// of is not lost when the table is filled anew.
func TestReloadKeepsUntold(t *testing.T) {
	drive(t, senseConfig(), func(r *rig) {
		r.in(func() { r.kernel.ends[netip.MustParsePrefix("203.0.113.9/32")] = time.Now().Add(10 * time.Minute) })
		if _, err := r.Reconfigure(r.ctx, senseConfig(), nil); err != nil {
			t.Fatal(err)
		}
		r.expect("after the reload", "203.0.113.9 10m0s "+unseen)
	})
}

// TestRelieve shows that a set full of blocks makes room for those that the
// kernel makes by itself.
func TestRelieve(t *testing.T) {
	drive(t, senseConfig(), func(r *rig) {
		r.in(func() {
			now := time.Now()
			for i := range nft.DefaultHosts {
				source := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(1 + i>>16), byte(i >> 8), byte(i)}), 32)
				r.blocks.put(state.Block{Source: source, Since: now, Until: now.Add(time.Hour + time.Duration(i)*time.Millisecond), Evidence: "proven"})
			}
		})
		r.says(listener.Crowded, "203.0.113.7", 200)
		if s, _ := r.Stats(r.ctx); s.Live != nft.DefaultHosts-64 || s.Evicted != 64 {
			t.Errorf("stats %+v, want room for 64", s)
		}
		r.says(listener.Crowded, "203.0.113.7", 200) // there is room
		if s, _ := r.Stats(r.ctx); s.Evicted != 64 {
			t.Errorf("stats %+v, want no more evicted", s)
		}
	})
}
