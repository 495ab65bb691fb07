package state

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Origin is who asked for a block.
type Origin string

// The origins of blocks.
const (
	OriginDecoy    Origin = "decoy"    // a connection to a decoy
	OriginKernel   Origin = "kernel"   // the rules in the kernel, by themselves
	OriginOperator Origin = "operator" // a person
	OriginImport   Origin = "import"   // another program's files
	OriginFleet    Origin = "fleet"    // another host
)

// Block is our record of one blocked source. Since and Source together are its identity: the same source blocked again
// has another Since. Times are kept to the nanosecond, from 1970 to 9999; those that come from the store are wall clock
// times in UTC.
type Block struct {
	Source   netip.Prefix // what is blocked, a full-length prefix for one address; valid, masked, unmapped, no zone
	Address  netip.Addr   // the address that was seen, as an IPv6 source is blocked by its /64; zero for none
	Since    time.Time    // when it began
	Until    time.Time    // when it ends, or when it ended; zero for never
	Strikes  int          // earlier blocks of the source that still counted
	Port     uint16       // the destination port that made the block; 0 for none
	Protocol string       // "tcp", "udp" or "" for none
	Kind     string       // the scan kind, such as "connect" or "syn"; "" for none
	Evidence string       // "proven", "unproven" or "" for none
	Origin   Origin       // who asked for it
	Comment  string       // as the element in the kernel's set carries it
}

// record is a block as nftsentry.db holds it: JSON, under the source as text. Fields may be added, as unknown ones are
// passed over; a change of meaning needs another format, see db.go.
type record struct {
	Address  netip.Addr `json:"address,omitzero"`
	Since    time.Time  `json:"since"`
	Until    time.Time  `json:"until,omitzero"`
	Strikes  int        `json:"strikes,omitempty"`
	Port     uint16     `json:"port,omitempty"`
	Protocol string     `json:"protocol,omitempty"`
	Kind     string     `json:"kind,omitempty"`
	Evidence string     `json:"evidence,omitempty"`
	Origin   Origin     `json:"origin,omitempty"`
	Comment  string     `json:"comment,omitempty"`
}

// encode gives the key and the value of b.
func encode(b Block) (key, value []byte, err error) {
	value, err = json.Marshal(record{b.Address, b.Since, b.Until, b.Strikes, b.Port, b.Protocol,
		b.Kind, b.Evidence, b.Origin, b.Comment})
	return []byte(b.Source.String()), value, err
}

// decode is the reverse of encode; the block shares no memory with key and value.
func decode(key, value []byte) (Block, error) {
	source, err := netip.ParsePrefix(string(key))
	if err != nil {
		return Block{}, fmt.Errorf("record %q: %w", key, err)
	}
	var r record
	if !r.quick(value) {
		r = record{}
		if err := json.Unmarshal(value, &r); err != nil {
			return Block{}, fmt.Errorf("record %q: %w", key, err)
		}
	}
	return Block{source, r.Address, r.Since, r.Until, r.Strikes, r.Port, r.Protocol,
		r.Kind, r.Evidence, r.Origin, r.Comment}, nil
}

// same tells whether a and b are one block, perhaps at different times of its life.
func same(a, b *Block) bool {
	return a != nil && b != nil && a.Source == b.Source && a.Since.Equal(b.Since)
}

// compare orders blocks by Since and then by Source.
func compare(a, b *Block) int {
	return cmp.Or(a.Since.Compare(b.Since), a.Source.Compare(b.Source))
}

// sortBlocks puts the oldest first.
func sortBlocks(blocks []Block) {
	slices.SortFunc(blocks, func(a, b Block) int { return compare(&a, &b) })
}

// wall is t as the store can keep it: the wall clock in UTC, to the nanosecond, in the years that RFC 3339 has.
func wall(t time.Time) time.Time {
	t = t.Round(0).UTC()
	switch first, last := time.Unix(0, 0).UTC(), time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC); {
	case t.IsZero():
		return time.Time{}
	case t.Before(first):
		return first
	case t.After(last):
		return last
	}
	return t
}
