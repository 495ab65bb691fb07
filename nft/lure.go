package nft

import (
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Priorities after all that may lead a connection elsewhere: Docker does so at
// dstnat, firewalld at dstnat + 10. A connection that another nat chain has
// translated is not seen by those after it.
var (
	priorityLure  = *nftables.ChainPriorityNATDest + 50
	prioritySense = *nftables.ChainPriorityNATDest + 51
)

// lure leads connections to decoy ports to the one listener.
func (b *builder) lure() chain {
	return chain{
		name: "lure", typ: nftables.ChainTypeNAT, hook: nftables.ChainHookPrerouting, priority: priorityLure,
		rules: []rule{of(tcpDport(b.sets.decoyTCP), goTo("divert"))},
	}
}

// divert has the reasons to leave a connection to a decoy port alone, first
// of all that a service owns the port. What is left is a probe, and counts as
// one: a connection that is never completed leaves no other trace.
func (b *builder) divert() chain {
	rules := []rule{of(opensConnection(expr.CmpOpNeq), back())}
	rules = append(rules, b.unlessServed()...)
	rules = append(rules, of(notLocal(), back()))
	rules = append(rules, b.unlessIgnored()...)
	rules = append(rules, b.unlessFlooded(b.cfg.DecoyRate, unix.IPPROTO_TCP)...)
	return chain{name: "divert", rules: append(rules,
		jump("count"),
		of(l4proto(unix.IPPROTO_TCP), redirect(b.cfg.Port)),
	)}
}

// own remembers where a service was seen. A port from which the host itself
// asks by UDP serves nobody. Where the set is full the service is left alone
// all the same.
func (b *builder) own() chain {
	c := chain{name: "own"}
	if e := b.cfg.Ephemeral; e.First != 0 {
		c.rules = append(c.rules, of(udpPortIn(dstPort, e), back()))
	}
	c.rules = append(c.rules, of(service(), add(b.sets.served, 0), back()), goTo("crowded"))
	return c
}

// hidden counts what is sent to the listener's own port by who has not been
// led there.
func (b *builder) hidden() chain {
	rules := append(b.unlessSelf(), b.unlessIgnored()...)
	return chain{name: "hidden", rules: append(rules, goTo("notice"))}
}

// hide makes the listener's own port look like one that nobody serves: it
// would give the decoys away.
func (b *builder) hide() []rule {
	return []rule{of(tcpDportIs(b.cfg.Port), jump("hidden")), of(tcpDportIs(b.cfg.Port), rejectReset())}
}

// unlessServed leaves ports alone that a service owns or has owned lately,
// and what the host sends to itself.
func (b *builder) unlessServed() []rule {
	rules := []rule{
		of(service(), in(b.sets.served), back()),
		of(socketIn(b.anySocket()), goTo("own")),
	}
	return append(rules, b.unlessSelf()...)
}

// unlessSelf leaves alone what the host sends to itself, what is sent in its
// name, and what arrives by an ignored interface.
func (b *builder) unlessSelf() []rule {
	rules := []rule{of(iifLo(), back()), of(fromHost(), back())}
	for _, name := range b.cfg.IgnoredInterfaces {
		rules = append(rules, of(iifname(name), back()))
	}
	return rules
}

func (b *builder) unlessIgnored() []rule {
	return []rule{
		of(saddrIn(ipv4, b.sets.ignored4), back()),
		of(saddrIn(ipv6, b.sets.ignored6), back()),
	}
}

// unlessFlooded drops what connection tracking could not bear to remember, and
// makes it forget the rest in seconds.
func (b *builder) unlessFlooded(rate uint32, protocols ...byte) []rule {
	rules := []rule{of(over(rate), count(counterFlooded), drop())}
	for _, br := range briefs {
		if !slices.Contains(protocols, br.l4proto) {
			continue
		}
		rules = append(rules, of(nfproto(br.family), l4proto(br.l4proto), ctTimeout(br.name)))
	}
	return rules
}

// anySocket is the anonymous set { 0, 1 }: "socket wildcard" is 0 for a
// socket bound to one address and 1 for one bound to all.
func (b *builder) anySocket() *nftables.Set {
	set := &nftables.Set{KeyType: nftables.TypeInteger, KeyByteOrder: binaryutil.NativeEndian}
	set.KeyType.Bytes = 1
	return b.anonymous(set, []nftables.SetElement{{Key: []byte{0}}, {Key: []byte{1}}})
}
