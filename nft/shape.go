package nft

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A shape is a fingerprint of all that others have no business to change:
// chains, rules, sets, objects, and the elements that come from the
// configuration. Handles, counters and what comes and goes with packets are no
// part of it. The zero shape equals no other.
type shape [sha256.Size]byte

// Intact tells whether the table has just the shape that Load, SetHost or
// Unlure has given it last: chains with hook, priority and policy, rules, sets
// and their flags, objects, the elements of sets that come from the
// configuration, and nothing besides. A table that is gone, or has never been
// loaded, is not intact. Blocks are not looked at. It takes a millisecond or
// two, and a quarter of a second with 100,000 ignored prefixes.
func (t *Table) Intact() (bool, error) {
	if t.shape == (shape{}) {
		return false, nil
	}
	got, err := t.look()
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read the table: %w", err)
	}
	return got == t.shape, nil
}

// attempts bounds what is repeated because others change nftables meanwhile.
const attempts = 4

// transform sends a transaction that changes the shape, and remembers what the
// shape is afterwards. Fill gets the names of the chains that are there.
//
// What somebody has done to the table between the two must not be taken for
// ours. The generation tells: it goes up by one with each transaction of
// anybody. After others the shape is made once more, until there were none.
func (t *Table) transform(fill func(b *builder, chains []string) error) error {
	for range attempts {
		if sure, err := t.transformOnce(fill); err != nil || sure {
			return err
		}
		fill = (*builder).reshape
	}
	return nil // Intact asks for another Load
}

// transformOnce tells whether it is sure of the shape. Without that there is
// none.
func (t *Table) transformOnce(fill func(b *builder, chains []string) error) (sure bool, err error) {
	before, err := t.generation()
	if err != nil {
		return false, err
	}
	chains, err := t.presentChains(TableName)
	if err != nil {
		return false, err
	}
	var filled map[string]int
	err = t.transact(func(b *builder) error {
		filled = b.filled
		return fill(b, chains)
	})
	if err != nil {
		return false, err
	}
	t.shape = shape{}
	got, err := t.look()
	if err != nil {
		return false, fmt.Errorf("read the table: %w", err)
	}
	after, err := t.generation()
	if err != nil || after != next(before) {
		return false, err
	}
	if err := t.verifySources(filled); err != nil {
		return false, err
	}
	t.shape = got
	return true, nil
}

// verifySources compares how many intervals the sets of sources have got with
// how many look has found in them.
func (t *Table) verifySources(filled map[string]int) error {
	for set, want := range filled {
		if got := t.found[set]; got != want {
			return fmt.Errorf("set %s: %d of %d intervals are there: %w", set, got, want, ErrNotApplied)
		}
	}
	return nil
}

// reshape replaces all of the shape but the table and its sets, and leaves
// blocks alone. It is an error if the table is gone: they would be, too.
func (b *builder) reshape(chains []string) error {
	b.removeChains(chains)
	b.addObjects()
	return errors.Join(b.fillSources(), b.fillPorts(), b.addChains())
}

// next is the generation after another one: 0 is left out.
// nf_tables_commit in net/netfilter/nf_tables_api.c
func next(generation uint32) uint32 {
	return max(1, generation+1)
}

// generation reads how many transactions nftables has seen.
func (t *Table) generation() (uint32, error) {
	replies, err := t.ask(unix.NFT_MSG_GETGEN, 0, nil)
	if err != nil {
		return 0, fmt.Errorf("read the generation: %w", err)
	}
	var id uint32
	for _, m := range replies {
		eachAttr(m.Data[min(nfgenmsg, len(m.Data)):], func(ad *netlink.AttributeDecoder) {
			if b := ad.Bytes(); ad.Type() == unix.NFTA_GEN_ID && len(b) == 4 {
				id = binary.BigEndian.Uint32(b)
			}
		})
	}
	return id, nil
}

// An aspect is a kind of things in the table.
type aspect struct {
	get  netlink.HeaderType
	keep []uint16 // the attributes that count
}

// Attributes that golang.org/x/sys has no names for,
// https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/include/uapi/linux/netfilter/nf_tables.h
const (
	nftaChainFlags     = 10
	nftaChainUserdata  = 12
	nftaSetExpr        = 17
	nftaSetExpressions = 18
	nftaObjUserdata    = 8
	nftaFlowtableName  = 2
	nftaFlowtableHook  = 3
	nftaSetElemKeyEnd  = 10
)

// aspects list what makes the shape. Kernels that tell more than we know of
// them do not change it.
var aspects = []aspect{
	{unix.NFT_MSG_GETTABLE, []uint16{unix.NFTA_TABLE_NAME, unix.NFTA_TABLE_FLAGS}},
	{unix.NFT_MSG_GETCHAIN, []uint16{
		unix.NFTA_CHAIN_NAME, unix.NFTA_CHAIN_HOOK, unix.NFTA_CHAIN_POLICY, unix.NFTA_CHAIN_TYPE, nftaChainFlags, nftaChainUserdata,
	}},
	{unix.NFT_MSG_GETRULE, []uint16{unix.NFTA_RULE_CHAIN, unix.NFTA_RULE_EXPRESSIONS, unix.NFTA_RULE_USERDATA}},
	{unix.NFT_MSG_GETSET, []uint16{
		unix.NFTA_SET_NAME, unix.NFTA_SET_FLAGS, unix.NFTA_SET_KEY_TYPE, unix.NFTA_SET_KEY_LEN, unix.NFTA_SET_DATA_TYPE,
		unix.NFTA_SET_DATA_LEN, unix.NFTA_SET_POLICY, unix.NFTA_SET_DESC, unix.NFTA_SET_TIMEOUT, unix.NFTA_SET_USERDATA,
		unix.NFTA_SET_OBJ_TYPE, nftaSetExpr, nftaSetExpressions,
	}},
	{unix.NFT_MSG_GETOBJ, []uint16{unix.NFTA_OBJ_NAME, unix.NFTA_OBJ_TYPE, unix.NFTA_OBJ_DATA, nftaObjUserdata}},
	{unix.NFT_MSG_GETFLOWTABLE, []uint16{nftaFlowtableName, nftaFlowtableHook}},
}

// elementAttrs are the attributes of elements that count.
var elementAttrs = []uint16{
	unix.NFTA_SET_ELEM_KEY, unix.NFTA_SET_ELEM_DATA, unix.NFTA_SET_ELEM_FLAGS, unix.NFTA_SET_ELEM_USERDATA, nftaSetElemKeyEnd,
}

// look takes the fingerprint of what is in the kernel, again if others change
// nftables meanwhile. The error is unix.ENOENT if the table or one of the sets
// is gone.
func (t *Table) look() (shape, error) {
	var got shape
	for range attempts {
		var torn bool
		var err error
		if got, torn, err = t.lookOnce(); err != nil || !torn {
			return got, err
		}
	}
	return got, nil // whoever changes our table is told of by an event of its own
}

func (t *Table) lookOnce() (got shape, torn bool, err error) {
	f := fingerprint{hash: sha256.New()}
	t.found = make(map[string]int)
	for _, a := range aspects {
		replies, err := t.ask(a.get, netlink.Dump, map[uint16]string{unix.NFTA_TABLE_NAME: TableName})
		if err != nil {
			return shape{}, false, err
		}
		f.add(a, replies)
	}
	s := newSets(nil, 0)
	for _, set := range s.all() {
		if setKinds[set.Name] != setOfShape {
			continue
		}
		replies, err := t.ask(unix.NFT_MSG_GETSETELEM, netlink.Dump, map[uint16]string{
			unix.NFTA_SET_ELEM_LIST_TABLE: TableName, unix.NFTA_SET_ELEM_LIST_SET: set.Name,
		})
		if err != nil {
			return shape{}, false, err
		}
		t.found[set.Name] = f.addElements(set.Name, replies)
	}
	if !f.found {
		return shape{}, false, unix.ENOENT
	}
	f.hash.Sum(got[:0])
	return got, f.torn, nil
}

// ask sends a request with the given names and returns the answers. Chains
// and tables are dumped whatever the names say.
func (t *Table) ask(get netlink.HeaderType, flags netlink.HeaderFlags, names map[uint16]string) ([]netlink.Message, error) {
	conn, err := t.readConnection()
	if err != nil {
		return nil, err
	}
	enc := netlink.NewAttributeEncoder()
	for attr, name := range names {
		enc.String(attr, name)
	}
	attrs, err := enc.Encode()
	if err != nil {
		return nil, fmt.Errorf("encode request: %w", err)
	}
	replies, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | get, Flags: netlink.Request | flags},
		Data:   append([]byte{unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0}, attrs...),
	})
	if err != nil {
		t.reader = nil
		return nil, errors.Join(err, conn.Close())
	}
	return replies, nil
}

// A fingerprint takes in what the kernel tells of the table.
type fingerprint struct {
	hash  hash.Hash
	found bool // something of our table
	torn  bool // there was another transaction while the kernel told it
}

// add takes in the answers to one request. Each tells of one thing, which may
// belong to another table.
func (f *fingerprint) add(a aspect, replies []netlink.Message) {
	for _, m := range replies {
		f.torn = f.torn || m.Header.Flags&netlink.DumpInterrupted != 0
		if len(m.Data) < nfgenmsg || m.Data[0] != unix.NFPROTO_INET {
			continue
		}
		all := attributes(m.Data[nfgenmsg:])
		if cString(all[unix.NFTA_TABLE_NAME]) != TableName {
			continue
		}
		f.found = true
		if a.get == unix.NFT_MSG_GETOBJ && slices.Equal(all[unix.NFTA_OBJ_TYPE], []byte{0, 0, 0, unix.NFT_OBJECT_COUNTER}) {
			delete(all, unix.NFTA_OBJ_DATA) // what it has counted
		}
		f.write(uint16(a.get), nil)
		f.keep(all, a.keep)
	}
}

// addElements takes in the elements of a set, one by one: how many come in a
// message depends on the reader's buffer. It counts those that begin an
// interval.
func (f *fingerprint) addElements(set string, replies []netlink.Message) (starts int) {
	f.write(unix.NFT_MSG_GETSETELEM, []byte(set))
	for _, m := range replies {
		f.torn = f.torn || m.Header.Flags&netlink.DumpInterrupted != 0
		if len(m.Data) < nfgenmsg {
			continue
		}
		eachAttr(attributes(m.Data[nfgenmsg:])[unix.NFTA_SET_ELEM_LIST_ELEMENTS], func(elem *netlink.AttributeDecoder) {
			all := attributes(elem.Bytes())
			if !endsInterval(all[unix.NFTA_SET_ELEM_FLAGS]) {
				starts++
			}
			f.write(unix.NFTA_LIST_ELEM, nil)
			f.keep(all, elementAttrs)
		})
	}
	return starts
}

func (f *fingerprint) keep(all map[uint16][]byte, attrs []uint16) {
	for _, attr := range attrs {
		if value, there := all[attr]; there {
			f.write(attr, value)
		}
	}
}

// write adds a value in a form that can be told from any other.
func (f *fingerprint) write(what uint16, value []byte) {
	head := binary.BigEndian.AppendUint16(nil, what)
	f.hash.Write(binary.BigEndian.AppendUint32(head, uint32(len(value))))
	f.hash.Write(value)
}

// attributes reads netlink attributes of different types.
func attributes(raw []byte) map[uint16][]byte {
	all := make(map[uint16][]byte)
	eachAttr(raw, func(ad *netlink.AttributeDecoder) { all[ad.Type()] = ad.Bytes() })
	return all
}
