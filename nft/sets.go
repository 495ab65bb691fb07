package nft

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/google/nftables"
)

// sets are the named sets of the table.
type sets struct {
	blocked4, blocked6   *nftables.Set // hosts, by hash; each element counts what it drops
	nets4, nets6         *nftables.Set // prefixes, as disjoint intervals; likewise
	ignored4, ignored6   *nftables.Set
	onLink6              *nftables.Set // where IPv6 neighbours are
	peers4, peers6       *nftables.Set // who has a session
	decoyTCP             *nftables.Set
	watchTCP, watchUDP   *nftables.Set
	served               *nftables.Set // protocol . port where a service was seen
	probes4, probes6     *nftables.Set // source . protocol . port that was touched in the window
	suspects4, suspects6 *nftables.Set // a limiter for each source

	// whom the rules have put into blocked4 and blocked6: few, where those may
	// be too many to be listed
	convicted4, convicted6 *nftables.Set
}

// maxProbes is how many sources each set has room for that rules alone add to.
const maxProbes = 65536

// ServedMemory is how long a port where the kernel has seen a service is no
// tripwire.
const ServedMemory = 30 * 24 * time.Hour

// newSets names the sets, those of hosts for so many of them.
func newSets(t *nftables.Table, hosts int) sets {
	service := nftables.MustConcatSetType(nftables.TypeInetProto, nftables.TypeInetService)
	peers := func(f family) *nftables.Set {
		s := sources(t, "peers", f, f.keyType, maxProbes)
		s.Timeout = peerMemory
		return s
	}
	probes := func(f family) *nftables.Set {
		s := sources(t, "probes", f, nftables.MustConcatSetType(f.keyType, nftables.TypeInetProto, nftables.TypeInetService), maxProbes)
		s.Concatenation = true
		return s
	}
	return sets{
		blocked4: sources(t, "blocked", ipv4, ipv4.keyType, uint32(hosts)), blocked6: sources(t, "blocked", ipv6, ipv6.keyType, uint32(hosts)),
		nets4: nets(t, ipv4), nets6: nets(t, ipv6),
		ignored4: ignored(t, "ignored4", ipv4), ignored6: ignored(t, "ignored6", ipv6), onLink6: ignored(t, "onlink6", ipv6),
		peers4: peers(ipv4), peers6: peers(ipv6),
		decoyTCP: ports(t, "decoy_tcp"), watchTCP: ports(t, "watch_tcp"), watchUDP: ports(t, "watch_udp"),
		served: &nftables.Set{
			Table: t, Name: "served", KeyType: service, Concatenation: true,
			Dynamic: true, HasTimeout: true, Timeout: ServedMemory, Size: MaxServed,
		},
		probes4: probes(ipv4), probes6: probes(ipv6),
		suspects4: sources(t, "suspects", ipv4, ipv4.keyType, maxProbes), suspects6: sources(t, "suspects", ipv6, ipv6.keyType, maxProbes),
		convicted4: sources(t, "convicted", ipv4, ipv4.keyType, maxProbes), convicted6: sources(t, "convicted", ipv6, ipv6.keyType, maxProbes),
	}
}

// sources is a set that rules add to, with a timeout for each element.
func sources(t *nftables.Table, name string, f family, key nftables.SetDatatype, size uint32) *nftables.Set {
	return &nftables.Set{Table: t, Name: name + f.suffix, KeyType: key, Dynamic: true, HasTimeout: true, Size: size}
}

func ports(t *nftables.Table, name string) *nftables.Set {
	return &nftables.Set{Table: t, Name: name, KeyType: nftables.TypeInetService, Interval: true}
}

func nets(t *nftables.Table, f family) *nftables.Set {
	return &nftables.Set{Table: t, Name: "nets" + f.suffix, KeyType: f.keyType, Interval: true, HasTimeout: true, Counter: true}
}

func ignored(t *nftables.Table, name string, f family) *nftables.Set {
	return &nftables.Set{Table: t, Name: name, KeyType: f.keyType, Interval: true, AutoMerge: true}
}

// all lists the sets in the order in which nft(8) shows them.
func (s sets) all() []*nftables.Set {
	return []*nftables.Set{
		s.blocked4, s.blocked6, s.nets4, s.nets6, s.ignored4, s.ignored6, s.onLink6, s.peers4, s.peers6,
		s.decoyTCP, s.watchTCP, s.watchUDP, s.served, s.probes4, s.probes6, s.suspects4, s.suspects6,
		s.convicted4, s.convicted6,
	}
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

// portIntervals is interval for lists of ports, which are big-endian.
func portIntervals(ports []PortRange) []nftables.SetElement {
	var elems []nftables.SetElement
	for _, r := range ports {
		elems = append(elems, nftables.SetElement{Key: binary.BigEndian.AppendUint16(nil, r.First)})
		if r.Last < 65535 {
			elems = append(elems, nftables.SetElement{Key: binary.BigEndian.AppendUint16(nil, r.Last+1), IntervalEnd: true})
		}
	}
	return elems
}
