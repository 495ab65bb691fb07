package controller

import (
	"maps"
	"net/netip"
	"slices"
)

// never are the sources that no packet from another host can have: RFC 1122
// section 3.2.1.3, RFC 4291 sections 2.4, 2.5.5.2 and 2.7.
var never = map[netip.Prefix]string{
	netip.MustParsePrefix("0.0.0.0/8"):          "not an address of another host",
	netip.MustParsePrefix("127.0.0.0/8"):        "loopback",
	netip.MustParsePrefix("224.0.0.0/4"):        "multicast",
	netip.MustParsePrefix("255.255.255.255/32"): "broadcast",
	netip.MustParsePrefix("::/128"):             "not an address of another host",
	netip.MustParsePrefix("::1/128"):            "loopback",
	netip.MustParsePrefix("::ffff:0:0/96"):      "not an address of another host",
	netip.MustParsePrefix("ff00::/8"):           "multicast",
}

// An ignoreList finds the most special of many prefixes around an address, by
// one look-up for each prefix length that occurs.
type ignoreList struct {
	reasons      map[netip.Prefix]string
	bits4, bits6 []int // lengths that occur, longest first
}

// newIgnoreList joins lists of prefixes with reasons; the first one that has
// a prefix tells its reason.
func newIgnoreList(lists ...map[netip.Prefix]string) ignoreList {
	l := ignoreList{reasons: make(map[netip.Prefix]string)}
	for _, list := range lists {
		for p, reason := range list {
			if _, there := l.reasons[p]; !there {
				l.reasons[p] = reason
			}
		}
	}
	for p := range l.reasons {
		if p.Addr().Is4() {
			l.bits4 = append(l.bits4, p.Bits())
		} else {
			l.bits6 = append(l.bits6, p.Bits())
		}
	}
	l.bits4, l.bits6 = longestFirst(l.bits4), longestFirst(l.bits6)
	return l
}

func longestFirst(bits []int) []int {
	slices.Sort(bits)
	bits = slices.Compact(bits)
	slices.Reverse(bits)
	return bits
}

// find tells whether an address is ignored, by which prefix and why.
func (l ignoreList) find(a netip.Addr) (by netip.Prefix, reason string, ok bool) {
	return l.covers(netip.PrefixFrom(a, a.BitLen()))
}

// covers tells whether all of a prefix is ignored, by which one and why.
func (l ignoreList) covers(p netip.Prefix) (by netip.Prefix, reason string, ok bool) {
	bits := l.bits6
	if p.Addr().Is4() {
		bits = l.bits4
	}
	for _, n := range bits {
		if n > p.Bits() {
			continue
		}
		by, err := p.Addr().Prefix(n)
		if err != nil {
			continue
		}
		if reason, ok := l.reasons[by]; ok {
			return by, reason, true
		}
	}
	return netip.Prefix{}, "", false
}

// prefixes lists them in order.
func (l ignoreList) prefixes() []netip.Prefix {
	return slices.SortedFunc(maps.Keys(l.reasons), netip.Prefix.Compare)
}
