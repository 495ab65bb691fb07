package nft

import (
	"errors"
	"fmt"
	"iter"
	"math/bits"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// How many hosts go into a transaction: up to atOnce, all that the default
// configuration has room for, are loaded by one, which has some 7 MB. More come
// in pieces, which take less memory.
const (
	atOnce = 2 * DefaultHosts
	piece  = 8192
)

// standInName is the table that blocks while ours is filled anew with more
// hosts than one transaction takes.
const standInName = TableName + "_stand_in"

// ErrUnlike means that the table is not one that can be kept: there is none, it
// blocks IPv6 sources by other prefixes, a set has another size that the kernel
// cannot change, or a Load was not finished. Load makes it anew.
var ErrUnlike = errors.New("the table is not one to be kept")

// BlockAll is Block for any number of elements, which it goes through several
// times. More than 8,192 hosts come in several transactions: after an error
// some of them may be blocked.
func (t *Table) BlockAll(elems iter.Seq[Element]) error {
	if err := t.block(elems, piece); err != nil {
		return fmt.Errorf("block sources: %w", err)
	}
	return nil
}

// Configure is Load for a table whose blocks are as they should be: they stay in
// their sets, untouched, and all else becomes what the configuration says, in
// one transaction. Another number of hosts is set right before it.
//
// Errors: those of Load; ErrUnlike, and then nothing has changed but perhaps
// that number.
func (t *Table) Configure(cfg Config, served []Service) error {
	if err := cfg.validate(); err != nil {
		return err
	}
	old := t.cfg
	t.cfg = cfg
	err := t.keepable(old)
	if err == nil {
		err = t.transform(func(b *builder, chains []string) error {
			b.removeChains(chains)
			err := b.addTable()
			if served != nil {
				err = errors.Join(err, b.fillServed(served))
			}
			return errors.Join(err, b.addChains())
		})
	}
	if err != nil {
		t.cfg = old
		if !errors.Is(err, ErrUnlike) {
			err = t.explain(cfg, err)
		}
	}
	return err
}

// keepable is why the table cannot be kept; nil if it can.
func (t *Table) keepable(old Config) error {
	conn, err := t.connection()
	if err != nil {
		return err
	}
	asleep, err := t.dormant()
	if err != nil {
		return err
	}
	unfinished, err := exists(conn, standInName)
	if err != nil {
		return err
	}
	present, err := t.presentSets(conn)
	if err != nil {
		return err
	}
	for _, set := range newBuilder(nil, TableName, t.cfg).blockSets() {
		if is := present[set.Name]; is == nil || is.KeyType.Name != set.KeyType.Name {
			return fmt.Errorf("set %s: %w", set.Name, ErrUnlike)
		}
	}
	prefix6, err := t.prefix6(conn, old)
	if err != nil {
		return err
	}
	fits, err := t.fit()
	switch {
	case err != nil:
		return err
	case asleep || unfinished || !fits || prefix6 != t.cfg.Prefix6:
		return ErrUnlike
	}
	return nil
}

// prefix6 is by how many bits the rules of the table that is there look IPv6
// sources up; those of old if no rule does.
func (t *Table) prefix6(conn *nftables.Conn, old Config) (int, error) {
	rules, err := conn.GetRules(newBuilder(nil, TableName, t.cfg).table, &nftables.Chain{Name: "shield6"})
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return 0, fmt.Errorf("list rules: %w", err)
	}
	for _, r := range rules {
		for _, e := range r.Exprs {
			if mask, ok := e.(*expr.Bitwise); ok && len(mask.Mask) == int(ipv6.bytes) {
				return ones(mask.Mask), nil
			}
		}
	}
	return old.Prefix6, nil
}

// ones is how many bits a mask begins with.
func ones(mask []byte) (n int) {
	for _, b := range mask {
		n += bits.LeadingZeros8(^b)
	}
	return n
}

// fit gives the sets of hosts that are there the size of the configuration. It
// comes before all else, since the kernel takes a larger size into account only
// when the transaction is over. It is false if they have another shape, or if
// the kernel leaves the size of a set as it is, as before Linux 6.5.
func (t *Table) fit() (fits bool, err error) {
	for range 2 {
		conn, err := t.connection()
		if err != nil {
			return false, err
		}
		present, err := t.presentSets(conn)
		if err != nil {
			return false, err
		}
		var other []*nftables.Set
		b := newBuilder(nil, TableName, t.cfg)
		for _, set := range []*nftables.Set{b.sets.blocked4, b.sets.blocked6} {
			if is := present[set.Name]; is != nil && is.Size != set.Size {
				other = append(other, set)
			}
		}
		if len(other) == 0 {
			return true, nil
		}
		t.shape = shape{}
		err = t.transact(func(b *builder) error {
			return errors.Join(b.conn.AddSet(b.sets.blocked4, nil), b.conn.AddSet(b.sets.blocked6, nil))
		})
		if err != nil {
			return false, ignoreOther(err)
		}
	}
	return false, nil
}

// ignoreOther passes over that a set has another shape.
func ignoreOther(err error) error {
	if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EBUSY) {
		return nil
	}
	return err
}

// loadMany is Load for more hosts than one transaction takes: a table of
// another name that only blocks is filled first, and goes when ours is full.
// Where there is none yet nothing has to be kept up meanwhile.
func (t *Table) loadMany(hosts iter.Seq[Element], served []Service, afresh bool) error {
	conn, err := t.connection()
	if err != nil {
		return err
	}
	there, err := exists(conn, TableName)
	if err != nil {
		return err
	}
	if there && t.cfg.Enforce {
		if err := t.standIn(hosts); err != nil {
			return fmt.Errorf("fill the table that stands in: %w", err)
		}
	}
	if err := t.replace(none, served, afresh); err != nil {
		return err
	}
	if err := t.putMany(TableName, hosts); err != nil {
		return err
	}
	return errors.Join(t.verifyNets(), t.dismiss())
}

// standIn makes the table that blocks in place of ours, and fills it. One that
// is there already, since its Load has failed, goes on blocking meanwhile.
func (t *Table) standIn(hosts iter.Seq[Element]) error {
	chains, err := t.presentChains(standInName)
	if err != nil {
		return err
	}
	build := func(afresh bool) error {
		return t.transactAs(standInName, t.cfg.blocking(), func(b *builder) error {
			b.conn.AddTable(b.table)
			if afresh {
				b.conn.DelTable(b.table)
			} else {
				b.removeChains(chains)
			}
			return errors.Join(b.addTable(), b.fillNets(t.nets), b.addChains())
		})
	}
	if err = build(false); err != nil && ignoreOther(err) == nil {
		err = build(true)
	}
	if err != nil {
		return err
	}
	return t.putMany(standInName, hosts)
}

// blocking is the configuration of a table that blocks and does nothing else.
func (c Config) blocking() Config {
	return Config{
		Enforce: true, Reject: c.Reject, Hosts: c.Hosts, Prefix6: c.Prefix6, OnLink6: c.OnLink6, Ignored: c.Ignored, IgnoredInterfaces: c.IgnoredInterfaces,
	}
}

// dismiss takes the table away that stood in, if there is one.
func (t *Table) dismiss() error {
	conn, err := t.connection()
	if err != nil {
		return err
	}
	there, err := exists(conn, standInName)
	if err != nil || !there {
		return err
	}
	return t.transactAs(standInName, t.cfg, (*builder).deleteTable)
}

// putMany puts hosts into a table in several transactions, and looks for some of
// each in ours.
func (t *Table) putMany(table string, hosts iter.Seq[Element]) error {
	some, counted := make([]Element, 0, piece), mostCounted
	put := func() error {
		began := time.Now()
		err := t.putPiece(table, some, counted)
		if err == nil && table == TableName {
			err = t.verifyHosts(sample(slices.Values(some), len(some)), began)
		}
		some, counted = some[:0], 0
		return err
	}
	for e := range hosts {
		if some = append(some, e); len(some) < piece {
			continue
		}
		if err := put(); err != nil {
			return err
		}
	}
	return put()
}

// putPiece is put for some hosts, in halves where they are more than a socket
// takes: see tooLong.
func (t *Table) putPiece(table string, hosts []Element, counted int) error {
	err := t.put(table, slices.Values(hosts), len(hosts), counted, nil)
	if half := len(hosts) / 2; errors.Is(err, unix.EMSGSIZE) && half > 0 {
		if err = t.putPiece(table, hosts[:half], counted); err == nil {
			err = t.putPiece(table, hosts[half:], 0)
		}
	}
	return err
}

// put puts so many hosts into a table in one transaction, with what else fill
// adds to it; some of each family may count what they drop. Of many it tries first whether none of them is there, which takes
// a third of the time.
func (t *Table) put(table string, hosts iter.Seq[Element], n, counted int, fill func(*builder) error) error {
	const few = 16
	add := func(add func(*builder) error) error {
		return t.transactAs(table, t.cfg, func(b *builder) error {
			b.counted = counted
			if fill == nil {
				return add(b)
			}
			return errors.Join(fill(b), add(b))
		})
	}
	if n > few {
		err := add(func(b *builder) error { return b.eachHost(unix.NFT_MSG_NEWSETELEM, netlink.Excl, hosts) })
		if !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
	return add(func(b *builder) error { return b.putHosts(hosts) })
}
