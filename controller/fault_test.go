package controller

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"nftsentry/nft"
	"nftsentry/state"
)

// errnos are what the kernel may answer, or the Table in its place.
var errnos = []error{
	unix.ENOENT, unix.EEXIST, unix.ENFILE, unix.ENOMEM, unix.ENOBUFS, unix.EBUSY, unix.EINTR, unix.EAGAIN,
	unix.EMSGSIZE, unix.EINVAL, nft.ErrNotApplied,
}

// sure are those that say that nothing was applied.
var sure = []error{unix.EEXIST, unix.ENOMEM, unix.EBUSY, unix.EMSGSIZE, unix.EINVAL}

// told are those that the controller tells from others, and some of the others.
var told = []error{nil, unix.ENOENT, unix.ENFILE, unix.ENOBUFS, nft.ErrNotApplied}

// converges is how long the kernel may be other than our list after a fault.
const converges = 5 * time.Second

// A step is something that happens to the controller.
type step struct {
	name string
	do   func(o *ordeal)
}

// steps are the life of a daemon: all that calls the kernel.
var steps = []step{
	{"a connection to a decoy", func(o *ordeal) { o.touched("203.0.113.10", 10*time.Minute) }},
	{"one by IPv6", func(o *ordeal) { o.touched("2001:db8:8::1", 10*time.Minute) }},
	{"the kernel convicts", func(o *ordeal) { o.convicted("203.0.113.11", 10*time.Minute) }},
	{"proof comes after it", func(o *ordeal) { o.touched("203.0.113.11", 10*time.Minute) }},
	{"the kernel convicts an ignored source", func(o *ordeal) { o.convicted("192.0.2.7", 0) }},
	{"an operator's short block ends", func(o *ordeal) {
		o.block("203.0.113.20", 2*time.Second)
		o.pass(3 * time.Second)
	}},
	{"an operator blocks", func(o *ordeal) { o.block("203.0.113.21", time.Hour) }},
	{"an operator extends", func(o *ordeal) { o.block("203.0.113.21", 2*time.Hour) }},
	{"an operator shortens", func(o *ordeal) { o.block("203.0.113.21", 30*time.Minute) }},
	{"an operator blocks a prefix", func(o *ordeal) { o.block("203.0.112.0/24", time.Hour) }},
	{"an operator blocks one inside", func(o *ordeal) { o.block("203.0.112.128/25", 2*time.Hour) }},
	{"somebody takes elements away", func(o *ordeal) {
		o.in(func() { o.kernel.deleteHost(source("203.0.113.21")) })
		o.changed(nft.Change{Hosts: []netip.Addr{netip.MustParseAddr("203.0.113.21")}, Process: "nft"})
	}},
	{"somebody takes prefixes away", func(o *ordeal) {
		o.in(func() { o.kernel.emptyNets() })
		o.changed(nft.Change{Nets: []netip.Addr{netip.MustParseAddr("203.0.112.0")}, Process: "nft"})
	}},
	{"somebody adds a chain", func(o *ordeal) {
		o.in(func() { o.kernel.addChain() })
		o.changed(nft.Change{Shape: true, Process: "nft"})
	}},
	{"somebody deletes the table", func(o *ordeal) {
		o.in(func() { o.kernel.deleteTable() })
		o.changed(nft.Change{Shape: true, All: true, Process: "nft"})
	}},
	{"an operator unblocks the prefix", func(o *ordeal) { o.unblock("203.0.112.0/24") }},
	{"an operator unblocks a host", func(o *ordeal) { o.unblock("203.0.113.21") }},
	{"the host has another gateway", func(o *ordeal) { o.newGateway("203.0.113.10") }},
	{"events were lost", func(o *ordeal) {
		o.judges("203.0.113.12", 5*time.Minute) // less than it deserves by now
		o.until[source("203.0.113.12")] = time.Now().Add(10 * time.Minute)
		o.missed <- struct{}{}
		o.pass(converges)
		if o.fault.when == gone { // and what only the kernel knew may be, too
			o.forget("203.0.113.12")
		}
	}},
	{"reload", func(o *ordeal) { o.reload("203.0.113.11") }},
	{"a service is seen", func(o *ordeal) {
		_ = o.Serve(o.ctx, []nft.Service{{Protocol: unix.IPPROTO_TCP, Port: 8081, Timeout: time.Hour}})
	}},
	{"panic", func(o *ordeal) { o.panics(true) }},
	{"an operator blocks in panic", func(o *ordeal) { o.block("203.0.113.22", time.Hour) }},
	{"resume", func(o *ordeal) { o.panics(false) }},
	{"services are learnt", func(o *ordeal) { o.pass(learnEvery) }},
	{"blocks end", func(o *ordeal) { o.pass(10 * time.Minute) }},
	{"an operator unblocks all", func(o *ordeal) { o.unblockAll() }},
	{"one more connection", func(o *ordeal) { o.touched("203.0.113.30", 10*time.Minute) }},
}

// faultConfig has tripwires everywhere, so that services matter.
func faultConfig() Config {
	cfg := senseConfig()
	cfg.Table.WatchTCP = []nft.PortRange{{First: 1, Last: 65535}}
	return cfg
}

// undergo runs through a life with a fault, and returns how often the kernel
// was called.
func undergo(t *testing.T, hurry bool, f fault) (calls int) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrdeal(t, hurry, f)
		defer func() { o.stop() }()
		o.step("restore", (*ordeal).restore)
		for _, s := range steps {
			o.step(s.name, s.do)
		}
		o.hurry = false
		o.step("the end", func(*ordeal) {})
		calls, _ = o.counted()
	})
	return calls
}

// TestFaults has each fault strike each call of a life, with time to recover
// after each step. Without that time, it has those that the controller tells
// from others.
func TestFaults(t *testing.T) {
	t.Parallel()
	var faults []fault
	for _, err := range errnos {
		faults = append(faults, fault{when: before, err: err})
		if !slices.Contains(sure, err) {
			faults = append(faults, fault{when: after, err: err})
		}
	}
	faults = append(faults, fault{name: "Load", when: partly, err: nft.ErrNotApplied}, fault{when: silent}, fault{when: gone, err: unix.ENOENT})
	slow, hurried := undergo(t, false, fault{index: -1}), undergo(t, true, fault{index: -1})
	t.Logf("%d faults at %d calls; %d of them at %d in a hurry", len(faults), slow, 2*len(told)+1, hurried)
	for _, f := range faults {
		t.Run(strings.ReplaceAll(fmt.Sprint(f.when, " ", f.err), " ", "_"), func(t *testing.T) {
			t.Parallel()
			if f.when == gone {
				f.index = 2 // what only the kernel knows has been read
			}
			for ; f.index < slow; f.index++ {
				t.Run(fmt.Sprint("call ", f.index), func(t *testing.T) { undergo(t, false, f) })
				if f.index < hurried && slices.Contains(told, f.err) {
					t.Run(fmt.Sprint("call ", f.index, " in a hurry"), func(t *testing.T) { undergo(t, true, f) })
				}
			}
		})
	}
}

// TestLastingFaults has calls fail for 20 seconds, all of them or those of one
// name, while sources come back all the time.
func TestLastingFaults(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"", "Load", "Block", "Unblock", "Forgive", "SetHost", "Blocked", "Served", "RestoreNets", "Reshape", "Intact"} {
		t.Run(cmp.Or(name, "all"), func(t *testing.T) {
			t.Parallel()
			for _, err := range errnos {
				if name != "" && !slices.Contains(told, err) {
					continue
				}
				for _, when := range []when{before, after} {
					synctest.Test(t, func(t *testing.T) { lasting(t, fault{name: name, when: when, err: err, lasting: true}) })
				}
			}
		})
	}
}

func lasting(t *testing.T, f fault) {
	o := newOrdeal(t, true, f)
	o.kernel.faults = nil
	o.restore()
	defer func() { o.stop() }()
	o.in(func() { o.kernel.faults = []fault{f} })
	calls, _ := o.counted()
	for _, s := range steps[:slices.IndexFunc(steps, func(s step) bool { return s.name == "the host has another gateway" })] {
		s.do(o)
	}
	fresh := netip.MustParseAddr("203.0.114.0")
	for began := time.Now(); time.Since(began) < 20*time.Second; o.pass(200 * time.Millisecond) {
		for _, address := range []string{"203.0.113.40", "203.0.113.41", "203.0.113.42"} {
			if _, known := o.until[source(address)]; !known {
				o.touched(address, 10*time.Minute)
			} else if !o.inKernel(address) {
				o.touch(address, 23)
			}
		}
		if f.name == "" || f.name == "Load" {
			o.touched(fresh.String(), 10*time.Minute)
			o.touched(fresh.Next().String(), 10*time.Minute)
			fresh = fresh.Next().Next()
		}
	}
	now, _ := o.counted()
	if n := now - calls; n > 200 {
		t.Errorf("%v: %d calls in 20s", f, n)
	}
	if n := o.logs.FilterLevelExact(zap.ErrorLevel).Len(); n > 1 {
		t.Errorf("%v: %d errors are logged: %v", f, n, o.logs.FilterLevelExact(zap.ErrorLevel).All())
	}
	if n := o.logs.FilterLevelExact(zap.WarnLevel).Len(); n > 50 {
		t.Errorf("%v: %d warnings", f, n)
	}
	stats, _ := o.Stats(o.ctx)
	if loads := f.name == "" || f.name == "Load"; loads != (stats.Damage != nil) {
		t.Errorf("%v: damage %v", f, stats.Damage)
	}
	o.in(func() { o.kernel.faults = nil })
	o.pass(converges)
	for _, what := range o.wrong() {
		t.Errorf("%v: when it is over: %s", f, what)
	}
}

// TestRestoreFails shows that a start which the kernel refuses is an error, and
// changes nothing on record.
func TestRestoreFails(t *testing.T) {
	for _, name := range []string{"Blocked", "Served", "Load"} {
		for _, err := range errnos {
			synctest.Test(t, func(t *testing.T) {
				o := newOrdeal(t, false, fault{name: name, err: err, lasting: true})
				stored := maps.Clone(o.store.live)
				c := New(faultConfig(), false, testHost(), o.kernel, o.store, nil, zap.NewNop())
				if got := c.Restore(); !errors.Is(got, err) {
					t.Errorf("%s fails: Restore = %v, want %v", name, got, err)
				}
				if !maps.Equal(stored, o.store.live) {
					t.Errorf("%s fails: the store has changed", name)
				}
			})
		}
	}
}

// TestTimeouts is R13: what an operator changes of a block is what the kernel
// enforces, longer or shorter. On a kernel that leaves the timeout of an
// element alone, the operator is told, and evidence finds another way.
func TestTimeouts(t *testing.T) {
	for _, tt := range []struct {
		source   string
		stubborn bool
	}{
		{"203.0.113.7", false}, {"198.51.100.0/24", false}, {"2001:db8:7::/64", false}, {"2001:db8:1::5", false},
		{"203.0.113.7", true}, {"2001:db8:7::/64", true},
	} {
		cfg := senseConfig()
		cfg.Unproven = time.Minute
		drive(t, cfg, func(r *rig) {
			p := source(tt.source)
			r.in(func() { r.kernel.stubborn = tt.stubborn })
			last := 10 * time.Minute
			for _, timeout := range []time.Duration{last, 4 * time.Hour, time.Minute, 48 * time.Hour, time.Second} {
				_, err := r.Block(r.ctx, p, timeout, "")
				if tt.stubborn && timeout != 10*time.Minute {
					if !errors.Is(err, nft.ErrNotApplied) {
						t.Errorf("%+v: %v, want that it is not applied", tt, err)
					}
				} else if last = timeout; err != nil {
					t.Errorf("%+v: %v", tt, err)
				}
				synctest.Wait()
				r.expect(tt.source, fmt.Sprintf("%s %s operator", tt.source, last))
			}
			if !tt.stubborn {
				time.Sleep(time.Second)
				synctest.Wait()
				r.expect("a second later")
			}
		})
	}
	cfg := senseConfig()
	cfg.Unproven = time.Minute
	drive(t, cfg, func(r *rig) {
		r.in(func() { r.kernel.stubborn = true })
		r.convicts(source("203.0.113.7"), 111)
		r.touch("203.0.113.7", 23)
		r.expect("proof lengthens on a stubborn kernel", "203.0.113.7 10m0s tcp/23 connect")
	})
}

// TestWaitingToBeCollected shows that a set which is full of blocks that are
// over takes a new one at once, and is not made again for each.
func TestWaitingToBeCollected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrdeal(t, true, fault{index: -1})
		now := time.Now()
		clear(o.store.live)
		o.kernel.deleteTable()
		for i, e := range hosts(nft.DefaultHosts) {
			until := now.Add(time.Hour)
			if i < 100 {
				until = now.Add(time.Second)
			}
			o.store.live[e.Prefix] = state.Block{Source: e.Prefix, Since: now, Until: until, Evidence: "proven"}
		}
		o.restore()
		defer func() { o.stop() }()
		o.pass(time.Second)
		for i := range 100 {
			o.touch(netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}).String(), 23)
		}
		o.pass(time.Second)
		o.touch("198.51.100.1", 23) // one too many
		o.in(func() {
			if n := len(o.kernel.held()); n != nft.DefaultHosts || o.kernel.named["Load"] > 3 {
				t.Errorf("%d blocks, and the table was loaded %d times, want %d and at most 3", n, o.kernel.named["Load"], nft.DefaultHosts)
			}
		})
		if s, _ := o.Stats(o.ctx); s.Evicted != 1 || s.Failed != 0 || s.Live != nft.DefaultHosts {
			t.Errorf("stats %+v, want one evicted", s)
		}
	})
}

// TestRoomWhileBroken shows that the list stays within what the kernel's sets
// hold while nothing can be written there, so that all of it fits in the end.
func TestRoomWhileBroken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrdeal(t, true, fault{index: -1})
		now := time.Now()
		clear(o.store.live)
		for _, e := range hosts(nft.DefaultHosts) {
			o.store.live[e.Prefix] = state.Block{Source: e.Prefix, Since: now, Until: now.Add(time.Hour), Evidence: "proven"}
		}
		o.kernel.deleteTable()
		o.restore()
		defer func() { o.stop() }()
		o.in(func() { o.kernel.faults = []fault{{lasting: true, err: unix.ENOMEM, index: 0}} })
		for i := range 3 {
			o.touch(netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}).String(), 23)
			o.pass(100 * time.Millisecond)
		}
		o.in(func() {
			if n := o.blocks.count(true); n != nft.DefaultHosts {
				t.Errorf("%d blocks listed while nothing can be written, want %d", n, nft.DefaultHosts)
			}
			o.kernel.faults = nil
			o.kernel.addHost(source("198.51.100.1"), time.Hour) // by its rules, unheard of
		})
		o.pass(converges)
		o.in(func() {
			if n, held := o.blocks.count(true), len(o.kernel.held()); n != nft.DefaultHosts || held != n || len(o.store.live) != n {
				t.Errorf("%d blocks listed, %d in the kernel, %d in the store, want %d", n, held, len(o.store.live), nft.DefaultHosts)
			}
		})
		if s, _ := o.Stats(o.ctx); s.Damage != nil {
			t.Errorf("damage %v", s.Damage)
		}
	})
}
