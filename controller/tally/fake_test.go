package tally

import (
	"context"
	"maps"
	"sync"
	"time"

	"net/netip"
)

// fakeStore keeps records in memory.
type fakeStore struct {
	mu      sync.Mutex
	records map[string][]byte
	writes  int
	failing error  // of EachTally
	asked   func() // is called by EachTally, unless it is nil
}

func newFakeStore() *fakeStore { return &fakeStore{records: make(map[string][]byte)} }

func (s *fakeStore) SaveTally(records map[string][]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writes++
	for key, value := range records {
		if value == nil {
			delete(s.records, key)
			continue
		}
		s.records[key] = value
	}
}

// written is how often something was handed in.
func (s *fakeStore) written() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.writes
}

// all are the records.
func (s *fakeStore) all() map[string][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.records)
}

func (s *fakeStore) EachTally(from, to string, visit func(string, []byte) error) error {
	s.mu.Lock()
	records := maps.Clone(s.records)
	err, asked := s.failing, s.asked
	s.mu.Unlock()
	if asked != nil {
		asked()
	}
	if err != nil {
		return err
	}
	for key, value := range records {
		if from <= key && key < to {
			if err := visit(key, value); err != nil {
				return err
			}
		}
	}
	return nil
}

// noDrops reads counters that never grow.
func noDrops(context.Context) (Drops, error) { return Drops{}, nil }

// touched is a probe by one of many.
func touched(what What, at time.Time, source string, port uint16) Event {
	a := netip.MustParseAddr(source)
	return Event{
		Time: at, What: what, Source: a, Port: Port{"tcp", port}, Kind: "connect", Blocked: within(a, 32, 64),
		Evidence: "proven", Origin: "decoy", Comment: "tcp/23 connect",
	}
}
