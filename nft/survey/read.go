package survey

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// attempts bounds what is repeated because others change nftables meanwhile.
const attempts = 4

// Read asks the kernel for all tables of the network namespace that the file descriptor netns stands for, or of the
// caller's if it is 0. The caller needs CAP_NET_ADMIN there. It changes nothing.
func Read(netns int) (Ruleset, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: netns})
	if err != nil {
		return Ruleset{}, fmt.Errorf("open nftables: %w", err)
	}
	var r Ruleset
	for range attempts {
		s := &reader{conn: conn, chains: map[id]*Chain{}}
		r, err = s.read()
		if err != nil || !s.torn {
			break
		}
	}
	if err = errors.Join(err, conn.Close()); err != nil {
		return Ruleset{}, fmt.Errorf("read nftables: %w", err)
	}
	return r, nil
}

// An id names a chain or a table, which has no chain.
type id struct {
	family       byte
	table, chain string
}

// A reader gathers what the kernel tells.
type reader struct {
	conn   *netlink.Conn
	torn   bool // there was a transaction while the kernel told it
	order  []id
	chains map[id]*Chain
	maps   map[id][]verdict // verdict maps by the name of the set, each read once
}

func (s *reader) read() (Ruleset, error) {
	s.maps = map[id][]verdict{}
	var tables []table
	err := s.dump(unix.NFT_MSG_GETTABLE, unix.NFPROTO_UNSPEC, nil, func(family byte, a attributes) {
		const dormant = 1 // NFT_TABLE_F_DORMANT
		asleep := number(a[unix.NFTA_TABLE_FLAGS])&dormant != 0
		tables = append(tables, table{family, Table{Family: families[family], Name: text(a[unix.NFTA_TABLE_NAME]), Dormant: asleep}})
	})
	if err == nil {
		err = s.dump(unix.NFT_MSG_GETCHAIN, unix.NFPROTO_UNSPEC, nil, s.chain)
	}
	type raw struct {
		chain id
		exprs []byte
	}
	var rules []raw
	if err == nil {
		err = s.dump(unix.NFT_MSG_GETRULE, unix.NFPROTO_UNSPEC, nil, func(family byte, a attributes) {
			c := id{family, text(a[unix.NFTA_RULE_TABLE]), text(a[unix.NFTA_RULE_CHAIN])}
			rules = append(rules, raw{c, a[unix.NFTA_RULE_EXPRESSIONS]})
		})
	}
	if err != nil {
		return Ruleset{}, err
	}
	for _, r := range rules {
		if c := s.chains[r.chain]; c != nil {
			c.Rules = append(c.Rules, s.rule(r.chain, r.exprs))
		}
	}
	return s.ruleset(tables), nil
}

// A table with its family as a number.
type table struct {
	family byte
	Table
}

func (s *reader) ruleset(tables []table) Ruleset {
	var r Ruleset
	for _, t := range tables {
		for _, c := range s.order {
			if c.family == t.family && c.table == t.Name {
				t.Chains = append(t.Chains, *s.chains[c])
			}
		}
		r.Tables = append(r.Tables, t.Table)
	}
	slices.SortStableFunc(r.Tables, func(a, b Table) int {
		return cmp.Or(cmp.Compare(a.Family, b.Family), cmp.Compare(a.Name, b.Name))
	})
	return r
}

// nfgenmsg is the header of nfnetlink messages: family, version, resource id.
const nfgenmsg = 4

// dump asks for all of a kind, and calls each for what comes.
func (s *reader) dump(get netlink.HeaderType, family byte, names map[uint16]string, each func(family byte, a attributes)) error {
	enc := netlink.NewAttributeEncoder()
	for attr, name := range names {
		enc.String(attr, name)
	}
	attrs, err := enc.Encode()
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	_, err = s.conn.Send(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | get, Flags: netlink.Request | netlink.Dump},
		Data:   append([]byte{family, unix.NFNETLINK_V0, 0, 0}, attrs...),
	})
	if err != nil {
		return err
	}
	for m, err := range s.conn.ReceiveIter() {
		if err != nil {
			return err
		}
		s.torn = s.torn || m.Header.Flags&netlink.DumpInterrupted != 0
		if len(m.Data) >= nfgenmsg {
			each(m.Data[0], decode(m.Data[nfgenmsg:]))
		}
	}
	return nil
}

// attributes are the values of netlink attributes of different types.
type attributes map[uint16][]byte

func decode(raw []byte) attributes {
	all := attributes{}
	each(raw, func(kind uint16, value []byte) { all[kind] = value })
	return all
}

// each calls f for each netlink attribute, up to the first that is cut short.
func each(raw []byte, f func(kind uint16, value []byte)) {
	ad, err := netlink.NewAttributeDecoder(raw)
	if err != nil {
		return
	}
	for ad.Next() {
		f(ad.Type(), ad.Bytes())
	}
}

// text is what stands before the first zero byte.
func text(b []byte) string {
	s, _, _ := strings.Cut(string(b), "\x00")
	return s
}

// number is a big-endian number of 32 bits; 0 if it is none.
func number(b []byte) uint32 {
	if len(b) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}
