package nft

import (
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

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
// of all that a service owns the port. What is left is a probe, and counts as
// one: a connection that is never completed leaves no other trace.
func (b *builder) divert() chain {
	rules := []rule{of(opensConnection(expr.CmpOpNeq), back())}
	rules = append(rules, b.unlessServed()...)
	rules = append(rules, of(notLocal(), back()))
	rules = append(rules, b.unlessIgnored(back())...)
	rules = append(rules, b.unlessFlooded(unix.IPPROTO_TCP)...)
	return chain{name: "divert", rules: append(rules,
		jump("count"),
		of(l4proto(unix.IPPROTO_TCP), redirect(b.cfg.Port)),
	)}
}

// own remembers where a service was seen. It is a chain of its own because a
// set that is full ends the rule: the service is to be left alone all the same.
func (b *builder) own() chain {
	return chain{name: "own", rules: []rule{of(service(), add(b.sets.served, 0))}}
}

// hidden makes the listener's own port look like one that nobody serves to
// who has not been led there: it would give the decoys away.
func (b *builder) hidden() []chain {
	closed := goTo("closed")
	rules := append(b.unlessSelf(closed), b.unlessIgnored(closed)...)
	rules = append(rules, b.unlessFlooded(unix.IPPROTO_TCP)...)
	return []chain{
		{name: "closed", rules: []rule{of(l4proto(unix.IPPROTO_TCP), rejectReset())}},
		{name: "hidden", rules: append(rules, jump("count"), closed)},
	}
}

// unlessServed leaves ports alone that a service owns or has owned lately,
// and what the host sends to itself.
func (b *builder) unlessServed() []rule {
	rules := []rule{
		of(service(), in(b.sets.served), back()),
		of(socketIn(b.anySocket()), goTo("own")),
	}
	return append(rules, b.unlessSelf(back())...)
}

// unlessSelf has another way for what the host sends to itself, for what is
// sent in its name, and for what arrives by an ignored interface.
func (b *builder) unlessSelf(way rule) []rule {
	rules := []rule{of(iifLo(), way), of(fromHost(), way)}
	for _, name := range b.cfg.IgnoredInterfaces {
		rules = append(rules, of(iifname(name), way))
	}
	return rules
}

// unlessIgnored has another way for ignored sources.
func (b *builder) unlessIgnored(way rule) []rule {
	return []rule{
		of(saddrIn(ipv4, b.sets.ignored4), way),
		of(saddrIn(ipv6, b.sets.ignored6), way),
	}
}

// unlessFlooded drops what connection tracking could not bear to remember, and
// makes it forget the rest in seconds.
func (b *builder) unlessFlooded(protocols ...byte) []rule {
	rules := []rule{of(over(b.cfg.FloodRate), count(counterFlooded), drop())}
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
