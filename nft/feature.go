package nft

import (
	"errors"
	"fmt"

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

// A feature is something that kernels can be built without.
type feature struct {
	name, module string
	rule         func(b *builder) rule
}

// features lists what the table needs beyond nf_tables itself, whose dynamic
// sets, lookups and payload expressions are always there.
// https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/net/netfilter/Kconfig
var features = []feature{
	{"connection tracking (ct)", "nft_ct", func(*builder) rule { return reply() }},
	{"ct timeout objects", "nfnetlink_cttimeout", func(b *builder) rule { b.addBrief(briefs[0]); return nil }},
	{"limit statement", "nft_limit", func(*builder) rule { return over(1) }},
	{"log statement with a group", "nfnetlink_log", func(*builder) rule { return says(SaysProbe, 1) }},
	{"fib expression", "nft_fib_inet", func(*builder) rule { return notLocal() }},
	{"socket expression", "nft_socket", func(*builder) rule {
		return rule{&expr.Socket{Key: expr.SocketKeyWildcard, Register: reg1}}
	}},
	{"named counters", "nft_objref", func(b *builder) rule {
		b.conn.AddObj(&nftables.NamedObj{Table: b.table, Name: counterDropped, Type: nftables.ObjTypeCounter, Obj: &expr.Counter{}})
		return count(counterDropped)
	}},
	{"reject statement", "nft_reject_inet", func(*builder) rule { return rejectProhibited() }},
	{"nat chain with redirect", "nft_redir", func(*builder) rule { return of(l4proto(unix.IPPROTO_TCP), redirect(1)) }},
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
// itself has just made. The table of the dry run has a name of its own.
func (t *Table) dryRun(cfg Config, fill func(*builder) error) error {
	err := t.transactAs(TableName+"_dry_run", cfg, func(b *builder) error {
		b.conn.AddTable(b.table)
		defer b.conn.CreateTable(b.table)
		return fill(b)
	})
	closeErr := t.hangUp()
	for _, errno := range refusals {
		if errors.Is(err, errno) {
			return errors.Join(err, closeErr)
		}
	}
	if errors.Is(err, unix.EEXIST) {
		return closeErr
	}
	return errors.Join(err, closeErr)
}

// refusals are the errors by which the kernel says that it does not know or
// allow something.
var refusals = []error{
	unix.EPERM, unix.ENOENT, unix.EINVAL, unix.EOPNOTSUPP, unix.EAFNOSUPPORT, unix.EPROTONOSUPPORT, unix.EPROTOTYPE,
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

// tryFeature puts the rule of a feature where the table has such rules: all
// of them work in the nat chain.
func (b *builder) tryFeature(f feature) error {
	exprs := f.rule(b)
	c := chain{name: "try", typ: nftables.ChainTypeNAT, hook: nftables.ChainHookPrerouting, priority: 0}
	if exprs != nil {
		c.rules = []rule{exprs}
	}
	b.addChain(c)
	return nil
}
