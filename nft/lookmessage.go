package nft

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// setElemExpressions holds the statements of an element that has several, and
// of each element of a set that has some.
// https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/include/uapi/linux/netfilter/nf_tables.h
const setElemExpressions = 0x0b

// lookRequest is what "nft get element" sends, see elementRequest.
func lookRequest(set *nftables.Set, key []byte) (netlink.Message, error) {
	enc := netlink.NewAttributeEncoder()
	enc.ByteOrder = binary.BigEndian
	enc.String(unix.NFTA_SET_ELEM_LIST_TABLE, set.Table.Name)
	enc.String(unix.NFTA_SET_ELEM_LIST_SET, set.Name)
	enc.Nested(unix.NFTA_SET_ELEM_LIST_ELEMENTS, func(list *netlink.AttributeEncoder) error {
		list.Nested(unix.NFTA_LIST_ELEM, func(elem *netlink.AttributeEncoder) error {
			elem.Nested(unix.NFTA_SET_ELEM_KEY, func(data *netlink.AttributeEncoder) error {
				data.Bytes(unix.NFTA_DATA_VALUE, key)
				return nil
			})
			return nil
		})
		return nil
	})
	attrs, err := enc.Encode()
	if err != nil {
		return netlink.Message{}, fmt.Errorf("encode request for an element: %w", err)
	}
	return netlink.Message{
		Header: netlink.Header{
			Type:  unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETSETELEM,
			Flags: netlink.Request | netlink.Acknowledge,
		},
		Data: append([]byte{unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0}, attrs...),
	}, nil
}

// A heldElement is one element in an answer of the kernel.
type heldElement struct {
	key     []byte
	ends    bool          // it is where an interval ends
	left    time.Duration // 0 for ever
	comment string
	counter Counter
	counted bool
}

func (e *heldElement) held(set *nftables.Set, first, last netip.Addr) *Held {
	return &Held{Set: set.Name, First: first, Last: last, Left: e.left, Comment: e.comment, Counter: e.counter, Counted: e.counted}
}

// parseElement reads the first element of a message, nf_tables_fill_setelem in
// https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/net/netfilter/nf_tables_api.c
func parseElement(data []byte) (e heldElement, ok bool) {
	if len(data) < nfgenmsg {
		return heldElement{}, false
	}
	whole, found := true, false
	outer := eachAttr(data[nfgenmsg:], func(top *netlink.AttributeDecoder) {
		if top.Type() != unix.NFTA_SET_ELEM_LIST_ELEMENTS || found {
			return
		}
		whole = eachAttr(top.Bytes(), func(elem *netlink.AttributeDecoder) {
			if !found {
				found = true
				whole = e.parse(elem.Bytes())
			}
		}) && whole
	})
	if !outer || !whole || !found || len(e.key) == 0 {
		return heldElement{}, false
	}
	return e, true
}

// parse reads the attributes of an element, and tells whether they are whole.
func (e *heldElement) parse(attrs []byte) bool {
	whole := true
	return eachAttr(attrs, func(ad *netlink.AttributeDecoder) {
		b := ad.Bytes()
		switch ad.Type() {
		case unix.NFTA_SET_ELEM_KEY:
			whole = eachAttr(b, func(data *netlink.AttributeDecoder) {
				if data.Type() == unix.NFTA_DATA_VALUE {
					e.key = data.Bytes()
				}
			}) && whole
		case unix.NFTA_SET_ELEM_FLAGS:
			e.ends = len(b) == 4 && binary.BigEndian.Uint32(b)&unix.NFT_SET_ELEM_INTERVAL_END != 0
		case unix.NFTA_SET_ELEM_EXPIRATION:
			e.left = milliseconds(b)
		case unix.NFTA_SET_ELEM_USERDATA:
			e.comment = commentOf(b, make(map[string]string))
		case unix.NFTA_SET_ELEM_EXPR:
			e.statement(b)
		case setElemExpressions:
			eachAttr(b, func(one *netlink.AttributeDecoder) { e.statement(one.Bytes()) })
		}
	}) && whole
}

// milliseconds reads a time left: an element that has one, but less than a
// millisecond, does not stay for ever.
func milliseconds(b []byte) time.Duration {
	if len(b) != 8 {
		return 0
	}
	n := min(binary.BigEndian.Uint64(b), math.MaxInt64/uint64(time.Millisecond))
	return max(time.Duration(n)*time.Millisecond, time.Millisecond)
}

// statement reads a statement of an element: of counters, what they have counted.
func (e *heldElement) statement(attrs []byte) {
	var name string
	var data []byte
	eachAttr(attrs, func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case unix.NFTA_EXPR_NAME:
			name = cString(ad.Bytes())
		case unix.NFTA_EXPR_DATA:
			data = ad.Bytes()
		}
	})
	if name != "counter" {
		return
	}
	e.counted = true
	eachAttr(data, func(ad *netlink.AttributeDecoder) {
		switch b := ad.Bytes(); {
		case len(b) != 8:
		case ad.Type() == unix.NFTA_COUNTER_BYTES:
			e.counter.Bytes = binary.BigEndian.Uint64(b)
		case ad.Type() == unix.NFTA_COUNTER_PACKETS:
			e.counter.Packets = binary.BigEndian.Uint64(b)
		}
	})
}
