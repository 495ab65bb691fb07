package controller

import (
	"maps"
	"net/netip"
	"time"

	"nftsentry/state"
)

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

func (s *fakeStore) Visit(f func(state.Block)) error {
	for _, b := range s.live {
		f(b)
	}
	return nil
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

func (s *fakeStore) SaveAll(blocks []state.Block, done func(error)) {
	for _, b := range blocks {
		s.Save(b, nil)
	}
	s.answer(done)
}

func (s *fakeStore) EndAll(sources []netip.Prefix, at time.Time, forgive bool, done func(error)) {
	for _, source := range sources {
		s.End(source, at, forgive, nil)
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

// Changed never tells anything unless a test does.
func (s *fakeStore) Changed() <-chan struct{} { return s.changed }

var _ Store = (*fakeStore)(nil)
