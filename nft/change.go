package nft

import (
	"encoding/binary"
	"net/netip"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A Change is what somebody else has done to our table, in one transaction or
// in several.
type Change struct {
	// Shape says that the table, or a chain, rule, set or object of it, or an
	// element of a set that comes from the configuration, was touched:
	// Table.Intact tells whether anything has come of it.
	Shape bool
	// Hosts are the keys of elements of blocked4 and blocked6 that were
	// deleted, added or given another timeout, in no order; see
	// Table.HostPrefix. Nets are likewise first addresses of intervals of
	// nets4 and nets6; Table.RestoreNets puts all of them back.
	Hosts, Nets []netip.Addr
	// All says that any block may be gone: events were lost, there were too
	// many, or the table or a set of blocks was deleted. Hosts and Nets are
	// then empty.
	All bool
	// Process is the name of the program that did it last, at most 15 bytes
	// and anything in them, and PID its number in the first process
	// namespace. They are empty and 0 where events were lost.
	Process string
	PID     uint32
}

// maxTouched is how many elements a Change names before it says All.
const maxTouched = 1024

// touched tells whether our table was touched at all.
func (c Change) touched() bool { return c.Shape || c.All || len(c.Hosts)+len(c.Nets) > 0 }

// join is both changes, of which d came later.
func (c Change) join(d Change) Change {
	return Change{
		Shape: c.Shape || d.Shape, All: c.All || d.All,
		Hosts: append(c.Hosts, d.Hosts...), Nets: append(c.Nets, d.Nets...),
		Process: d.Process, PID: d.PID,
	}.bound()
}

func (c Change) bound() Change {
	if c.All || len(c.Hosts)+len(c.Nets) > maxTouched {
		c.All, c.Hosts, c.Nets = true, nil, nil
	}
	return c
}

// A gatherer makes changes of the events of the kernel. Each transaction ends
// in an event of its own, which says who made it: nf_tables_commit in
// https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/net/netfilter/nf_tables_api.c
type gatherer struct{ change Change }

// message takes an event in. At the end of a transaction it returns what has
// become of our table.
func (g *gatherer) message(m netlink.Message) (c Change, ended bool) {
	if m.Header.Type>>8 != unix.NFNL_SUBSYS_NFTABLES || len(m.Data) < nfgenmsg {
		return Change{}, false
	}
	family, attrs := m.Data[0], m.Data[nfgenmsg:]
	switch kind := m.Header.Type & 0xff; {
	case kind == unix.NFT_MSG_NEWGEN:
		c = g.change
		g.change = Change{}
		c.Process, c.PID = author(attrs)
		return c, true
	case family == unix.NFPROTO_INET:
		g.change = g.change.join(changeBy(kind, attrs))
	}
	return Change{}, false
}

// author reads who has made a generation. The number of the process is that of
// task_pid_nr: in the first namespace, whatever the reader's.
func author(attrs []byte) (process string, pid uint32) {
	eachAttr(attrs, func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case unix.NFTA_GEN_PROC_PID:
			if b := ad.Bytes(); len(b) == 4 {
				pid = binary.BigEndian.Uint32(b)
			}
		case unix.NFTA_GEN_PROC_NAME:
			process = cString(ad.Bytes())
		}
	})
	return process, pid
}

// changeBy tells what an event means to our table. The attribute that names
// the table is the first one in every kind of them, NFTA_TABLE_NAME as well as
// NFTA_RULE_TABLE; a set is named by the second one.
func changeBy(kind netlink.HeaderType, attrs []byte) Change {
	var table, set string
	ok := eachAttr(attrs, func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case unix.NFTA_TABLE_NAME:
			table = cString(ad.Bytes())
		case unix.NFTA_SET_NAME:
			set = cString(ad.Bytes())
		}
	})
	switch {
	case !ok:
		return Change{Shape: true, All: true} // the kernel sends none such
	case table != TableName:
		return Change{}
	}
	switch kind {
	case unix.NFT_MSG_NEWSETELEM, unix.NFT_MSG_DELSETELEM:
		return changeOf(set, attrs)
	case unix.NFT_MSG_DELTABLE:
		return Change{Shape: true, All: true}
	case unix.NFT_MSG_DELSET:
		return Change{Shape: true, All: setKinds[set] == setOfHosts || setKinds[set] == setOfNets}
	}
	return Change{Shape: true}
}

// What sets are to whoever guards them.
type setKind int

const (
	setOfShape setKind = iota // its elements come from the configuration, or it is none of ours
	setOfHosts
	setOfNets
	setOfRules // its elements are what rules have counted
)

// setKinds tells what our sets are.
var setKinds = kindsOf(newSets(nil, 0))

func kindsOf(s sets) map[string]setKind {
	kinds := make(map[string]setKind)
	for _, set := range s.all() {
		if set.Dynamic {
			kinds[set.Name] = setOfRules
		}
	}
	kinds[s.blocked4.Name], kinds[s.blocked6.Name] = setOfHosts, setOfHosts
	kinds[s.nets4.Name], kinds[s.nets6.Name] = setOfNets, setOfNets
	return kinds
}

// changeOf tells what an event of elements means.
func changeOf(set string, attrs []byte) Change {
	kind := setKinds[set]
	switch kind {
	case setOfShape:
		return Change{Shape: true}
	case setOfRules:
		return Change{}
	}
	keys, ok := elementKeys(attrs)
	switch {
	case !ok:
		return Change{All: true}
	case kind == setOfNets:
		return Change{Nets: keys}.bound()
	}
	return Change{Hosts: keys}.bound()
}

// elementKeys reads the addresses in an event of elements, without those that
// only end an interval.
func elementKeys(attrs []byte) (keys []netip.Addr, ok bool) {
	whole := true
	outer := eachAttr(attrs, func(ad *netlink.AttributeDecoder) {
		if ad.Type() != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			return
		}
		inner := eachAttr(ad.Bytes(), func(elem *netlink.AttributeDecoder) {
			key, ends, ok := elementKey(elem.Bytes())
			whole = whole && ok
			if ok && !ends {
				keys = append(keys, key)
			}
		})
		whole = whole && inner
	})
	return keys, outer && whole
}

// elementKey reads the address of one element.
func elementKey(attrs []byte) (key netip.Addr, ends, ok bool) {
	found := false
	ok = eachAttr(attrs, func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case unix.NFTA_SET_ELEM_FLAGS:
			ends = endsInterval(ad.Bytes())
		case unix.NFTA_SET_ELEM_KEY:
			eachAttr(ad.Bytes(), func(data *netlink.AttributeDecoder) {
				if data.Type() == unix.NFTA_DATA_VALUE {
					key, found = netip.AddrFromSlice(data.Bytes())
				}
			})
		}
	})
	return key, ends, ok && found
}

// endsInterval tells whether flags of an element are those of one that only
// ends an interval.
func endsInterval(flags []byte) bool {
	return len(flags) == 4 && binary.BigEndian.Uint32(flags)&unix.NFT_SET_ELEM_INTERVAL_END != 0
}

// eachAttr calls f for each netlink attribute. It is false if they are cut short.
func eachAttr(attrs []byte, f func(*netlink.AttributeDecoder)) bool {
	ad, err := netlink.NewAttributeDecoder(attrs)
	if err != nil {
		return false
	}
	for ad.Next() {
		f(ad)
	}
	return ad.Err() == nil
}

// cString is the text before the first zero byte.
func cString(b []byte) string {
	s, _, _ := strings.Cut(string(b), "\x00")
	return s
}
