package controller

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"nftsentry/nft"
)

// collected is how long after its end an element still takes room in its set,
// at the most.
const collected = 2 * time.Second

// A fakeKernel does what *nft.Table and the kernel below it do; TestContract
// holds it to that. It is used by one goroutine at a time.
type fakeKernel struct {
	holding
	memory
	stubborn bool // an element that is there keeps its timeout, as before Linux 6.12 if it is merely added again
	forgiven []netip.Prefix

	deaf    error // of everything that changes it, as long as it is set
	refused int   // how often it has been
	fail    error // of the next Block or Load
	faults  []fault
	struck  int // faults that have come about
	calls   []kernelCall
	named   map[string]int // how many of a name
}

// A holding is what the kernel has: nothing without a table.
type holding struct {
	loaded   bool
	damaged  bool // somebody has changed its shape
	cfg      nft.Config
	ends     map[netip.Prefix]time.Time // of hosts, also for a while when they are over; zero lasts for ever
	since    map[netip.Prefix]time.Time
	comment  map[netip.Prefix]string
	own      map[netip.Prefix]bool // hosts that its rules have blocked
	corpses  []corpse              // hosts that are over, and blocked anew since
	pieces   []piece               // of prefixes
	served   []nft.Service
	servedAt time.Time // the time that services have left counts from here
}

// A corpse is an element that is over, but not collected yet.
type corpse struct {
	v4  bool
	end time.Time
}

// A piece is what an interval set holds: addresses from first to last.
type piece struct {
	first, last netip.Addr
	end         time.Time
	comment     string
	prefixes    []netip.Prefix // the same, once in the kernel
}

// A memory is what a Table remembers: a failure of the kernel takes back what
// a call has changed in it.
type memory struct {
	asked   map[netip.Prefix]piece // prefixes, each with the end that was asked for
	prefix6 int
}

type kernelCall struct {
	name string
	at   time.Time
}

func newFakeKernel() *fakeKernel {
	return &fakeKernel{
		holding: newHolding(), memory: memory{make(map[netip.Prefix]piece), 64},
		named: make(map[string]int),
	}
}

func newHolding() holding {
	return holding{
		ends: make(map[netip.Prefix]time.Time), since: make(map[netip.Prefix]time.Time), comment: make(map[netip.Prefix]string),
		own: make(map[netip.Prefix]bool),
	}
}

func (h holding) clone() holding {
	h.ends, h.since, h.comment, h.own = maps.Clone(h.ends), maps.Clone(h.since), maps.Clone(h.comment), maps.Clone(h.own)
	h.corpses, h.pieces, h.served = slices.Clone(h.corpses), slices.Clone(h.pieces), slices.Clone(h.served)
	return h
}

// deleteTable is what somebody else does.
func (k *fakeKernel) deleteTable() { k.holding = newHolding() }

func (k *fakeKernel) Load(cfg nft.Config, blocks iter.Seq[nft.Element], served []nft.Service) error {
	return k.call("Load", func() error {
		if err := valid(cfg); err != nil {
			return err
		}
		next := &fakeKernel{holding: newHolding(), memory: memory{make(map[netip.Prefix]piece), cfg.Prefix6}}
		next.loaded, next.cfg, next.served, next.servedAt, next.own = true, cfg, k.served, k.servedAt, k.own
		if served != nil {
			next.fillServed(served)
		}
		if blocks == nil {
			blocks = slices.Values([]nft.Element{})
		}
		for e := range blocks {
			if !next.isHost(e.Prefix) {
				next.asked[e.Prefix] = asked(e)
			} else if err := next.put(e); err != nil {
				return fmt.Errorf("load: %w", err)
			}
		}
		next.pieces = disjoint(next.asked)
		k.holding, k.memory = next.holding, next.memory
		return nil
	})
}

func valid(cfg nft.Config) error {
	if cfg.Prefix6 < 1 || cfg.Prefix6 > 128 || cfg.Hosts < 0 || cfg.Hosts > nft.MostHosts {
		return errors.New("prefix6 or hosts outside of what may be")
	}
	return nil
}

func (k *fakeKernel) fillServed(served []nft.Service) {
	k.served, k.servedAt = slices.Clone(served[:min(len(served), nft.MaxServed)]), time.Now()
	for i := range k.served {
		k.served[i].Timeout = ceil(k.served[i].Timeout)
	}
}

// Configure sets the size of the sets first, as the kernel does since 6.5.
func (k *fakeKernel) Configure(cfg nft.Config, served []nft.Service) error {
	return k.call("Configure", func() error {
		switch err := valid(cfg); {
		case err != nil:
			return err
		case !k.loaded || cfg.Prefix6 != k.prefix6 || cfg.Prefix6 != k.cfg.Prefix6:
			return fmt.Errorf("configure: %w", nft.ErrUnlike)
		}
		k.cfg, k.damaged = cfg, false
		if served != nil {
			k.fillServed(served)
		}
		return nil
	})
}

// BlockAll takes many in pieces, each of which is all or nothing.
func (k *fakeKernel) BlockAll(elems iter.Seq[nft.Element]) error {
	all := slices.Collect(elems)
	if len(all) <= 8192 {
		return k.Block(all...)
	}
	for some := range slices.Chunk(all, 8192) {
		if err := k.Block(some...); err != nil {
			return err
		}
	}
	return nil
}

func (k *fakeKernel) Block(elems ...nft.Element) error {
	return k.call("Block", func() error {
		if len(elems) == 1 {
			return k.block(elems[0])
		}
		held, remembered := k.holding.clone(), memory{maps.Clone(k.asked), k.prefix6}
		for _, e := range elems {
			if err := k.block(e); err != nil {
				k.holding, k.memory = held, remembered
				return err
			}
		}
		return nil
	})
}

func (k *fakeKernel) block(e nft.Element) error {
	switch {
	case e.Timeout < time.Second || e.Prefix != e.Prefix.Masked() || e.Prefix.Addr().Is4In6() || len(e.Comment) > nft.MaxComment:
		return fmt.Errorf("block %v: it is not valid", e)
	case !k.isHost(e.Prefix):
		return k.changeNets(func() { k.asked[e.Prefix] = asked(e) })
	case !k.loaded:
		return fmt.Errorf("block: %w", unix.ENOENT)
	}
	if _, there := k.ends[e.Prefix]; there && k.stubborn {
		return nft.ErrNotApplied
	}
	return k.put(e)
}

func (k *fakeKernel) Unblock(prefixes ...netip.Prefix) error {
	return k.call("Unblock", func() error {
		var nets []netip.Prefix
		for _, p := range prefixes {
			if _, known := k.asked[p]; known && !k.isHost(p) {
				nets = append(nets, p)
			}
			if k.isHost(p) && k.lasts(p) {
				delete(k.ends, p)
			}
		}
		if len(nets) == 0 {
			return nil
		}
		return k.changeNets(func() {
			for _, p := range nets {
				delete(k.asked, p)
			}
		})
	})
}

func (k *fakeKernel) Forgive(sources ...netip.Prefix) error {
	return k.call("Forgive", func() error {
		k.forgiven = append(k.forgiven, sources...)
		return nil
	})
}

func (k *fakeKernel) SetHost(ignored, onLink6 []netip.Prefix) error {
	return k.call("SetHost", func() error {
		if !k.loaded {
			return fmt.Errorf("replace ignored sources: %w", unix.ENOENT)
		}
		k.cfg.Ignored, k.cfg.OnLink6 = ignored, onLink6
		return nil
	})
}

func (k *fakeKernel) Serve(services []nft.Service) error {
	return k.call("Serve", func() error {
		if !k.loaded {
			return fmt.Errorf("remember services: %w", unix.ENOENT)
		}
		for _, s := range services {
			k.served = slices.DeleteFunc(k.served, func(old nft.Service) bool { return old.Protocol == s.Protocol && old.Port == s.Port })
			if s.Timeout = ceil(s.Timeout); !k.servedAt.IsZero() {
				s.Timeout += time.Since(k.servedAt)
			}
			k.served = append(k.served, s)
		}
		return nil
	})
}

func (k *fakeKernel) Intact() (is bool, err error) {
	err = k.call("Intact", func() error { is = k.loaded && !k.damaged; return nil })
	return is, err
}

func (k *fakeKernel) Reshape() error {
	return k.call("Reshape", func() error {
		if !k.loaded {
			return fmt.Errorf("make the rules again: %w", unix.ENOENT)
		}
		k.damaged = false
		return nil
	})
}

func (k *fakeKernel) RestoreNets() error {
	return k.call("RestoreNets", func() error { return k.changeNets(func() {}) })
}

func (k *fakeKernel) HostPrefix(key netip.Addr) netip.Prefix {
	if whole, _ := key.Prefix(k.prefix6); key.Is6() && whole.Addr() == key {
		return whole
	}
	return netip.PrefixFrom(key, key.BitLen())
}

func (k *fakeKernel) Served() (all []nft.Service, err error) {
	err = k.call("Served", func() error {
		for _, s := range k.served {
			if !k.servedAt.IsZero() {
				s.Timeout -= time.Since(k.servedAt)
			}
			if s.Timeout > 0 {
				all = append(all, s)
			}
		}
		return nil
	})
	return all, err
}

func (k *fakeKernel) Blocked() (all []nft.Element, whole bool, err error) {
	err = k.call("Blocked", func() error { all, whole = k.listed(); return nil })
	return all, whole, err
}

// listed leaves out hosts of a family with too many of them, but for the
// kernel's own.
func (k *fakeKernel) listed() (all []nft.Element, whole bool) {
	all, whole = k.held(), true
	for _, v4 := range []bool{true, false} {
		of := func(e nft.Element) bool { return e.Prefix.Addr().Is4() == v4 && k.isHost(e.Prefix) }
		n := 0
		for _, e := range all {
			if of(e) {
				n++
			}
		}
		if n > nft.MostListed {
			whole = false
			all = slices.DeleteFunc(all, func(e nft.Element) bool { return of(e) && !k.own[e.Prefix] })
		}
	}
	return all, whole
}

func (k *fakeKernel) Convicted() (all []nft.Element, err error) {
	err = k.call("Convicted", func() error {
		all = slices.DeleteFunc(k.held(), func(e nft.Element) bool { return !k.own[e.Prefix] || !k.isHost(e.Prefix) })
		return nil
	})
	return all, err
}

func (k *fakeKernel) Held(keys ...netip.Addr) (all []nft.Element, err error) {
	err = k.call("Held", func() error {
		all = slices.DeleteFunc(k.held(), func(e nft.Element) bool { return !slices.Contains(keys, e.Prefix.Addr()) || !k.isHost(e.Prefix) })
		return nil
	})
	return all, err
}

// held is what is blocked, in order of address.
func (k *fakeKernel) held() []nft.Element {
	var all []nft.Element
	for p, end := range k.ends {
		if !k.lasts(p) {
			continue
		}
		e := nft.Element{Prefix: p, Comment: k.comment[p]}
		if !end.IsZero() {
			e.Timeout = time.Until(end)
		}
		if since := k.since[p]; !since.IsZero() {
			e.Age = time.Since(since)
		}
		all = append(all, e)
	}
	for _, s := range k.pieces {
		if left := time.Until(s.end); left > 0 {
			for _, p := range s.prefixes {
				all = append(all, nft.Element{Prefix: p, Timeout: left, Comment: s.comment})
			}
		}
	}
	slices.SortFunc(all, func(a, b nft.Element) int {
		return cmp.Or(a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()))
	})
	return all
}

// put adds a host, or replaces it. Those that are over take room until they
// are collected, and one that is blocked anew has two places for so long.
func (k *fakeKernel) put(e nft.Element) error {
	v4 := e.Prefix.Addr().Is4()
	if !k.lasts(e.Prefix) {
		if k.full(v4) {
			return fmt.Errorf("block %s: %w", e.Prefix, unix.ENFILE)
		}
		if end, there := k.ends[e.Prefix]; there {
			k.corpses = append(k.corpses, corpse{v4, end})
		}
	}
	k.ends[e.Prefix] = time.Now().Add(ceil(e.Timeout))
	k.since[e.Prefix], k.comment[e.Prefix] = time.Now(), e.Comment
	return nil
}

// lasts tells whether a host is blocked.
func (k *fakeKernel) lasts(p netip.Prefix) bool {
	end, there := k.ends[p]
	return there && (end.IsZero() || time.Now().Before(end))
}

// full collects what may be collected by now, and tells whether a set of
// hosts has no room left.
func (k *fakeKernel) full(v4 bool) bool {
	if len(k.ends)+len(k.corpses) < k.cfg.MaxHosts() {
		return false
	}
	over := func(end time.Time) bool { return !end.IsZero() && time.Since(end) >= collected }
	maps.DeleteFunc(k.ends, func(_ netip.Prefix, end time.Time) bool { return over(end) })
	k.corpses = slices.DeleteFunc(k.corpses, func(c corpse) bool { return over(c.end) })
	n := 0
	for p := range k.ends {
		if p.Addr().Is4() == v4 {
			n++
		}
	}
	for _, c := range k.corpses {
		if c.v4 == v4 {
			n++
		}
	}
	return n >= k.cfg.MaxHosts()
}

// isHost tells whether a prefix goes to a set of hosts. The first address of
// an IPv6 prefix does not: its element would stand for the whole prefix.
func (k *fakeKernel) isHost(p netip.Prefix) bool {
	if p.Addr().Is4() || p.Bits() == k.prefix6 {
		return p.Addr().Is6() || p.IsSingleIP()
	}
	whole, _ := p.Addr().Prefix(k.prefix6)
	return p.IsSingleIP() && whole.Addr() != p.Addr()
}

func ceil(d time.Duration) time.Duration {
	return max(time.Second, (d + time.Second - 1).Truncate(time.Second))
}

// blocked lists the sources that the kernel blocks, and for how long.
func (k *fakeKernel) blocked() []string {
	out := []string{}
	for _, e := range k.held() {
		out = append(out, fmt.Sprintf("%s %s %s", display(e.Prefix), e.Timeout, e.Comment))
	}
	return out
}

// When a fault strikes a call.
type when int

const (
	before when = iota // nothing is applied
	after              // all is applied
	partly             // every second host of a Load is missing
	silent             // nothing is applied, and there is no error
	gone               // somebody has deleted the table just before; the error is what comes of it
)

func (w when) String() string { return [...]string{"before", "after", "partly", "silent", "gone"}[w] }

// A fault is what becomes of a call in place of what should.
type fault struct {
	name    string // of the call; "" is any
	index   int    // of the calls of this name, from 0
	lasting bool   // strikes all later ones too
	when    when
	err     error
}

func (f fault) String() string {
	return fmt.Sprintf("call %s %d, %v, %v", cmp.Or(f.name, "number"), f.index, f.when, f.err)
}

// strike finds the fault of the next call, and counts that.
func (k *fakeKernel) strike(name string) (fault, bool) {
	every, named := len(k.calls), k.named[name]
	now := time.Now()
	k.named[name]++
	k.calls = append(k.calls, kernelCall{name, now})
	if n := len(k.calls); n > 1000 && k.calls[n-1000].at.Equal(now) {
		panic("a busy loop: 1000 calls at once")
	}
	for _, f := range k.faults {
		n := every
		if f.name != "" {
			n = named
		}
		if (f.name == "" || f.name == name) && (n == f.index || n > f.index && f.lasting) {
			k.struck++
			return f, true
		}
	}
	return fault{}, false
}

// call does the work of a call, unless a fault strikes it.
func (k *fakeKernel) call(name string, do func() error) error {
	f, hit := k.strike(name)
	reads := slices.Contains([]string{"Blocked", "Convicted", "Held", "Served", "Intact"}, name)
	switch {
	case k.deaf != nil && !reads:
		k.refused++
		return k.deaf
	case k.fail != nil && (name == "Block" || name == "Load"):
		err := k.fail
		k.fail = nil
		return err
	case !hit:
		return do()
	case f.when == gone:
		k.deleteTable()
		return do()
	case f.when == silent && reads:
		return do()
	case f.when == before || reads:
		return fmt.Errorf("%s: %w", name, f.err)
	}
	held, known, forgiven := k.holding.clone(), memory{maps.Clone(k.asked), k.prefix6}, k.forgiven
	if err := do(); err != nil {
		return err
	}
	switch {
	case f.when == silent:
		k.holding, k.forgiven = held, forgiven
		return nil
	case f.when == partly && name == "Load":
		for i, p := range slices.SortedFunc(maps.Keys(k.ends), netip.Prefix.Compare) {
			if i%2 == 0 {
				delete(k.ends, p)
			}
		}
	}
	k.memory = known
	return fmt.Errorf("%s: %w", name, f.err)
}

var _ Kernel = (*fakeKernel)(nil)
