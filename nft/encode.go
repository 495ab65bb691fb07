package nft

import (
	"encoding/binary"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// maxElements is how many bytes of elements go into a message. They share one
// netlink attribute, whose length has 16 bits: of more the kernel would take a
// few and report no error.
const maxElements = 60000

// mostCounted is how many of the hosts that come at once, of each family, count
// what is dropped from them. With a counter in each, the kernel takes three
// times as long for all 65,536.
const mostCounted = 1024

// largestElement is more than an element with the longest key and comment has.
const largestElement = 256

// An elementWriter appends messages that add elements to a set, or delete
// them, to a batch, as google/nftables would. Its messages stand together in
// the batch, wherever it is closed.
//
// The attributes are those of nf_tables_newsetelem in
// https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/net/netfilter/nf_tables_api.c
type elementWriter struct {
	out     *batch
	kind    netlink.HeaderType // NFT_MSG_NEWSETELEM or NFT_MSG_DELSETELEM
	set     *nftables.Set
	parts   [][]byte
	message int // where the message begins in the last part
	list    int // where its list of elements begins
	count   int // elements in it; 0 if none is open

	counters int                 // how many of the next elements get one
	flags    netlink.HeaderFlags // besides those of all: netlink.Excl refuses what is there
}

func (b *batch) elements(kind netlink.HeaderType, set *nftables.Set) *elementWriter {
	return &elementWriter{out: b, kind: kind, set: set}
}

// add appends a host. Of an element that is deleted only the key counts.
func (w *elementWriter) add(e Element) {
	if w.count > 0 && len(*w.part())-w.list+largestElement > maxElements {
		w.end()
	}
	if w.count == 0 {
		w.begin()
	}
	w.count++
	part := w.part()
	b, element := nest(*part, uint16(w.count))
	b = appendKey(b, e)
	if w.kind == unix.NFT_MSG_NEWSETELEM {
		b = appendAttr(b, unix.NFTA_SET_ELEM_TIMEOUT, 8)
		b = binary.BigEndian.AppendUint64(b, uint64(seconds(e.Timeout)/time.Millisecond))
		b = appendComment(b, e.Comment)
		if w.counters > 0 {
			w.counters--
			b = appendCounter(b)
		}
	}
	*part = closeNest(b, element)
}

func (w *elementWriter) part() *[]byte { return &w.parts[len(w.parts)-1] }

// begin opens a message, in a part that has room for the largest but for the
// first one, which grows.
func (w *elementWriter) begin() {
	const most = maxElements + largestElement + 256 // with the names
	if len(w.parts) == 0 || cap(*w.part())-len(*w.part()) < most {
		w.parts = append(w.parts, make([]byte, 0, w.nextPart()))
	}
	part := w.part()
	w.message = len(*part)
	b := w.out.header(*part, unix.NFNL_SUBSYS_NFTABLES<<8|w.kind, netlink.Request|netlink.Acknowledge|netlink.Create|w.flags, 0)
	b = append(b, byte(w.set.Table.Family), unix.NFNETLINK_V0, 0, 0)
	b = appendString(b, unix.NFTA_SET_ELEM_LIST_SET, w.set.Name)
	b = binary.BigEndian.AppendUint32(appendAttr(b, unix.NFTA_SET_ELEM_LIST_SET_ID, 4), w.set.ID)
	b = appendString(b, unix.NFTA_SET_ELEM_LIST_TABLE, w.set.Table.Name)
	*part, w.list = nest(b, unix.NFTA_SET_ELEM_LIST_ELEMENTS)
}

// nextPart is the size of the next part: most batches are of one element.
func (w *elementWriter) nextPart() int {
	if len(w.parts) == 0 {
		return 512
	}
	return partSize
}

// end closes the message that is open.
func (w *elementWriter) end() {
	part := w.part()
	*part = closeNest(*part, w.list)
	binary.NativeEndian.PutUint32((*part)[w.message:], uint32(len(*part)-w.message))
	w.count = 0
}

// close hands the messages to the batch, after all that it has until then.
func (w *elementWriter) close() error {
	if w.count > 0 {
		w.end()
	}
	if err := w.out.join(); err != nil {
		return err
	}
	w.out.parts = append(w.out.parts, w.parts...)
	w.parts = nil
	return nil
}

// appendKey appends the address.
func appendKey(b []byte, e Element) []byte {
	b, key := nest(b, unix.NFTA_SET_ELEM_KEY)
	if a := e.Prefix.Addr(); a.Is4() {
		raw := a.As4()
		b = append(appendAttr(b, unix.NFTA_DATA_VALUE, len(raw)), raw[:]...)
	} else {
		raw := a.As16()
		b = append(appendAttr(b, unix.NFTA_DATA_VALUE, len(raw)), raw[:]...)
	}
	return closeNest(b, key)
}

// appendComment appends a comment as nft(8) reads it: a type and a length in
// a byte each, and a text that ends in a zero.
func appendComment(b []byte, comment string) []byte {
	if comment == "" {
		return b
	}
	b = appendAttr(b, unix.NFTA_SET_ELEM_USERDATA, 2+len(comment)+1)
	b = append(b, byte(userdata.NFTNL_UDATA_SET_ELEM_COMMENT), byte(len(comment)+1))
	b = append(b, comment...)
	b = append(b, 0)
	return pad(b, 2+len(comment)+1)
}

// appendCounter appends a counter that begins at nothing.
func appendCounter(b []byte) []byte {
	b, counter := nest(b, unix.NFTA_SET_ELEM_EXPR)
	return closeNest(appendString(b, unix.NFTA_EXPR_NAME, "counter"), counter)
}

// attrLen is the length of struct nlattr, include/uapi/linux/netlink.h.
const attrLen = 4

// appendAttr appends the head of an attribute whose value has n bytes.
func appendAttr(b []byte, kind uint16, n int) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(attrLen+n))
	return binary.NativeEndian.AppendUint16(b, kind)
}

// appendString appends an attribute that is a text.
func appendString(b []byte, kind uint16, text string) []byte {
	b = append(append(appendAttr(b, kind, len(text)+1), text...), 0)
	return pad(b, len(text)+1)
}

// nest begins an attribute that holds others, and tells where it is.
func nest(b []byte, kind uint16) (out []byte, at int) {
	return appendAttr(b, kind|unix.NLA_F_NESTED, 0), len(b)
}

// closeNest ends the one that begins at an index.
func closeNest(b []byte, at int) []byte {
	binary.NativeEndian.PutUint16(b[at:], uint16(len(b)-at))
	return b
}

// pad fills up a value of n bytes to a multiple of four.
func pad(b []byte, n int) []byte {
	return append(b, make([]byte, (4-n%4)%4)...)
}
