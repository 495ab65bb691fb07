package nft

import (
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// shieldNew picks out the TCP packets that belong to no connection yet: all
// others have an ACK or a RST.
func (b *builder) shieldNew() chain {
	return chain{
		name: "shield_new", typ: nftables.ChainTypeFilter,
		hook: nftables.ChainHookPrerouting, priority: *nftables.ChainPriorityRaw - 10,
		rules: []rule{of(opensNothing(), goTo("shield_open"))},
	}
}

// shieldOpen drops the TCP connections that a blocked source tries to open
// before connection tracking sees them, and sends on what opens none.
func (b *builder) shieldOpen() chain {
	c := chain{name: "shield_open"}
	if b.cfg.Enforce {
		c.rules = append(c.rules,
			of(saddrIn(ipv4, b.sets.blocked4), goTo("refuse_new")),
			of(saddrIn(ipv6, b.sets.blocked6), goTo("refuse_new")),
			of(b.inBlockedPrefix(), goTo("refuse_new")),
		)
	}
	if !b.cfg.senses() {
		return c
	}
	c.rules = append(c.rules, of(opensConnection(expr.CmpOpEq), back()))
	if b.cfg.Enforce { // shield would be too late for these
		c.rules = append(c.rules,
			of(saddrIn(ipv4, b.sets.nets4), goTo("refuse_new")),
			of(saddrIn(ipv6, b.sets.nets6), goTo("refuse_new")),
		)
	}
	c.rules = append(c.rules, goTo("sense_odd"))
	return c
}

// inBlockedPrefix is for sources whose prefix is blocked. Neighbours, who may
// share it, are blocked one by one.
func (b *builder) inBlockedPrefix() rule {
	return of(saddrMasked(ipv6, b.cfg.Prefix6), in(b.sets.blocked6), saddrNotIn(ipv6, b.sets.onLink6))
}

// refuseNew is the end of the way for what a blocked source sends; only here,
// where the honest never come, are the exceptions looked up.
func (b *builder) refuseNew() chain {
	var rules []rule
	for _, name := range b.cfg.IgnoredInterfaces {
		rules = append(rules, of(iifname(name), back()))
	}
	rules = append(rules, b.unlessIgnored()...)
	return chain{name: "refuse_new", rules: append(rules, b.refusal()...)}
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
	c := chain{
		name: "shield", typ: nftables.ChainTypeFilter,
		hook: nftables.ChainHookPrerouting, priority: *nftables.ChainPriorityMangle,
		rules: []rule{of(nfproto(ipv6), goTo("shield6"))},
	}
	if b.cfg.Enforce {
		c.rules = append(c.rules,
			of(saddrIn(ipv4, b.sets.blocked4), goTo("refuse")),
			of(saddrIn(ipv4, b.sets.nets4), goTo("refuse")),
		)
	}
	c.rules = append(c.rules, b.sessions()...)
	return c
}

func (b *builder) shield6() chain {
	c := chain{name: "shield6"}
	if b.cfg.Enforce {
		c.rules = append(c.rules,
			of(saddrIn(ipv6, b.sets.blocked6), goTo("refuse")),
			of(b.inBlockedPrefix(), goTo("refuse")),
			of(saddrIn(ipv6, b.sets.nets6), goTo("refuse")),
		)
	}
	c.rules = append(c.rules, b.sessions()...)
	return c
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
