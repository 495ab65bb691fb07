package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// slack is how far the time left of an element may be from what was asked
// for, besides the time that has passed since.
const slack = 2 * time.Second

// sample picks elements to read back after many were written. What can go
// wrong without an error takes most of a message's hundreds of elements with
// it, so that some of each tell.
func sample(hosts iter.Seq[Element], n int) []Element {
	const all, some = 1024, 16
	every := 1
	if n > all {
		every = some
	}
	picked, i := make([]Element, 0, n/every+1), 0
	for e := range hosts {
		if i++; i%every == 0 || i == n {
			picked = append(picked, e)
		}
	}
	return picked
}

// verifyHosts reads elements of the sets of hosts back, by key: listing a set
// that has just grown tells of some elements twice and of others not at all.
// They were written after the moment began.
func (t *Table) verifyHosts(hosts []Element, began time.Time) error {
	for _, ofFamily := range []func(netip.Addr) bool{netip.Addr.Is4, netip.Addr.Is6} {
		var expected []Element
		for _, e := range hosts {
			if ofFamily(e.Prefix.Addr()) {
				expected = append(expected, e)
			}
		}
		// The answers to one request wait in the socket's buffer together.
		for chunk := range slices.Chunk(expected, 128) {
			if err := t.verifyChunk(chunk, began); err != nil {
				return err
			}
		}
	}
	return nil
}

// verifyChunk compares elements of one set with what the kernel holds. Those
// that may be over by now are not asked for.
func (t *Table) verifyChunk(want []Element, began time.Time) error {
	least := time.Since(began) + slack
	want = slices.DeleteFunc(want, func(e Element) bool { return e.Timeout <= least })
	if len(want) == 0 {
		return nil
	}
	got, err := t.elements(want)
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("an element is not there: %w", ErrNotApplied)
	}
	if err != nil {
		return err
	}
	least = time.Since(began) + slack
	for i, e := range want {
		if timeout := seconds(e.Timeout); got[i] > timeout || got[i] < timeout-least {
			return fmt.Errorf("element %s expires in %v instead of %v: %w", e.Prefix.Addr(), got[i], timeout, ErrNotApplied)
		}
	}
	return nil
}

// verifyGone looks for hosts that were deleted: a source that stays blocked
// after it was let go is the worst that a silent failure can do. Of many some
// are looked for. What the kernel itself has blocked anew is no failure: it has
// no comment, as ours have.
func (t *Table) verifyGone(hosts []Element) error {
	b := newBuilder(nil, TableName, t.cfg)
	for _, e := range sample(slices.Values(hosts), len(hosts)) {
		held, there, err := t.find(b.hostSet(e.Prefix), e.Prefix.Addr())
		if err != nil {
			return err
		}
		if there && held.comment != "" {
			return fmt.Errorf("element %s is still there: %w", e.Prefix.Addr(), ErrNotApplied)
		}
	}
	return nil
}

// find looks for the element of a set of hosts.
func (t *Table) find(set *nftables.Set, key netip.Addr) (held listed, there bool, err error) {
	conn, err := t.readConnection()
	if err != nil {
		return listed{}, false, err
	}
	replies, err := conn.Execute(elementRequest(set, []Element{{Prefix: netip.PrefixFrom(key, key.BitLen())}}))
	if errors.Is(err, unix.ENOENT) {
		return listed{}, false, nil
	}
	if err != nil {
		t.reader = nil
		return listed{}, false, errors.Join(err, conn.Close())
	}
	for _, m := range replies {
		readElements(m.Data[min(nfgenmsg, len(m.Data)):], make(map[string]string), func(e listed) bool { held, there = e, true; return true })
	}
	return held, there, nil
}

// verifyNoMore looks for intervals that should not be there: more than were
// asked for at a moment, since some may have expired by now.
func (t *Table) verifyNoMore(began time.Time) error {
	b := newBuilder(nil, TableName, t.cfg)
	for _, f := range []family{ipv4, ipv6} {
		n := 0
		err := t.eachElement(b.netSet(f), func(e listed) {
			if !e.ends {
				n++
			}
		})
		if err != nil {
			return err
		}
		if want := len(spansAt(f, t.nets, began)); n > want {
			return fmt.Errorf("%d intervals are there instead of %d: %w", n, want, ErrNotApplied)
		}
	}
	return nil
}

// verifyNets reads the sets of prefixes back.
func (t *Table) verifyNets() error {
	b := newBuilder(nil, TableName, t.cfg)
	for _, f := range []family{ipv4, ipv6} {
		began := 0
		err := t.eachElement(b.netSet(f), func(e listed) {
			if !e.ends {
				began++
			}
		})
		if err != nil {
			return err
		}
		if want := len(liveSpans(f, t.nets)); began < want {
			return fmt.Errorf("%d of %d intervals are there: %w", began, want, ErrNotApplied)
		}
	}
	return nil
}

// elements asks the kernel for elements of one set of hosts by their keys and
// tells how long each has left. The library can only list whole sets.
func (t *Table) elements(wanted []Element) ([]time.Duration, error) {
	conn, err := t.readConnection()
	if err != nil {
		return nil, err
	}
	set := newBuilder(nil, TableName, t.cfg).hostSet(wanted[0].Prefix)
	left, err := getElements(conn, set, wanted)
	if err != nil {
		t.reader = nil
		return nil, errors.Join(err, conn.Close())
	}
	return left, nil
}

// getElements sends one request and reads the answers to it, one for each
// element in their order, or an error for the first that is not there.
func getElements(conn *netlink.Conn, set *nftables.Set, wanted []Element) ([]time.Duration, error) {
	sent, err := conn.Send(elementRequest(set, wanted))
	if err != nil {
		return nil, err
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	all, failed := make([]time.Duration, 0, len(wanted)), error(nil)
	err = receive(raw, true, func(h netlink.Header, data []byte) bool {
		switch {
		case h.Sequence != sent.Header.Sequence:
		case h.Type == netlink.Error && len(data) >= 4:
			failed = unix.Errno(-int32(binary.NativeEndian.Uint32(data)))
		default:
			before := len(all)
			readElements(data[min(nfgenmsg, len(data)):], nil, func(e listed) bool { all = append(all, e.left); return true })
			if len(all) == before {
				failed = fmt.Errorf("answer without an element: %w", ErrNotApplied)
			}
		}
		return failed == nil && len(all) < len(wanted)
	})
	return all, errors.Join(err, failed)
}

// dumpBuffer is how large a datagram may be that is read, in bytes. For each
// datagram of a dump the kernel walks over all elements that it has told
// already, and it fills as much as the reader has room for, up to 32 KiB
// (netlink_dump in net/netlink/af_netlink.c): with 4 KiB, the default, 100,000
// ignored prefixes take eight times as long.
const dumpBuffer = 64 << 10

func (t *Table) readConnection() (*netlink.Conn, error) {
	if t.reader != nil {
		return t.reader, nil
	}
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: t.netns, MessageBufferSize: dumpBuffer})
	if err != nil {
		return nil, err
	}
	t.reader = conn
	return conn, nil
}

// nfgenmsg is the header of nfnetlink messages: family, version, resource id.
// https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/include/uapi/linux/netfilter/nfnetlink.h
const nfgenmsg = 4

// elementRequest is what "nft get element" sends, nf_tables_getsetelem in
// https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/net/netfilter/nf_tables_api.c
func elementRequest(set *nftables.Set, wanted []Element) netlink.Message {
	b := appendString(inetHeader(), unix.NFTA_SET_ELEM_LIST_TABLE, set.Table.Name)
	b = appendString(b, unix.NFTA_SET_ELEM_LIST_SET, set.Name)
	b, list := nest(b, unix.NFTA_SET_ELEM_LIST_ELEMENTS)
	for _, e := range wanted {
		var element int
		b, element = nest(b, unix.NFTA_LIST_ELEM)
		b = closeNest(appendKey(b, e), element)
	}
	return netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETSETELEM, Flags: netlink.Request},
		Data:   closeNest(b, list),
	}
}
