package host

import (
	"net/netip"
	"slices"
)

// Facts is what the host is at one moment. Each part is sorted, without duplicates; addresses are unmapped and have no
// zone, and none is unspecified or a multicast group. The slices are shared and must not be changed.
type Facts struct {
	// Addresses are the host's own, those of loopback too.
	Addresses []netip.Addr
	// Gateways are the next hops of its routes.
	Gateways []netip.Addr
	// Resolvers are the name servers that it asks.
	Resolvers []netip.Addr
	// OnLink6 are the IPv6 prefixes of its own links, where neighbours are told apart one by one, and always
	// fe80::/10. None lies within another, so they fit into an interval set as they are.
	OnLink6 []netip.Prefix
}

// linkLocal6 is on each link (RFC 4291, section 2.4).
var linkLocal6 = netip.MustParsePrefix("fe80::/10")

// Equal reports whether f and g say the same.
func (f Facts) Equal(g Facts) bool {
	return slices.Equal(f.Addresses, g.Addresses) &&
		slices.Equal(f.Gateways, g.Gateways) &&
		slices.Equal(f.Resolvers, g.Resolvers) &&
		slices.Equal(f.OnLink6, g.OnLink6)
}

// addrSet collects addresses, each once.
type addrSet map[netip.Addr]struct{}

// add puts an address into the set as Facts have it, if it can be one of a host.
func (s addrSet) add(a netip.Addr) {
	if a = a.Unmap().WithZone(""); a.IsValid() && !a.IsUnspecified() && !a.IsMulticast() {
		s[a] = struct{}{}
	}
}

// sorted returns the addresses in order, nil if there are none.
func (s addrSet) sorted() []netip.Addr {
	var addrs []netip.Addr
	for a := range s {
		addrs = append(addrs, a)
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return addrs
}

// onLink6 returns what of the prefixes, and of fe80::/10, does not lie within another, in order.
func onLink6(prefixes []netip.Prefix) []netip.Prefix {
	all := []netip.Prefix{linkLocal6}
	for _, p := range prefixes {
		if p.IsValid() && p.Addr().Is6() && !p.Addr().Is4In6() && !p.IsSingleIP() {
			all = append(all, p.Masked())
		}
	}
	slices.SortFunc(all, netip.Prefix.Compare)
	var apart []netip.Prefix
	for _, p := range all {
		if n := len(apart); n == 0 || !apart[n-1].Overlaps(p) {
			apart = append(apart, p)
		}
	}
	return apart
}
