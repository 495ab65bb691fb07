package nft

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// MostListed is how many hosts of a family are listed at the most. Listing a
// set costs the kernel time that grows with the square of its size: 10,000
// elements take some 50 ms, 65,536 half a second, a million more than a minute.
const MostListed = 65536

// Blocked reads the blocked sources from the kernel, in order of address;
// there are none without a table. It is not whole where a family has more than
// MostListed hosts: of these there is then none but those that the kernel has
// blocked by itself, as Convicted tells.
func (t *Table) Blocked() (all []Element, whole bool, err error) {
	conn, err := t.connection()
	if err != nil {
		return nil, false, err
	}
	present, err := t.presentSets(conn)
	if err != nil {
		return nil, false, err
	}
	whole = true
	b := newBuilder(nil, TableName, t.cfg)
	for _, set := range b.blockSets() {
		if present[set.Name] == nil || present[set.Name].KeyType.Name != set.KeyType.Name {
			continue // no table, or one of another version
		}
		some, ok, err := t.listSet(set)
		if err != nil {
			return nil, false, err
		}
		if !ok {
			whole = false
			if some, err = t.convicted(b.convictedIn(set), set); err != nil {
				return nil, false, err
			}
		}
		all = append(all, some...)
	}
	return inOrder(all), whole, nil
}

// listSet lists a set of blocks. It is not whole, and nothing is listed, if
// there are too many.
func (t *Table) listSet(set *nftables.Set) (all []Element, whole bool, err error) {
	if set.Interval {
		var ends []listed // of intervals, and their begins
		err := t.eachElement(set, func(e listed) { ends = append(ends, e) })
		return prefixElements(ends), true, err
	}
	whole, err = t.eachOf(set, MostListed, func(e listed) { all = append(all, t.hostElement(e)) })
	if !whole {
		return nil, false, err
	}
	return all, true, err
}

func (t *Table) hostElement(e listed) Element {
	return Element{Prefix: t.HostPrefix(e.key), Timeout: e.left, Comment: e.comment, Age: max(0, e.timeout-e.left)}
}

// inOrder sorts by address. A set that is being resized tells of some elements twice.
func inOrder(all []Element) []Element {
	slices.SortStableFunc(all, func(a, b Element) int {
		return cmp.Or(a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()))
	})
	return slices.CompactFunc(all, func(a, b Element) bool { return a.Prefix == b.Prefix })
}

// Convicted reads, in order of address, the hosts that the kernel has blocked
// by itself, as they are blocked now: at most MostListed of a family, and as a
// rule no more than its budget allows for within their timeout. It asks for
// each by its key, however many others are blocked. There are none without a
// table.
func (t *Table) Convicted() ([]Element, error) {
	var all []Element
	b := newBuilder(nil, TableName, t.cfg)
	for _, set := range []*nftables.Set{b.sets.blocked4, b.sets.blocked6} {
		some, err := t.convicted(b.convictedIn(set), set)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return inOrder(all), nil
}

// convicted are the elements of a set of hosts that rules have added. Without
// the sets there are none: a table of an older version has but one.
func (t *Table) convicted(names, set *nftables.Set) (all []Element, err error) {
	var keys []netip.Addr
	err = t.eachElement(names, func(e listed) { keys = append(keys, e.key) })
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return t.heldIn(set, keys)
}

// Held reads those elements of the sets of hosts that have one of the keys.
func (t *Table) Held(keys ...netip.Addr) ([]Element, error) {
	b := newBuilder(nil, TableName, t.cfg)
	four, err := t.heldIn(b.sets.blocked4, slices.DeleteFunc(slices.Clone(keys), netip.Addr.Is6))
	if err != nil {
		return nil, err
	}
	six, err := t.heldIn(b.sets.blocked6, slices.DeleteFunc(slices.Clone(keys), netip.Addr.Is4))
	return inOrder(append(four, six...)), err
}

// heldIn is Held for one set of hosts.
func (t *Table) heldIn(set *nftables.Set, keys []netip.Addr) (all []Element, err error) {
	for _, key := range keys {
		e, there, err := t.find(set, key)
		if err != nil {
			return nil, err
		}
		if there {
			all = append(all, t.hostElement(e))
		}
	}
	return all, nil
}

// convictedIn is where rules write down whom they put into a set of hosts.
func (b *builder) convictedIn(set *nftables.Set) *nftables.Set {
	if set == b.sets.blocked4 {
		return b.sets.convicted4
	}
	return b.sets.convicted6
}

// presentSets are the sets that the table has now, by name.
func (t *Table) presentSets(conn *nftables.Conn) (map[string]*nftables.Set, error) {
	there, err := exists(conn, TableName)
	if err != nil || !there {
		return nil, err
	}
	sets, err := conn.GetSets(newBuilder(nil, TableName, t.cfg).table)
	if err != nil {
		return nil, fmt.Errorf("list sets: %w", err)
	}
	present := make(map[string]*nftables.Set)
	for _, s := range sets {
		present[s.Name] = s
	}
	return present, nil
}

// exists tells whether a table of ours is in the kernel.
func exists(conn *nftables.Conn, table string) (bool, error) {
	tables, err := conn.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return false, fmt.Errorf("list tables: %w", err)
	}
	return slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == table }), nil
}

// HostPrefix is what an element of a set of hosts with this key blocks: an
// IPv6 key without host bits stands for its whole prefix.
func (t *Table) HostPrefix(key netip.Addr) netip.Prefix {
	if wide := netip.PrefixFrom(key, t.cfg.Prefix6); key.Is6() && wide.Masked() == wide {
		return wide
	}
	return netip.PrefixFrom(key, key.BitLen())
}

// prefixElements reads the elements of an interval set, which come as starts
// and ends in any order.
func prefixElements(raw []listed) []Element {
	slices.SortFunc(raw, func(a, b listed) int {
		ends := func(e listed) int {
			if e.ends {
				return 0
			}
			return 1
		}
		return cmp.Or(a.key.Compare(b.key), cmp.Compare(ends(a), ends(b)))
	})
	var out []Element
	for i, e := range raw {
		if e.ends {
			continue
		}
		last := familyOf(e.key).last
		if i+1 < len(raw) {
			last = raw[i+1].key.Prev()
		}
		for _, p := range prefixes(e.key, last) {
			out = append(out, Element{Prefix: p, Timeout: e.left, Comment: e.comment})
		}
	}
	return out
}

// prefixes is the shortest list of prefixes that are the addresses from first to last.
func prefixes(first, last netip.Addr) []netip.Prefix {
	var out []netip.Prefix
	for first.IsValid() && first.Compare(last) <= 0 {
		bits := first.BitLen()
		for bits > 0 {
			wider := netip.PrefixFrom(first, bits-1)
			if wider.Masked() != wider || lastAddr(wider).Compare(last) > 0 {
				break
			}
			bits--
		}
		p := netip.PrefixFrom(first, bits)
		out = append(out, p)
		first = lastAddr(p).Next()
	}
	return out
}
