package state

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"
)

// A Service is a port that a service of this host owns, or has owned lately.
type Service struct {
	Protocol string    `json:"protocol"` // "tcp" or "udp"
	Port     uint16    `json:"port"`     // 1 to 65535
	Until    time.Time `json:"until"`    // how long it is remembered; wall clock, UTC
}

// servedKey is where the services are in metaBucket, as a JSON array.
var servedKey = []byte("served")

// Served returns the services that were saved last, those whose time is up included; the caller owns them. It is meant
// for the start: what is not committed yet is not in it, unless it is in
// memory only.
func (s *Store) Served() (services []Service, err error) {
	db := s.database()
	if db == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.served != nil {
			services = slices.Clone(*s.served)
		}
		return services, nil
	}
	err = db.view(func(tx *bolt.Tx) error {
		if value := tx.Bucket(metaBucket).Get(servedKey); value != nil {
			return json.Unmarshal(value, &services)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read services from %s: %w", storeName, err)
	}
	return services, nil
}

// SaveServed hands in the services to remember, in place of those saved before, and returns at once. The store owns
// the slice from now on.
func (s *Store) SaveServed(services []Service) {
	for i := range services {
		services[i].Until = wall(services[i].Until)
	}
	s.mu.Lock()
	s.served = &services
	s.mu.Unlock()
	s.wake()
}

// writeServed commits the services that were handed in, if there are any.
func (s *Store) writeServed() error {
	s.mu.Lock()
	services := s.served
	s.mu.Unlock()
	if services == nil {
		return nil
	}
	value, err := json.Marshal(*services)
	if err == nil {
		err = s.db.update(func(tx *bolt.Tx) error { return tx.Bucket(metaBucket).Put(servedKey, value) })
	}
	if err != nil {
		return fmt.Errorf("write services to %s: %w", storeName, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.served == services {
		s.served = nil
	}
	return nil
}
