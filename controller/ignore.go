package controller

import (
	"net/netip"

	"github.com/gaissmai/bart"
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

// An ignoreList finds the most special of many prefixes around an address:
// those of the configuration and of the host, and those listed in files.
type ignoreList struct {
	few    *bart.Table[string] // each with its reason
	listed *Listed             // nil for none
}

// newIgnoreList joins lists of prefixes with reasons, and what files list; the
// first one that has a prefix tells its reason.
func newIgnoreList(listed *Listed, lists ...map[netip.Prefix]string) ignoreList {
	l := ignoreList{new(bart.Table[string]), listed}
	for _, list := range lists {
		for p, reason := range list {
			if _, there := l.few.Get(p); !there {
				l.few.Insert(p, reason)
			}
		}
	}
	return l
}

// find tells whether an address is ignored, by which prefix and why.
func (l ignoreList) find(a netip.Addr) (by netip.Prefix, reason string, ok bool) {
	return l.covers(netip.PrefixFrom(a, a.BitLen()))
}

// covers tells whether all of a prefix is ignored, by which one and why.
func (l ignoreList) covers(p netip.Prefix) (by netip.Prefix, reason string, ok bool) {
	by, reason, ok = l.few.LookupPrefixLPM(p)
	if listed, at, found := l.listed.covers(p); found && (!ok || listed.Bits() > by.Bits()) {
		return listed, l.listed.reason(at), true
	}
	return by, reason, ok
}

// prefixes lists them, those of files last, each part in order.
func (l ignoreList) prefixes() []netip.Prefix {
	var out []netip.Prefix
	for p := range l.few.AllSorted() {
		out = append(out, p)
	}
	if l.listed != nil {
		out = append(out, l.listed.prefixes...)
	}
	return out
}

// size is how many there are.
func (l ignoreList) size() int { return l.few.Size() + l.listed.Size() }
