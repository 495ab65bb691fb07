package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
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
		o.Controller = New(faultConfig(), false, testHost(), o.kernel, o.store, o.log)
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
	if o.Reconfigure(o.ctx, cfg, testHost().Serving) == nil {
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
				c := New(faultConfig(), false, testHost(), o.kernel, o.store, zap.NewNop())
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
		for i, e := range hosts(nft.MaxHosts) {
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
			if n := len(o.kernel.held()); n != nft.MaxHosts || o.kernel.named["Load"] > 3 {
				t.Errorf("%d blocks, and the table was loaded %d times, want %d and at most 3", n, o.kernel.named["Load"], nft.MaxHosts)
			}
		})
		if s, _ := o.Stats(o.ctx); s.Evicted != 1 || s.Failed != 0 || s.Live != nft.MaxHosts {
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
		for _, e := range hosts(nft.MaxHosts) {
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
			if n := o.blocks.count(true); n != nft.MaxHosts {
				t.Errorf("%d blocks listed while nothing can be written, want %d", n, nft.MaxHosts)
			}
			o.kernel.faults = nil
			o.kernel.addHost(source("198.51.100.1"), time.Hour) // by its rules, unheard of
		})
		o.pass(converges)
		o.in(func() {
			if n, held := o.blocks.count(true), len(o.kernel.held()); n != nft.MaxHosts || held != n || len(o.store.live) != n {
				t.Errorf("%d blocks listed, %d in the kernel, %d in the store, want %d", n, held, len(o.store.live), nft.MaxHosts)
			}
		})
		if s, _ := o.Stats(o.ctx); s.Damage != nil {
			t.Errorf("damage %v", s.Damage)
		}
	})
}
