package state

import (
	"cmp"
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

// same tells whether a and b are one block, perhaps at different times of its life.
func same(a, b *Block) bool {
	return a != nil && b != nil && a.Source == b.Source && a.Since.Equal(b.Since)
}

// compare orders blocks by Since and then by Source.
func compare(a, b *Block) int {
	if c := a.Since.Compare(b.Since); c != 0 {
		return c
	}
	return compareSources(a.Source, b.Source)
}

// compareSources is [netip.Prefix.Compare] of sources, which are masked.
func compareSources(a, b netip.Prefix) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 {
		return c
	}
	return cmp.Compare(a.Bits(), b.Bits())
}

// sortBlocks puts the oldest first.
func sortBlocks(blocks []Block) {
	slices.SortFunc(blocks, func(a, b Block) int { return compare(&a, &b) })
}

// kept is b with its times as the store keeps them.
func (b Block) kept() Block {
	b.Since, b.Until = wall(b.Since), wall(b.Until)
	return b
}

// firstTime and lastTime bound what the store can keep.
var (
	firstTime = time.Unix(0, 0).UTC()
	lastTime  = time.Unix(maxSeconds, 0).UTC()
)

// wall is t as the store can keep it: the wall clock in UTC, to the nanosecond, from 1970 to 9999.
func wall(t time.Time) time.Time {
	t = t.Round(0).UTC()
	switch {
	case t.IsZero():
		return time.Time{}
	case t.Before(firstTime):
		return firstTime
	case t.After(lastTime):
		return lastTime
	}
	return t
}
