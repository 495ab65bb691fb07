package nft

import (
	"errors"
	"fmt"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// An UnsupportedError says what the running kernel lacks for the table.
type UnsupportedError struct {
	Feature string // in nft(8)'s words
	Module  string // the kernel module that brings it
	Err     error
}

// Error says what is missing, and what to do about it.
func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("this kernel has no %s for nftables: load the module %s (modprobe %s), or use a kernel that has it", e.Feature, e.Module, e.Module)
}

// Unwrap gives the kernel's own error.
func (e *UnsupportedError) Unwrap() error { return e.Err }

// A Feature is something that the table needs of the kernel.
type Feature struct {
	Name   string // in nft(8)'s words
	Module string // the kernel module that brings it
	Err    error  // why the kernel refuses it; nil if it does not
}

// A feature is something that kernels can be built without.
type feature struct {
	name, module string
	nat          bool // its place is a nat chain
	rule         func(b *builder) rule
}

// features lists what the table needs, the groundwork first.
// https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/net/netfilter/Kconfig
var features = []feature{
	{name: "tables and chains of the family inet", module: "nf_tables", rule: func(*builder) rule { return drop() }},
	{name: "sets that rules add to, with timeouts", module: "nf_tables", rule: func(b *builder) rule {
		b.addSet(b.sets.blocked4)
		return of(saddr(ipv4), add(b.sets.blocked4, time.Minute))
	}},
	{name: "interval sets with timeouts", module: "nf_tables", rule: func(b *builder) rule {
		b.addSet(b.sets.nets4)
		return saddrIn(ipv4, b.sets.nets4)
	}},
	{name: "concatenations", module: "nf_tables", rule: func(b *builder) rule {
		b.addSet(b.sets.served)
		return of(service(), in(b.sets.served))
	}},
	{name: "connection tracking (ct)", module: "nft_ct", rule: func(*builder) rule { return reply() }},
	{name: "ct timeout objects", module: "nfnetlink_cttimeout", rule: func(b *builder) rule { b.addBrief(briefs[0]); return nil }},
	{name: "limit statement", module: "nft_limit", rule: func(*builder) rule { return over(1) }},
	{name: "set elements with a limit", module: "nft_limit", rule: func(b *builder) rule {
		b.addSet(b.sets.suspects4)
		return of(saddr(ipv4), add(b.sets.suspects4, time.Minute, over(1)[0]))
	}},
	{name: "log statement with a group", module: "nfnetlink_log", rule: func(*builder) rule { return says(SaysProbe, 1) }},
	{name: "fib expression", module: "nft_fib_inet", rule: func(*builder) rule { return notLocal() }},
	{name: "socket expression", module: "nft_socket", rule: func(*builder) rule {
		return rule{&expr.Socket{Key: expr.SocketKeyWildcard, Register: reg1}}
	}},
	{name: "named counters", module: "nft_objref", rule: func(b *builder) rule {
		b.conn.AddObj(&nftables.NamedObj{Table: b.table, Name: counterDropped, Type: nftables.ObjTypeCounter, Obj: &expr.Counter{}})
		return count(counterDropped)
	}},
	{name: "reject statement", module: "nft_reject_inet", rule: func(*builder) rule { return rejectProhibited() }},
	{name: "nat chain with redirect", module: "nft_redir", nat: true, rule: func(*builder) rule {
		return of(l4proto(unix.IPPROTO_TCP), redirect(1))
	}},
}

func (b *builder) addSet(set *nftables.Set) { b.err = errors.Join(b.err, b.conn.AddSet(set, nil)) }

// Features tries one by one what the table needs of the kernel, in
// transactions that are thrown away: nothing is there at any time. The error
// is that the caller has no rights to find out.
func (t *Table) Features() ([]Feature, error) {
	var all []Feature
	for _, f := range features {
		err := t.dryRun(Config{Prefix6: t.cfg.Prefix6}, func(b *builder) error { return b.tryFeature(f) })
		if errors.Is(err, unix.EPERM) {
			return nil, err
		}
		all = append(all, Feature{f.name, f.module, err})
	}
	return all, nil
}

// Check tries the table of a configuration on the kernel without leaving
// anything there.
func (t *Table) Check(cfg Config) error {
	if err := cfg.validate(); err != nil {
		return err
	}
	err := t.dryRun(cfg, func(b *builder) error {
		return errors.Join(b.addTable(), b.addChains())
	})
	return t.explain(cfg, err)
}

// dryRun sends a transaction that the kernel checks to its last message and
// then throws away, since that message creates a table which the transaction
// itself has just made. The table of the dry run has a name of its own. Nothing
// of it is there at any time, however the program ends, and nobody is told.
func (t *Table) dryRun(cfg Config, fill func(*builder) error) error {
	err := t.transactAs(TableName+"_dry_run", cfg, func(b *builder) error {
		b.conn.AddTable(b.table)
		defer b.conn.CreateTable(b.table)
		return fill(b)
	})
	return errors.Join(besides(err, unix.EEXIST), t.hangUp())
}

// besides is what an error says besides an errno: the kernel checks a
// transaction to its end and tells of all that it refuses.
func besides(err error, errno unix.Errno) error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		if err == errno {
			return nil
		}
		return err
	}
	var rest []error
	for _, e := range joined.Unwrap() {
		rest = append(rest, besides(e, errno))
	}
	return errors.Join(rest...)
}

// explain turns the error of a transaction into an *UnsupportedError if the
// kernel turns out to lack a feature.
func (t *Table) explain(cfg Config, err error) error {
	if err == nil || errors.Is(err, unix.EPERM) {
		return err
	}
	for _, f := range features {
		try := t.dryRun(cfg, func(b *builder) error { return b.tryFeature(f) })
		if try != nil {
			return &UnsupportedError{Feature: f.name, Module: f.module, Err: try}
		}
	}
	return err
}

// tryFeature puts the rule of a feature where the table has such rules.
func (b *builder) tryFeature(f feature) error {
	exprs := f.rule(b)
	c := chain{name: "try", typ: nftables.ChainTypeFilter, hook: nftables.ChainHookPrerouting, priority: 0}
	if f.nat {
		c.typ = nftables.ChainTypeNAT
	}
	if exprs != nil {
		c.rules = []rule{exprs}
	}
	b.addChain(c)
	return b.err
}
