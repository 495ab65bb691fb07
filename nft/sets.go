package nft

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/google/nftables"
)

// sets are the named sets of the table.
type sets struct {
	blocked4, blocked6 *nftables.Set // hosts, by hash
	nets4, nets6       *nftables.Set // prefixes, as disjoint intervals
	ignored4, ignored6 *nftables.Set
	decoyTCP           *nftables.Set
	served             *nftables.Set // protocol . port where a service was seen
}

const (
	maxServed    = 4096
	servedMemory = 30 * 24 * time.Hour
)

func newSets(t *nftables.Table) sets {
	service := nftables.MustConcatSetType(nftables.TypeInetProto, nftables.TypeInetService)
	return sets{
		blocked4: hosts(t, ipv4), blocked6: hosts(t, ipv6),
		nets4: nets(t, ipv4), nets6: nets(t, ipv6),
		ignored4: ignored(t, ipv4), ignored6: ignored(t, ipv6),
		decoyTCP: &nftables.Set{Table: t, Name: "decoy_tcp", KeyType: nftables.TypeInetService, Interval: true},
		served: &nftables.Set{
			Table: t, Name: "served", KeyType: service, Concatenation: true,
			Dynamic: true, HasTimeout: true, Timeout: servedMemory, Size: maxServed,
		},
	}
}

func hosts(t *nftables.Table, f family) *nftables.Set {
	return &nftables.Set{Table: t, Name: "blocked" + f.suffix, KeyType: f.keyType, Dynamic: true, HasTimeout: true, Size: MaxHosts}
}

func nets(t *nftables.Table, f family) *nftables.Set {
	return &nftables.Set{Table: t, Name: "nets" + f.suffix, KeyType: f.keyType, Interval: true, HasTimeout: true}
}

func ignored(t *nftables.Table, f family) *nftables.Set {
	return &nftables.Set{Table: t, Name: "ignored" + f.suffix, KeyType: f.keyType, Interval: true, AutoMerge: true}
}

// all lists the sets in the order in which nft(8) shows them.
func (s sets) all() []*nftables.Set {
	return []*nftables.Set{s.blocked4, s.blocked6, s.nets4, s.nets6, s.ignored4, s.ignored6, s.decoyTCP, s.served}
}

// interval is the pair of elements that stands for the addresses from first
// to last. Nothing ends an interval that reaches the highest address.
func interval(first, last netip.Addr, timeout time.Duration, comment string) []nftables.SetElement {
	elems := []nftables.SetElement{{Key: first.AsSlice(), Timeout: timeout, Comment: comment}}
	if end := last.Next(); end.IsValid() {
		elems = append(elems, nftables.SetElement{Key: end.AsSlice(), IntervalEnd: true})
	}
	return elems
}

// portInterval is interval for ports, which are big-endian.
func portInterval(r PortRange) []nftables.SetElement {
	elems := []nftables.SetElement{{Key: binary.BigEndian.AppendUint16(nil, r.First)}}
	if r.Last < 65535 {
		elems = append(elems, nftables.SetElement{Key: binary.BigEndian.AppendUint16(nil, r.Last+1), IntervalEnd: true})
	}
	return elems
}
