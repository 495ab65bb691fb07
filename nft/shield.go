package nft

import (
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// shieldNew drops the TCP connections that a blocked source tries to open
// before connection tracking sees them.
func (b *builder) shieldNew() chain {
	return chain{
		name: "shield_new", typ: nftables.ChainTypeFilter,
		hook: nftables.ChainHookPrerouting, priority: *nftables.ChainPriorityRaw - 10,
		rules: []rule{of(opensConnection(expr.CmpOpEq), goTo("shield_syn"))},
	}
}

func (b *builder) shieldSyn() chain {
	return chain{name: "shield_syn", rules: []rule{
		of(saddrIn(ipv4, b.sets.blocked4), goTo("refuse_new")),
		of(saddrIn(ipv6, b.sets.blocked6), goTo("refuse_new")),
		of(saddrMasked(ipv6, b.cfg.Prefix6), in(b.sets.blocked6), goTo("refuse_new")),
	}}
}

// refuseNew is the end of the way for what a blocked source sends; only here,
// where the honest never come, are the exceptions looked up.
func (b *builder) refuseNew() chain {
	rules := b.exceptInterfaces()
	rules = append(rules,
		of(saddrIn(ipv4, b.sets.ignored4), back()),
		of(saddrIn(ipv6, b.sets.ignored6), back()),
	)
	return chain{name: "refuse_new", rules: append(rules, b.refusal()...)}
}

func (b *builder) exceptInterfaces() []rule {
	var rules []rule
	for _, name := range b.cfg.IgnoredInterfaces {
		rules = append(rules, of(iifname(name), back()))
	}
	return rules
}

func (b *builder) refusal() []rule {
	if !b.cfg.Reject {
		return []rule{of(count(counterDropped), drop())}
	}
	return []rule{
		of(l4proto(unix.IPPROTO_TCP), count(counterDropped), rejectReset()),
		of(count(counterDropped), rejectProhibited()),
	}
}

// shield meets everything else: one look-up for the honest.
func (b *builder) shield() chain {
	return chain{
		name: "shield", typ: nftables.ChainTypeFilter,
		hook: nftables.ChainHookPrerouting, priority: *nftables.ChainPriorityMangle,
		rules: []rule{
			of(nfproto(ipv6), goTo("shield6")),
			of(saddrIn(ipv4, b.sets.blocked4), goTo("refuse")),
			of(saddrIn(ipv4, b.sets.nets4), goTo("refuse")),
		},
	}
}

func (b *builder) shield6() chain {
	return chain{name: "shield6", rules: []rule{
		of(saddrIn(ipv6, b.sets.blocked6), goTo("refuse")),
		of(saddrMasked(ipv6, b.cfg.Prefix6), in(b.sets.blocked6), goTo("refuse")),
		of(saddrIn(ipv6, b.sets.nets6), goTo("refuse")),
	}}
}

// refuse lets pass what keeps the host on the net: replies to connections
// that it began itself, and neighbour discovery.
func (b *builder) refuse() chain {
	return chain{name: "refuse", rules: []rule{
		of(reply(), back()),
		of(icmpv6In(b.neighbourDiscovery()), back()),
		goTo("refuse_new"),
	}}
}

// neighbourDiscovery is the anonymous set of the ICMPv6 types of neighbour
// discovery, RFC 4861 section 4: without them a blocked router on the link
// takes the host off the net.
func (b *builder) neighbourDiscovery() *nftables.Set {
	const routerAdvert, solicit, advert, redirect = 134, 135, 136, 137
	return b.anonymous(&nftables.Set{KeyType: nftables.TypeICMP6Type}, []nftables.SetElement{
		{Key: []byte{routerAdvert}}, {Key: []byte{solicit}}, {Key: []byte{advert}}, {Key: []byte{redirect}},
	})
}
