package nft

import (
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Names of the counters and of what connection tracking is told.
const (
	counterDropped = "dropped"
	counterFlooded = "flooded"
)

// A builder fills one transaction with the table.
type builder struct {
	conn  *nftables.Conn
	table *nftables.Table
	cfg   Config
	sets  sets

	// anonymous sets, which live as long as the one rule that names them
	neighbour, wildcard *nftables.Set
}

func newBuilder(conn *nftables.Conn, name string, cfg Config) *builder {
	t := &nftables.Table{Name: name, Family: nftables.TableFamilyINet}
	return &builder{
		conn: conn, table: t, cfg: cfg, sets: newSets(t),
		neighbour: &nftables.Set{}, wildcard: &nftables.Set{},
	}
}

// addTable adds the table with its sets and objects where they are missing
// and fills the sets that come from the configuration.
func (b *builder) addTable() error {
	b.conn.AddTable(b.table)
	for _, s := range b.sets.all() {
		if err := b.conn.AddSet(s, nil); err != nil {
			return err
		}
	}
	b.addObjects()
	if err := b.fillIgnored(b.cfg.Ignored); err != nil {
		return err
	}
	return b.fillDecoys()
}

func (b *builder) addObjects() {
	for _, name := range []string{counterDropped, counterFlooded} {
		b.conn.AddObj(&nftables.NamedObj{Table: b.table, Name: name, Type: nftables.ObjTypeCounter, Obj: &expr.Counter{}})
	}
	b.addBrief("brief4", unix.NFPROTO_IPV4)
	b.addBrief("brief6", unix.NFPROTO_IPV6)
}

// addBrief makes connection tracking forget connections to decoys in seconds,
// so that a forged flood cannot fill its table.
func (b *builder) addBrief(name string, l3proto uint16) {
	b.conn.AddObj(&nftables.NamedObj{Table: b.table, Name: name, Type: nftables.ObjTypeCtTimeout, Obj: &expr.CtTimeout{
		L3Proto: l3proto,
		L4Proto: unix.IPPROTO_TCP,
		Policy: expr.CtStatePolicyTimeout{ // seconds
			expr.CtStateTCPSYNSENT: 3, expr.CtStateTCPSYNRECV: 3, expr.CtStateTCPESTABLISHED: 30, expr.CtStateTCPCLOSE: 1,
		},
	}})
}

// fillIgnored replaces the elements of the sets of ignored sources.
func (b *builder) fillIgnored(prefixes []netip.Prefix) error {
	for _, half := range []struct {
		set *nftables.Set
		f   family
	}{{b.sets.ignored4, ipv4}, {b.sets.ignored6, ipv6}} {
		b.conn.FlushSet(half.set)
		for _, s := range merge(ofFamily(prefixes, half.f)) {
			if err := b.conn.SetAddElements(half.set, interval(s.first, s.last, 0, "")); err != nil {
				return err
			}
		}
	}
	return nil
}

func ofFamily(prefixes []netip.Prefix, f family) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range prefixes {
		if p.Addr().BitLen() == f.last.BitLen() {
			out = append(out, p)
		}
	}
	return out
}

func (b *builder) fillDecoys() error {
	b.conn.FlushSet(b.sets.decoyTCP)
	var elems []nftables.SetElement
	for _, r := range b.cfg.Decoys {
		elems = append(elems, portInterval(r)...)
	}
	return addElements(b.conn, b.sets.decoyTCP, elems)
}

// addElements adds elements in as many messages as they need.
//
// All elements of a message share one netlink attribute, whose length has 16
// bits: the library lets it wrap, and the kernel then takes a few of the
// elements and reports no error.
func addElements(conn *nftables.Conn, set *nftables.Set, elems []nftables.SetElement) error {
	const room = 60000 // bytes, of 65,535
	size, from := 0, 0
	for i, e := range elems {
		n := 64 + len(e.Key) + len(e.Comment)
		if size+n > room {
			if err := conn.SetAddElements(set, elems[from:i]); err != nil {
				return err
			}
			size, from = 0, i
		}
		size += n
	}
	if from == len(elems) {
		return nil
	}
	return conn.SetAddElements(set, elems[from:])
}
