package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math"
	"net/netip"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A listed is an element of a set of addresses as the kernel lists it.
type listed struct {
	key     netip.Addr
	ends    bool          // it only ends an interval
	timeout time.Duration // from its begin; 0 lasts for ever
	left    time.Duration
	comment string
}

// eachElement calls f with each element of a set as it arrives: all of a set
// at once take the library fifty times the memory of what f keeps. A comment
// that many elements have is one string. A set that is being resized tells of
// some elements twice and of others not at all.
func (t *Table) eachElement(set *nftables.Set, f func(listed)) error {
	_, err := t.eachOf(set, math.MaxInt, f)
	return err
}

// eachOf is eachElement for a set of so many elements at the most. When there
// are more it is not whole, and the kernel is not asked for the others.
func (t *Table) eachOf(set *nftables.Set, most int, f func(listed)) (whole bool, err error) {
	conn, err := t.readConnection()
	if err != nil {
		return false, err
	}
	n := 0
	err = dumpElements(conn, set, func(e listed) bool {
		if n++; n <= most {
			f(e)
		}
		return n <= most
	})
	if err != nil || n > most { // the connection has the rest in it
		t.reader = nil
		err = errors.Join(err, conn.Close())
	}
	if err != nil {
		return false, fmt.Errorf("list set %s: %w", set.Name, err)
	}
	return n <= most, nil
}

// dumpElements calls f with each element until it is false.
func dumpElements(conn *netlink.Conn, set *nftables.Set, f func(listed) bool) error {
	request := appendString(inetHeader(), unix.NFTA_SET_ELEM_LIST_TABLE, set.Table.Name)
	sent, err := conn.Send(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETSETELEM, Flags: netlink.Request | netlink.Dump},
		Data:   appendString(request, unix.NFTA_SET_ELEM_LIST_SET, set.Name),
	})
	if err != nil {
		return err
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	comments := make(map[string]string)
	err = receive(raw, true, func(h netlink.Header, data []byte) bool {
		switch {
		case h.Sequence != sent.Header.Sequence:
		case h.Type == netlink.Error || h.Type == netlink.Done:
			if len(data) >= 4 && binary.NativeEndian.Uint32(data) != 0 {
				failed = unix.Errno(-int32(binary.NativeEndian.Uint32(data)))
			}
			return false
		case len(data) >= nfgenmsg:
			return readElements(data[nfgenmsg:], comments, f)
		}
		return true
	})
	return errors.Join(err, failed)
}

// inetHeader is the begin of a message about our table.
func inetHeader() []byte { return []byte{unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0} }

// readElements reads the elements of one message until f is false.
func readElements(attrs []byte, comments map[string]string, f func(listed) bool) (more bool) {
	for kind, list := range attributesOf(attrs) {
		if kind != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			continue
		}
		for _, elem := range attributesOf(list) {
			if e := readElement(elem, comments); e.key.IsValid() && !f(e) {
				return false
			}
		}
	}
	return true
}

func readElement(attrs []byte, comments map[string]string) (e listed) {
	for kind, value := range attributesOf(attrs) {
		switch {
		case kind == unix.NFTA_SET_ELEM_KEY:
			for inner, data := range attributesOf(value) {
				if inner == unix.NFTA_DATA_VALUE {
					e.key, _ = netip.AddrFromSlice(data)
				}
			}
		case kind == unix.NFTA_SET_ELEM_FLAGS && len(value) == 4:
			e.ends = binary.BigEndian.Uint32(value)&unix.NFT_SET_ELEM_INTERVAL_END != 0
		case kind == unix.NFTA_SET_ELEM_TIMEOUT && len(value) == 8:
			e.timeout = time.Duration(binary.BigEndian.Uint64(value)) * time.Millisecond
		case kind == unix.NFTA_SET_ELEM_EXPIRATION && len(value) == 8:
			e.left = time.Duration(binary.BigEndian.Uint64(value)) * time.Millisecond
		case kind == unix.NFTA_SET_ELEM_USERDATA:
			e.comment = commentOf(value, comments)
		}
	}
	return e
}

// commentOf finds the comment in the user data of an element; none if nobody
// collects them.
func commentOf(data []byte, comments map[string]string) string {
	for len(data) >= 2 && len(data) >= 2+int(data[1]) {
		kind, value := userdata.Type(data[0]), data[2:2+int(data[1])]
		data = data[2+len(value):]
		if kind != userdata.NFTNL_UDATA_SET_ELEM_COMMENT {
			continue
		}
		if n := len(value); n > 0 && value[n-1] == 0 {
			value = value[:n-1]
		}
		text, known := comments[string(value)]
		if !known && comments != nil {
			text = string(value)
			comments[text] = text
		}
		return text
	}
	return ""
}

// attributesOf are netlink attributes by their type, up to what is cut short.
// The values share the memory of b.
func attributesOf(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= attrLen {
			n := int(binary.NativeEndian.Uint16(b))
			if n < attrLen || n > len(b) {
				return
			}
			if !yield(binary.NativeEndian.Uint16(b[2:])&^uint16(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[attrLen:n]) {
				return
			}
			b = b[min(len(b), (n+3)&^3):]
		}
	}
}
