package nft

import (
	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// floodRate is how many new connections to decoy ports a second are let
// through to the listener, over all sources. What is above it is dropped
// before connection tracking remembers it.
const floodRate = 5000

// A chain is one of ours with its rules in order. Chains without a hook are
// entered by goto from others.
type chain struct {
	name     string
	typ      nftables.ChainType
	hook     *nftables.ChainHook
	priority nftables.ChainPriority
	rules    []rule
}

// chains lists the chains that the configuration asks for; a chain stands
// after those it goes to.
func (b *builder) chains() []chain {
	var all []chain
	if b.cfg.Enforce {
		all = append(all, b.refuseNew(), b.shieldSyn(), b.shieldNew(), b.refuse(), b.shield6(), b.shield())
	}
	if b.cfg.Port != 0 {
		all = append(all, b.divert(), b.lure())
	}
	return all
}

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
		of(saddrMaskedIn(ipv6, b.cfg.Prefix6, b.sets.blocked6), goTo("refuse_new")),
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
		of(saddrMaskedIn(ipv6, b.cfg.Prefix6, b.sets.blocked6), goTo("refuse")),
		of(saddrIn(ipv6, b.sets.nets6), goTo("refuse")),
	}}
}

// refuse lets pass what keeps the host on the net: replies to connections
// that it began itself, and neighbour discovery.
func (b *builder) refuse() chain {
	return chain{name: "refuse", rules: []rule{
		of(reply(), back()),
		of(icmpv6In(b.neighbour), back()),
		goTo("refuse_new"),
	}}
}

// lure leads connections to decoy ports to the one listener. It comes after
// dstnat, so that what another table has already led elsewhere, such as to a
// container, never reaches it.
func (b *builder) lure() chain {
	return chain{
		name: "lure", typ: nftables.ChainTypeNAT,
		hook: nftables.ChainHookPrerouting, priority: *nftables.ChainPriorityNATDest + 1,
		rules: []rule{of(tcpDport(b.sets.decoyTCP), goTo("divert"))},
	}
}

// divert has the reasons to leave a connection to a decoy port alone, first
// of all that a service owns the port.
func (b *builder) divert() chain {
	rules := []rule{
		of(opensConnection(expr.CmpOpNeq), back()),
		of(service(), in(b.sets.served), back()),
		of(socketIn(b.wildcard), service(), add(b.sets.served), back()),
		of(iifLo(), back()),
	}
	rules = append(rules, b.exceptInterfaces()...)
	return chain{name: "divert", rules: append(rules,
		of(notLocal(), back()),
		of(saddrIn(ipv4, b.sets.ignored4), back()),
		of(saddrIn(ipv6, b.sets.ignored6), back()),
		of(over(floodRate), count(counterFlooded), drop()),
		of(nfproto(ipv4), ctTimeout("brief4")),
		of(nfproto(ipv6), ctTimeout("brief6")),
		of(l4proto(unix.IPPROTO_TCP), redirect(b.cfg.Port)),
	)}
}

// addChains adds the configured chains to the transaction. A rule names the
// anonymous set that belongs to it by the number that AddSet gives it.
func (b *builder) addChains() error {
	if b.cfg.Enforce {
		if err := b.addNeighbour(); err != nil {
			return err
		}
	}
	if b.cfg.Port != 0 {
		if err := b.addWildcard(); err != nil {
			return err
		}
	}
	for _, c := range b.chains() {
		b.addChain(c)
	}
	return nil
}

func (b *builder) addChain(c chain) {
	ch := &nftables.Chain{Name: c.name, Table: b.table}
	if c.hook != nil {
		accept := nftables.ChainPolicyAccept
		ch.Type, ch.Hooknum, ch.Priority, ch.Policy = c.typ, c.hook, &c.priority, &accept
	}
	b.conn.AddChain(ch)
	for _, r := range c.rules {
		b.conn.AddRule(&nftables.Rule{Table: b.table, Chain: ch, Exprs: r})
	}
}

// addNeighbour adds the anonymous set of the ICMPv6 types of neighbour
// discovery, RFC 4861 section 4: without them a blocked router on the link
// takes the host off the net.
func (b *builder) addNeighbour() error {
	const routerAdvert, solicit, advert, redirect = 134, 135, 136, 137
	b.neighbour.Table, b.neighbour.Anonymous, b.neighbour.Constant = b.table, true, true
	b.neighbour.KeyType = nftables.TypeICMP6Type
	return b.conn.AddSet(b.neighbour, []nftables.SetElement{
		{Key: []byte{routerAdvert}}, {Key: []byte{solicit}}, {Key: []byte{advert}}, {Key: []byte{redirect}},
	})
}

// addWildcard adds the anonymous set { 0, 1 }: "socket wildcard" is 0 for a
// socket bound to one address and 1 for one bound to all.
func (b *builder) addWildcard() error {
	b.wildcard.Table, b.wildcard.Anonymous, b.wildcard.Constant = b.table, true, true
	b.wildcard.KeyType = nftables.TypeInteger
	b.wildcard.KeyType.Bytes = 1
	b.wildcard.KeyByteOrder = binaryutil.NativeEndian
	return b.conn.AddSet(b.wildcard, []nftables.SetElement{{Key: []byte{0}}, {Key: []byte{1}}})
}
