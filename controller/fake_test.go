package controller

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"nftsentry/nft"
	"nftsentry/state"
)

// fakeKernel keeps blocks as the kernel does: an element goes by itself when
// its time is up, and without a table nothing can be added.
type fakeKernel struct {
	loaded   bool
	cfg      nft.Config
	ends     map[netip.Prefix]time.Time
	comment  map[netip.Prefix]string
	served   []nft.Service
	forgiven []netip.Prefix
	damaged  bool  // somebody has changed its shape
	deaf     error // of everything that changes it, as long as it is set
	refused  int   // how often it has been
	fail     error // of the next Block
}

func newFakeKernel() *fakeKernel {
	return &fakeKernel{ends: make(map[netip.Prefix]time.Time), comment: make(map[netip.Prefix]string)}
}

func (k *fakeKernel) Load(cfg nft.Config, blocks []nft.Element, served []nft.Service) error {
	if err := k.refuse(); err != nil {
		return err
	}
	if served == nil {
		served = k.served
	}
	refused := k.refused
	*k = *newFakeKernel()
	k.loaded, k.cfg, k.served, k.refused = true, cfg, served, refused
	for _, e := range blocks {
		if err := k.Block(e); err != nil {
			return err
		}
	}
	return nil
}

func (k *fakeKernel) refuse() error {
	if k.deaf != nil {
		k.refused++
		return k.deaf
	}
	err := k.fail
	k.fail = nil
	return err
}

func (k *fakeKernel) Block(e nft.Element) error {
	if err := k.refuse(); err != nil {
		return err
	}
	if !k.loaded {
		return fmt.Errorf("block: %w", unix.ENOENT)
	}
	if e.Timeout < time.Second || e.Prefix != e.Prefix.Masked() {
		return fmt.Errorf("block %v: %w", e, unix.EINVAL)
	}
	k.ends[e.Prefix] = time.Now().Add((e.Timeout + time.Second - 1).Truncate(time.Second))
	k.comment[e.Prefix] = e.Comment
	return nil
}

func (k *fakeKernel) Unblock(prefixes ...netip.Prefix) error {
	for _, p := range prefixes {
		delete(k.ends, p)
	}
	return nil
}

func (k *fakeKernel) Forgive(sources ...netip.Prefix) error {
	k.forgiven = append(k.forgiven, sources...)
	return nil
}

func (k *fakeKernel) SetHost(ignored, onLink6 []netip.Prefix) error {
	k.cfg.Ignored, k.cfg.OnLink6 = ignored, onLink6
	return nil
}

func (k *fakeKernel) Served() ([]nft.Service, error) { return k.served, nil }

func (k *fakeKernel) Blocked() ([]nft.Element, error) {
	var all []nft.Element
	for p, end := range k.ends {
		if left := time.Until(end); left > 0 {
			all = append(all, nft.Element{Prefix: p, Timeout: left, Comment: k.comment[p]})
		}
	}
	slices.SortFunc(all, func(a, b nft.Element) int { return a.Prefix.Compare(b.Prefix) })
	return all, nil
}

// blocked lists the sources that the kernel blocks, and for how long.
func (k *fakeKernel) blocked() []string {
	all, _ := k.Blocked()
	out := []string{}
	for _, e := range all {
		out = append(out, fmt.Sprintf("%s %s %s", display(e.Prefix), e.Timeout, e.Comment))
	}
	return out
}

// fakeStore keeps blocks in memory and acknowledges at once.
type fakeStore struct {
	live    map[netip.Prefix]state.Block
	ended   map[netip.Prefix]state.Block
	served  []state.Service
	changed chan struct{}
	fail    error // of all writes
}

func newFakeStore() *fakeStore {
	return &fakeStore{live: make(map[netip.Prefix]state.Block), ended: make(map[netip.Prefix]state.Block)}
}

func (s *fakeStore) Live() ([]state.Block, error) {
	return slices.SortedFunc(maps.Values(s.live), func(a, b state.Block) int {
		return cmp.Or(a.Since.Compare(b.Since), a.Source.Compare(b.Source))
	}), nil
}

func (s *fakeStore) Last(source netip.Prefix) (state.Block, bool, error) {
	b, ok := s.ended[source]
	return b, ok, nil
}

func (s *fakeStore) Save(b state.Block, done func(error)) {
	if s.fail == nil {
		s.live[b.Source] = b
	}
	s.answer(done)
}

func (s *fakeStore) End(source netip.Prefix, at time.Time, forgive bool, done func(error)) {
	b, ok := s.live[source]
	delete(s.live, source)
	if forgive {
		delete(s.ended, source)
	} else if ok {
		b.Until = at
		s.ended[source] = b
	}
	s.answer(done)
}

func (s *fakeStore) Forget(before time.Time, _ int) {
	maps.DeleteFunc(s.ended, func(_ netip.Prefix, b state.Block) bool { return b.Until.Before(before) })
}

func (s *fakeStore) Served() ([]state.Service, error)    { return s.served, nil }
func (s *fakeStore) SaveServed(services []state.Service) { s.served = services }

func (s *fakeStore) answer(done func(error)) {
	if done != nil {
		done(s.fail)
	}
}

var _ Store = (*fakeStore)(nil)
var _ Kernel = (*fakeKernel)(nil)
