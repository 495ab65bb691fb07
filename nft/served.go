package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/google/nftables"
)

// MaxServed is how many services the table remembers.
const MaxServed = 4096

// A Service is a port that a service owns, or has owned lately.
type Service struct {
	Protocol byte          // by its IP protocol number, TCP or UDP
	Port     uint16        // 1 to 65535
	Timeout  time.Duration // how long from now its port is no tripwire; rounded up to whole seconds
}

// Served reads the services that the table remembers, in no order; there are
// none without a table.
func (t *Table) Served() ([]Service, error) {
	conn, err := t.connection()
	if err != nil {
		return nil, err
	}
	set := newBuilder(nil, TableName, t.cfg).sets.served
	present, err := t.presentSets(conn)
	if err != nil || present[set.Name] == nil || present[set.Name].KeyType.Name != set.KeyType.Name {
		return nil, err
	}
	raw, err := conn.GetSetElements(set)
	if err != nil {
		return nil, fmt.Errorf("list set %s: %w", set.Name, err)
	}
	var all []Service
	for _, e := range raw {
		if len(e.Key) == serviceKey {
			all = append(all, Service{Protocol: e.Key[0], Port: binary.BigEndian.Uint16(e.Key[4:]), Timeout: e.Expires})
		}
	}
	return all, nil
}

// Serve adds services, or begins their time anew. Errors: unix.ENOENT, when
// somebody has deleted the table; unix.ENFILE, when the set is full.
func (t *Table) Serve(services []Service) error {
	err := t.transact(func(b *builder) error {
		elems := serviceElements(services)
		set := b.sets.served
		// Before Linux 6.12 an element that is added again keeps its old time.
		return errors.Join(addElements(b.conn, set, elems), b.conn.SetDeleteElements(set, elems), addElements(b.conn, set, elems))
	})
	if err != nil {
		return fmt.Errorf("remember %d services: %w", len(services), err)
	}
	return nil
}

// serviceKey is the length of "protocol . port" in bytes: each part of a
// concatenation is padded to four.
const serviceKey = 8

// fillServed replaces the elements of the set of services. What does not fit
// is left out.
func (b *builder) fillServed(services []Service) error {
	b.conn.FlushSet(b.sets.served)
	return addElements(b.conn, b.sets.served, serviceElements(services[:min(len(services), MaxServed)]))
}

func serviceElements(services []Service) []nftables.SetElement {
	var elems []nftables.SetElement
	for _, s := range services {
		key := make([]byte, serviceKey)
		key[0] = s.Protocol
		binary.BigEndian.PutUint16(key[4:], s.Port)
		elems = append(elems, nftables.SetElement{Key: key, Timeout: seconds(s.Timeout)})
	}
	return elems
}
