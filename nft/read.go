package nft

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
)

// Blocked reads all blocked sources from the kernel, in order of address;
// there are none without a table.
// Reading a set costs the kernel time that grows with the square of its size:
// 10,000 elements take some 50 ms, 100,000 more than a second.
func (t *Table) Blocked() ([]Element, error) {
	conn, err := t.connection()
	if err != nil {
		return nil, err
	}
	present, err := t.presentSets(conn)
	if err != nil {
		return nil, err
	}
	var all []Element
	for _, set := range newBuilder(nil, TableName, t.cfg).blockSets() {
		if present[set.Name] != set.KeyType.Name {
			continue // no table, or one of another version
		}
		var ends []listed // of intervals, and their begins
		err := t.eachElement(set, func(e listed) {
			if set.Interval {
				ends = append(ends, e)
			} else {
				all = append(all, Element{Prefix: t.HostPrefix(e.key), Timeout: e.left, Comment: e.comment, Age: max(0, e.timeout-e.left)})
			}
		})
		if err != nil {
			return nil, err
		}
		all = append(all, prefixElements(ends)...)
	}
	slices.SortStableFunc(all, func(a, b Element) int {
		return cmp.Or(a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()))
	})
	// A set that is being resized tells of some elements twice.
	return slices.CompactFunc(all, func(a, b Element) bool { return a.Prefix == b.Prefix }), nil
}

// presentSets tells the key types of the sets that the table has now, by name.
func (t *Table) presentSets(conn *nftables.Conn) (map[string]string, error) {
	there, err := exists(conn)
	if err != nil || !there {
		return nil, err
	}
	sets, err := conn.GetSets(newBuilder(nil, TableName, t.cfg).table)
	if err != nil {
		return nil, fmt.Errorf("list sets: %w", err)
	}
	types := make(map[string]string)
	for _, s := range sets {
		types[s.Name] = s.KeyType.Name
	}
	return types, nil
}

// exists tells whether our table is in the kernel.
func exists(conn *nftables.Conn) (bool, error) {
	tables, err := conn.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return false, fmt.Errorf("list tables: %w", err)
	}
	return slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == TableName }), nil
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
