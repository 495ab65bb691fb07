package controller

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap/zaptest"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"nftsentry/listener"
	"nftsentry/nft"
	"nftsentry/state"
)

// testConfig is the built-in defaults, with something to ignore.
func testConfig() Config {
	return Config{
		TCP: RespondBlock, UDP: RespondBlock, Connects: 1, Window: time.Minute,
		Timeout: 10 * time.Minute, Escalate: []time.Duration{time.Hour, 24 * time.Hour}, Forget: 30 * 24 * time.Hour,
		Ignored:    map[netip.Prefix]string{netip.MustParsePrefix("192.0.2.0/24"): "ignore.sources"},
		IgnoreHost: true,
		Table:      nft.Config{Enforce: true, Prefix6: 64},
	}
}

func testHost() Host {
	return Host{
		Ignored: map[netip.Prefix]string{netip.MustParsePrefix("10.0.0.1/32"): "gateway"},
		OnLink6: []netip.Prefix{netip.MustParsePrefix("2001:db8:1::/64")},
		Serving: []nft.Service{{Protocol: unix.IPPROTO_TCP, Port: 8080, Timeout: 24 * time.Hour}},
	}
}

// A rig is a controller that runs on fakes.
type rig struct {
	*Controller
	t       *testing.T
	kernel  *fakeKernel
	store   *fakeStore
	events  chan listener.Event
	missed  chan struct{}
	changes chan nft.Change
	ctx     context.Context
	stop    func() // ends Run

	mu    sync.Mutex
	heard []Notice // guarded by mu
}

// hear is the audience.
func (r *rig) hear(n Notice) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.heard = append(r.heard, n)
}

// notices takes what was heard since the last call, in the form "what source reason".
func (r *rig) notices() (all []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range r.heard {
		text := n.What.String()
		if n.Event.Source.IsValid() && !n.Source.IsValid() {
			text += " of nobody"
		}
		switch {
		case n.Block.Source.IsValid():
			text += " " + display(n.Block.Source)
		case n.Event.Source.IsValid():
			text += " " + n.Event.Source.Addr().String()
		}
		switch {
		case n.By.IsValid():
			text += " (" + display(n.By) + ": " + n.Reason + ")"
		case n.Reason != "":
			text += " (" + n.Reason + ")"
		}
		all = append(all, text)
	}
	r.heard = nil
	return all
}

// drive runs f with a controller, in a bubble where time is made.
func drive(t *testing.T, cfg Config, f func(r *rig)) {
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, kernel: newFakeKernel(), store: newFakeStore(), events: make(chan listener.Event), missed: make(chan struct{}), changes: make(chan nft.Change)}
		r.start(cfg, f)
	})
}

// List is that of the controller, all at once.
func (r *rig) List(ctx context.Context) ([]state.Block, error) {
	all, err := r.Controller.List(ctx)
	if err != nil {
		return nil, err
	}
	return slices.Collect(all), nil
}

// start restores and runs a controller while f lasts.
func (r *rig) start(cfg Config, f func(r *rig)) {
	r.Controller = New(cfg, false, testHost(), r.kernel, r.store, r.hear, zaptest.NewLogger(r.t))
	if err := r.Restore(); err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.ctx = ctx
	var g errgroup.Group
	g.Go(func() error { return r.Run(ctx, r.events, r.missed, r.changes) })
	r.stop = func() {
		cancel()
		if err := g.Wait(); err != nil {
			r.t.Errorf("Run: %v", err)
		}
	}
	defer r.stop()
	f(r)
}

// touch has a source complete a connection to a decoy port.
func (r *rig) touch(source string, port uint16) {
	r.events <- listener.Event{
		Time:     time.Now(),
		Source:   netip.AddrPortFrom(netip.MustParseAddr(source), 40000),
		Target:   netip.AddrPortFrom(netip.MustParseAddr("10.0.0.2"), port),
		Protocol: listener.TCP, Kind: listener.Connect, Evidence: listener.Proven,
	}
	synctest.Wait()
}

// expect compares what the kernel blocks, and what the store and the list say.
func (r *rig) expect(what string, want ...string) {
	r.t.Helper()
	if want == nil {
		want = []string{}
	}
	list, err := r.List(r.ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	err = r.Do(r.ctx, func() error {
		if diff := cmp.Diff(want, r.kernel.blocked()); diff != "" {
			r.t.Errorf("%s: blocked in the kernel (-want +got):\n%s", what, diff)
		}
		if len(list) != len(want) || len(r.store.live) != len(want) {
			r.t.Errorf("%s: %d listed, %d in the store, want %d", what, len(list), len(r.store.live), len(want))
		}
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

func TestBlockAndRelease(t *testing.T) {
	drive(t, testConfig(), func(r *rig) {
		r.touch("203.0.113.7", 23)
		r.expect("after the touch", "203.0.113.7 10m0s tcp/23 connect")
		list, err := r.List(r.ctx)
		if err != nil {
			t.Fatal(err)
		}
		now := time.Now()
		want := []state.Block{{
			Source: netip.MustParsePrefix("203.0.113.7/32"), Address: netip.MustParseAddr("203.0.113.7"),
			Since: now, Until: now.Add(10 * time.Minute),
			Port: 23, Protocol: "tcp", Kind: "connect", Evidence: "proven", Origin: state.OriginDecoy, Comment: "tcp/23 connect",
		}}
		if diff := cmp.Diff(want, list, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Errorf("list (-want +got):\n%s", diff)
		}

		time.Sleep(10*time.Minute - time.Nanosecond)
		r.expect("just before the end", "203.0.113.7 1ns tcp/23 connect")
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		r.expect("at the end")
	})
}

func TestTrigger(t *testing.T) {
	cfg := testConfig()
	cfg.Connects = 3
	drive(t, cfg, func(r *rig) {
		for range 2 {
			r.touch("203.0.113.7", 23)
			r.touch("203.0.113.8", 23)
			time.Sleep(20 * time.Second)
		}
		r.expect("after two of three")
		time.Sleep(30 * time.Second) // the first is 70 s old, the second 50 s
		r.touch("203.0.113.7", 23)
		r.expect("after three, of which one is too old")
		r.touch("203.0.113.7", 79)
		r.expect("after three within the window", "203.0.113.7 10m0s tcp/79 connect")
		r.touch("203.0.113.7", 79)
		r.expect("after one more on its way", "203.0.113.7 10m0s tcp/79 connect")
	})
}

func TestIgnored(t *testing.T) {
	drive(t, testConfig(), func(r *rig) {
		for _, source := range []string{"192.0.2.1", "10.0.0.1", "127.0.0.1", "::1", "0.0.0.0", "224.0.0.1", "ff02::1", "255.255.255.255"} {
			r.touch(source, 23)
		}
		r.expect("after all the ignored")
		stats, err := r.Stats(r.ctx)
		if err != nil || stats.Ignored != 8 || stats.Events != 8 || stats.Blocked != 0 {
			t.Errorf("stats %+v, %v, want 8 events of 8 ignored sources", stats, err)
		}
	})
	cfg := testConfig()
	cfg.IgnoreHost = false
	drive(t, cfg, func(r *rig) {
		r.touch("10.0.0.1", 23)
		r.expect("with ignore.host = false", "10.0.0.1 10m0s tcp/23 connect")
	})
}

func TestIPv6(t *testing.T) {
	drive(t, testConfig(), func(r *rig) {
		r.touch("2001:db8:7::1", 23)
		r.touch("2001:db8:7::2", 23)
		r.touch("2001:db8:7:1::2", 23)
		r.touch("2001:db8:1::5", 23) // neighbours
		r.touch("2001:db8:1::6", 23)
		r.touch("fe80::7", 23)
		r.expect("a prefix for strangers, an address for neighbours",
			"2001:db8:1::5 10m0s tcp/23 connect",
			"2001:db8:1::6 10m0s tcp/23 connect",
			"2001:db8:7::/64 10m0s tcp/23 connect",
			"2001:db8:7:1::/64 10m0s tcp/23 connect",
			"fe80::7 10m0s tcp/23 connect",
		)
		if b, err := r.Unblock(r.ctx, netip.MustParsePrefix("2001:db8:7::99/128")); err != nil || b.Source != netip.MustParsePrefix("2001:db8:7::/64") {
			t.Errorf("Unblock of an address in a blocked /64 = %v, %v", b.Source, err)
		}
	})
}

func TestEscalation(t *testing.T) {
	drive(t, testConfig(), func(r *rig) {
		for _, want := range []string{
			"203.0.113.7 10m0s tcp/23 connect",
			"203.0.113.7 1h0m0s tcp/23 connect x2",
			"203.0.113.7 24h0m0s tcp/23 connect x3",
			"203.0.113.7 24h0m0s tcp/23 connect x4", // the last step repeats
		} {
			r.touch("203.0.113.7", 23)
			r.expect("next strike", want)
			time.Sleep(24 * time.Hour)
			synctest.Wait()
		}
		time.Sleep(29 * 24 * time.Hour)
		r.touch("203.0.113.7", 23)
		r.expect("remembered for 30 days", "203.0.113.7 24h0m0s tcp/23 connect x5")
		time.Sleep(32 * 24 * time.Hour)
		synctest.Wait()
		if len(r.store.ended) != 0 {
			t.Errorf("the store remembers %v", r.store.ended)
		}
		r.touch("203.0.113.7", 23)
		r.expect("forgotten after 30 days of peace", "203.0.113.7 10m0s tcp/23 connect")
		if _, err := r.Unblock(r.ctx, netip.MustParsePrefix("203.0.113.7/32")); err != nil {
			t.Error(err)
		}
		r.touch("203.0.113.7", 23)
		r.expect("forgiven by the operator", "203.0.113.7 10m0s tcp/23 connect")
	})
}

func TestObserve(t *testing.T) {
	cfg := testConfig()
	cfg.Observe = true
	drive(t, cfg, func(r *rig) {
		r.touch("203.0.113.7", 23)
		r.expect("after the touch")
		if stats, _ := r.Stats(r.ctx); stats.WouldHave != 1 {
			t.Errorf("stats %+v, want one block that would have been", stats)
		}
		if _, err := r.Block(r.ctx, netip.MustParsePrefix("203.0.113.8/32"), 0, ""); !errors.Is(err, ErrObserving) {
			t.Errorf("Block = %v, want ErrObserving", err)
		}
	})
}

// TestKernelErrors shows that what the kernel refuses is tried again for an
// event, and that a command that it refuses changes nothing.
func TestKernelErrors(t *testing.T) {
	drive(t, testConfig(), func(r *rig) {
		r.kernel.fail = unix.ENOBUFS
		r.touch("203.0.113.7", 23)
		r.expect("refused by the kernel, and mended", "203.0.113.7 10m0s tcp/23 connect")
		*r.kernel = *newFakeKernel() // somebody deletes the table
		r.touch("203.0.113.8", 23)
		r.expect("the table comes back with all blocks",
			"203.0.113.7 10m0s tcp/23 connect", "203.0.113.8 10m0s tcp/23 connect")
		*r.kernel = *newFakeKernel()
		if _, err := r.Block(r.ctx, netip.MustParsePrefix("203.0.113.8/32"), time.Hour, ""); err != nil {
			t.Error(err)
		}
		r.expect("the table comes back with a block that is extended",
			"203.0.113.7 10m0s tcp/23 connect", "203.0.113.8 1h0m0s tcp/23 connect")
		r.kernel.fail = unix.ENOBUFS
		if _, err := r.Block(r.ctx, netip.MustParsePrefix("203.0.113.8/32"), time.Minute, ""); !errors.Is(err, unix.ENOBUFS) {
			t.Errorf("Block = %v, want ENOBUFS", err)
		}
		r.expect("a change that the kernel refuses",
			"203.0.113.7 10m0s tcp/23 connect", "203.0.113.8 1h0m0s tcp/23 connect")
		synctest.Wait()
		if stats, _ := r.Stats(r.ctx); stats.Failed != 1 || stats.Blocked != 2 || stats.Mended != 2 {
			t.Errorf("stats %+v, want 1 failed, 2 blocked and 2 mended", stats)
		}
	})
}

func TestSetHost(t *testing.T) {
	drive(t, testConfig(), func(r *rig) {
		r.touch("203.0.113.1", 23)
		h := testHost()
		h.Ignored[netip.MustParsePrefix("203.0.113.1/32")] = "gateway"
		if err := r.SetHost(r.ctx, h); err != nil {
			t.Fatal(err)
		}
		r.expect("once it is the gateway")
		found := false
		for _, p := range r.kernel.cfg.Ignored {
			found = found || p == netip.MustParsePrefix("203.0.113.1/32")
		}
		if !found {
			t.Errorf("the kernel ignores %v, not the gateway", r.kernel.cfg.Ignored)
		}
		r.touch("203.0.113.1", 23)
		r.expect("when it touches again")
	})
}

func TestTouchesStayBounded(t *testing.T) {
	now := time.Now()
	touches := newTouches(time.Minute)
	for i := range 3 * maxTouching {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		touches.add(netip.PrefixFrom(a, 32), now)
		if len(touches.times) > maxTouching {
			t.Fatalf("%d sources are remembered, want at most %d", len(touches.times), maxTouching)
		}
	}
	touches.add(netip.MustParsePrefix("192.0.2.1/32"), now.Add(time.Hour))
	touches.makeRoom(now.Add(time.Hour))
	if len(touches.times) != 1 {
		t.Errorf("%d sources are remembered after an hour, want 1", len(touches.times))
	}
}

func BenchmarkIgnored(b *testing.B) {
	list := make(map[netip.Prefix]string)
	for i := range 100000 {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		list[netip.PrefixFrom(a, 32-i%8).Masked()] = "file"
	}
	l := newIgnoreList(nil, list, never)
	a := netip.MustParseAddr("203.0.113.7")
	for b.Loop() {
		l.find(a)
	}
}

// TestPrefixesSideBySide shows that prefixes which the kernel holds as one are
// not taken for another at the next start.
func TestPrefixesSideBySide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, kernel: newFakeKernel(), store: newFakeStore(), events: make(chan listener.Event), missed: make(chan struct{}), changes: make(chan nft.Change)}
		one, other := netip.MustParsePrefix("198.51.100.0/25"), netip.MustParsePrefix("198.51.100.128/25")
		r.start(testConfig(), func(r *rig) {
			for _, source := range []netip.Prefix{one, other} {
				if _, err := r.Block(r.ctx, source, time.Hour, ""); err != nil {
					t.Fatal(err)
				}
			}
		})
		r.start(testConfig(), func(r *rig) {
			held, _, _ := r.kernel.Blocked()
			list, err := r.List(r.ctx)
			if err != nil || len(list) != 2 || list[0].Source != one || list[1].Source != other {
				t.Errorf("listed %+v, %v, want both prefixes; the kernel holds %v", list, err, held)
			}
		})
	})
}
