package controller

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"nftsentry/listener"
	"nftsentry/nft"
	"nftsentry/state"
)

// An ordeal is a controller on a kernel with faults, and beside it what must
// be true of it: the list that its answers promise.
type ordeal struct {
	*rig
	hurry bool // no time passes between the steps
	fault fault
	logs  *observer.ObservedLogs
	log   *zap.Logger

	until    map[netip.Prefix]time.Time // blocks
	panicked bool
}

// newOrdeal is a table that an earlier daemon has left, and its store.
func newOrdeal(t *testing.T, hurry bool, f fault) *ordeal {
	core, logs := observer.New(zap.InfoLevel)
	o := &ordeal{
		rig:   &rig{t: t, kernel: newFakeKernel(), store: newFakeStore(), events: make(chan listener.Event), missed: make(chan struct{}), changes: make(chan nft.Change), stop: func() {}},
		hurry: hurry, fault: f, logs: logs, log: zap.New(core), until: make(map[netip.Prefix]time.Time),
	}
	now := time.Now()
	for text, left := range map[string]time.Duration{
		"203.0.113.1": time.Hour, "203.0.113.2": -time.Minute, "198.51.100.0/24": time.Hour, "198.51.100.64/26": 2 * time.Hour, "2001:db8:7::/64": time.Hour,
	} {
		p := source(text)
		o.store.live[p] = state.Block{Source: p, Since: now.Add(-24 * time.Hour), Until: now.Add(left), Comment: "tcp/23 connect", Evidence: "proven"}
		o.until[p] = now.Add(left)
	}
	o.until[source("203.0.113.1")] = now.Add(30 * time.Minute) // the clock was set, and the kernel knows better
	o.until[source("203.0.113.3")] = now.Add(20 * time.Minute) // only the kernel knows of it
	o.pass(0)
	left := []nft.Element{elementOf("203.0.113.1 30m tcp/23 connect"), elementOf("203.0.113.3 20m by hand")}
	learnt := []nft.Service{{Protocol: unix.IPPROTO_TCP, Port: 1023, Timeout: 24 * time.Hour}}
	if err := o.kernel.Load(nft.Config{Enforce: true, Prefix6: 64}, slices.Values(left), learnt); err != nil {
		t.Fatal(err)
	}
	o.kernel.calls, o.kernel.named = nil, make(map[string]int)
	o.kernel.faults = []fault{f}
	return o
}

// restore is the start of the daemon. If it fails the service manager starts
// the next one.
func (o *ordeal) restore() {
	for tries := 0; ; tries++ {
		o.Controller = New(faultConfig(), false, testHost(), o.kernel, o.store, nil, o.log)
		err := o.Restore()
		if err == nil {
			break
		}
		if o.fault.when == partly { // what the kernel knew better than the store is lost
			o.until[source("203.0.113.1")] = o.store.live[source("203.0.113.1")].Until
		}
		if tries == 3 {
			o.t.Fatalf("%v: Restore: %v", o.fault, err)
		}
		time.Sleep(time.Second)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var g errgroup.Group
	g.Go(func() error { return o.Run(ctx, o.events, o.missed, o.changes) })
	o.ctx, o.stop = ctx, func() {
		cancel()
		if err := g.Wait(); err != nil {
			o.t.Errorf("Run: %v", err)
		}
	}
}

// step does one, has the monitor notice what the Table cannot, and looks
// whether all is well in time.
func (o *ordeal) step(name string, do func(*ordeal)) {
	o.t.Helper()
	began := time.Now()
	calls, struck := o.counted()
	notice := func() bool { // as the monitor does
		n := struck
		if _, struck = o.counted(); struck == n || o.fault.when != gone && o.fault.when != silent {
			return false
		}
		o.changed(nft.Change{All: true, Shape: true, Process: "nft"})
		return true
	}
	do(o)
	notice()
	if o.hurry {
		return
	}
	o.pass(converges)
	for o.fault.when == gone && notice() { // of what was struck meanwhile
		o.pass(converges)
	}
	after, _ := o.counted()
	for _, what := range o.wrong() {
		o.t.Errorf("%v: %s: %s", o.fault, name, what)
	}
	if seconds := int(time.Since(began) / time.Second); after-calls > 10*seconds {
		o.t.Errorf("%v: %s: %d calls in %ds", o.fault, name, after-calls, seconds)
	}
}

// counted is how many calls there were, and how many of them were struck.
func (o *ordeal) counted() (calls, struck int) {
	count := func() { calls, struck = len(o.kernel.calls), o.kernel.struck }
	if o.Controller == nil {
		count()
	} else {
		o.in(count)
	}
	return calls, struck
}

// pass lets time pass.
func (o *ordeal) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
	maps.DeleteFunc(o.until, func(_ netip.Prefix, until time.Time) bool { return !until.After(time.Now()) })
}

// wrong tells in what the kernel, our list, the store and the answers given
// are not the same.
func (o *ordeal) wrong() (what []string) {
	o.t.Helper()
	stats, err := o.Stats(o.ctx)
	if err != nil {
		o.t.Fatal(err)
	}
	if stats.Damage != nil || stats.Panicked != o.panicked {
		what = append(what, fmt.Sprintf("damage %v, panicked %v", stats.Damage, stats.Panicked))
	}
	o.in(func() {
		list, stored := make(map[netip.Prefix]time.Time), make(map[netip.Prefix]time.Time)
		for b := range o.blocks.all() {
			list[b.Source] = b.Until
		}
		for p, b := range o.store.live {
			stored[p] = b.Until
		}
		what = append(what, differ("list", list, o.until)...)
		what = append(what, differ("store", stored, o.until)...)
		what = append(what, o.wrongInKernel()...)
	})
	return what
}

func (o *ordeal) wrongInKernel() (what []string) {
	k, should := o.kernel, newFakeKernel()
	cfg, blocks := o.cfg.Table, o.elements()
	if o.panicked {
		cfg, blocks = nft.Config{Prefix6: 64}, nil
	}
	if err := should.Load(cfg, blocks, nil); err != nil {
		return []string{err.Error()}
	}
	ends := func(k *fakeKernel) map[netip.Prefix]time.Time {
		all := make(map[netip.Prefix]time.Time)
		for _, e := range k.held() {
			all[e.Prefix] = time.Now().Add(e.Timeout)
		}
		return all
	}
	what = differ("kernel", ends(k), ends(should))
	if !k.loaded || k.damaged || !o.panicked && !reflect.DeepEqual(k.cfg, cfg) {
		what = append(what, fmt.Sprintf("table %v, damaged %v, of %v, want %v", k.loaded, k.damaged, k.cfg, cfg))
	}
	if o.panicked {
		if k.cfg.Enforce {
			what = append(what, "the table enforces in panic")
		}
		return what
	}
	known := []service{{listener.TCP, 1023}, {listener.TCP, 8080}}
	for _, one := range slices.AppendSeq(known, maps.Keys(o.served)) {
		if !slices.ContainsFunc(k.served, func(s nft.Service) bool { return s.Port == one.port }) {
			what = append(what, fmt.Sprintf("kernel lacks service %v", one))
		}
	}
	return what
}

// differ compares when blocks end: elements last whole seconds.
func differ(name string, got, want map[netip.Prefix]time.Time) (what []string) {
	for p, until := range want {
		if end, ok := got[p]; !ok {
			what = append(what, fmt.Sprintf("%s lacks %v", name, p))
		} else if end.Sub(until).Abs() > agreement {
			what = append(what, fmt.Sprintf("%s has %v for %v instead of %v", name, p, time.Until(end), time.Until(until)))
		}
	}
	for p := range got {
		if _, ok := want[p]; !ok {
			what = append(what, fmt.Sprintf("%s has %v", name, p))
		}
	}
	slices.Sort(what)
	return what
}

// changed has the monitor tell of what somebody has done.
func (o *ordeal) changed(ch nft.Change) {
	o.changes <- ch
	synctest.Wait()
}

// forget takes it that a source is not blocked if it is not on our list.
func (o *ordeal) forget(text string) {
	if b := o.record(source(text)); !b.Source.IsValid() {
		delete(o.until, source(text))
	}
}

// truth looks whether what the operator was told of a source is so now.
func (o *ordeal) truth(said string, p netip.Prefix) {
	o.t.Helper()
	if o.fault.when == silent || o.panicked {
		return
	}
	var got, want time.Duration
	o.in(func() {
		for _, e := range o.kernel.held() {
			if e.Prefix.Contains(p.Addr()) {
				got = max(got, e.Timeout)
			}
		}
	})
	for b, until := range o.until {
		if b.Contains(p.Addr()) {
			want = max(want, time.Until(until))
		}
	}
	if (got - want).Abs() > agreement {
		o.t.Errorf("%v: said to be done: %s %v, but it is blocked for %v, not %v", o.fault, said, p, got, want)
	}
}

// inKernel tells whether an address is blocked, so that nothing comes from it.
func (o *ordeal) inKernel(address string) (is bool) {
	a := netip.MustParseAddr(address)
	o.in(func() {
		is = slices.ContainsFunc(o.kernel.held(), func(e nft.Element) bool { return e.Prefix.Contains(a) })
	})
	return is && !o.panicked
}

// touched is a connection to a decoy.
func (o *ordeal) touched(address string, timeout time.Duration) {
	if o.touch(address, 23); o.panicked {
		return
	}
	p := o.sourceOf(netip.MustParseAddr(address))
	if until := time.Now().Add(timeout); until.After(o.until[p]) {
		o.until[p] = until
	}
}

// judges has the kernel block a source by its rules, if it has any.
func (o *ordeal) judges(address string, timeout time.Duration) {
	o.in(func() {
		if o.kernel.loaded {
			o.kernel.addHost(source(address), timeout)
		}
	})
}

// convicted is judges, and the kernel tells of it. It takes back what is 0.
func (o *ordeal) convicted(address string, timeout time.Duration) {
	o.judges(address, 10*time.Minute)
	o.says(listener.Convicted, address, 111)
	if timeout > 0 {
		o.until[source(address)] = time.Now().Add(timeout)
	}
}

func (o *ordeal) block(text string, timeout time.Duration) {
	p := source(text)
	_, err := o.rig.Block(o.ctx, p, timeout, "")
	if o.panicked != errors.Is(err, ErrPanicked) {
		o.t.Errorf("%v: block %s = %v, panicked %v", o.fault, text, err, o.panicked)
	}
	if err == nil {
		o.until[p] = time.Now().Add(timeout)
		o.truth("block", p)
	}
}

func (o *ordeal) unblock(text string) {
	p := source(text)
	_, err := o.Unblock(o.ctx, p)
	if _, known := o.until[p]; known == errors.Is(err, ErrNotBlocked) {
		o.t.Errorf("%v: unblock %s = %v, known %v", o.fault, text, err, known)
	}
	if err == nil {
		delete(o.until, p)
		o.truth("unblock", p)
	}
}

func (o *ordeal) unblockAll() {
	was := len(o.until)
	n, err := o.UnblockAll(o.ctx)
	if err != nil {
		return
	}
	if n != was {
		o.t.Errorf("%v: %d are unblocked, want %d", o.fault, n, was)
	}
	clear(o.until)
	o.truth("unblock all", source("198.51.100.0/24"))
	o.truth("unblock all", source("203.0.113.1"))
}

// newGateway is what the watcher does: it tries until it succeeds.
func (o *ordeal) newGateway(address string) {
	h := testHost()
	h.Ignored[source(address)] = "gateway"
	for tries := 0; tries < 4; tries++ {
		if o.SetHost(o.ctx, h) == nil {
			delete(o.until, source(address))
			return
		}
		o.pass(time.Second)
	}
	o.t.Errorf("%v: the watcher has not succeeded", o.fault)
}

// reload takes over another configuration, by which one more is ignored.
func (o *ordeal) reload(ignored string) {
	cfg := faultConfig()
	cfg.Ignored[source(ignored)] = "ignore.sources"
	cfg.Table.Ports = 7
	if _, err := o.Reconfigure(o.ctx, cfg, testHost().Serving); err == nil {
		delete(o.until, source(ignored))
		o.in(func() {
			if o.fault.when != silent && !o.panicked && o.kernel.loaded && o.kernel.cfg.Ports != 7 {
				o.t.Errorf("%v: said to be reloaded, but the kernel has the old configuration", o.fault)
			}
		})
	}
}

func (o *ordeal) panics(on bool) {
	was := o.panicked
	do := o.Resume
	if on {
		do = o.Panic
	}
	n, err := do(o.ctx)
	if err != nil {
		return
	}
	o.panicked = on
	if n != len(o.until) {
		o.t.Errorf("%v: panic %v of %d blocks, want %d", o.fault, on, n, len(o.until))
	}
	if !on && was {
		o.truth("resume", source("203.0.113.1"))
	}
	o.in(func() {
		if on && o.fault.when != silent && (len(o.kernel.held()) > 0 || o.kernel.cfg.Enforce) {
			o.t.Errorf("%v: said to be in panic, but the kernel blocks", o.fault)
		}
	})
}
