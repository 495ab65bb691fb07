package nft

import (
	"errors"

	"github.com/google/nftables"
)

// A chain is one of ours with its rules in order. Chains without a hook are
// entered from others.
type chain struct {
	name     string
	typ      nftables.ChainType
	hook     *nftables.ChainHook
	priority nftables.ChainPriority
	rules    []rule
}

// chains lists the chains that the configuration asks for; a chain stands
// after those it goes to. It adds the anonymous sets of their rules to the
// transaction.
func (b *builder) chains() []chain {
	var all []chain
	if b.cfg.senses() {
		all = append(all, b.counting()...)
		all = append(all, b.own(), b.notice(), b.hidden(), b.sensePort(), b.senseOdd(), b.senseSession())
	}
	if b.cfg.Enforce {
		all = append(all, b.refuseNew(), b.refuse())
	}
	if b.cfg.Enforce || b.cfg.senses() {
		all = append(all, b.shieldOpen(), b.shieldNew(), b.shield6(), b.shield())
	}
	if b.cfg.lures() {
		all = append(all, b.divert(), b.lure())
	}
	if b.cfg.senses() {
		all = append(all, b.sensing()...)
	}
	return all
}

// addChains adds the configured chains to the transaction.
func (b *builder) addChains() error {
	for _, c := range b.chains() {
		b.addChain(c)
	}
	return b.err
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

// anonymous adds a constant set to the transaction which lives as long as the
// one rule that names it.
func (b *builder) anonymous(set *nftables.Set, elems []nftables.SetElement) *nftables.Set {
	set.Table, set.Anonymous, set.Constant = b.table, true, true
	b.err = errors.Join(b.err, b.conn.AddSet(set, elems))
	return set
}
