package nft

import (
	"errors"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Names of the counters and of what connection tracking is told.
const (
	counterDropped = "dropped"
	counterFlooded = "flooded"
	counterSpent   = "budget_spent"
	counterCrowded = "crowded"
)

// counters are the names of all counters, in the order in which nft(8) shows them.
var counters = []string{counterDropped, counterFlooded, counterSpent, counterCrowded}

// A brief is a policy by which connection tracking forgets probes in seconds,
// so that a forged flood cannot fill its table.
type brief struct {
	name    string
	family  family
	l4proto byte
	policy  expr.CtStatePolicyTimeout // seconds
}

var briefs = []brief{
	{"brief4", ipv4, unix.IPPROTO_TCP, briefTCP}, {"brief6", ipv6, unix.IPPROTO_TCP, briefTCP},
	{"brief_udp4", ipv4, unix.IPPROTO_UDP, briefUDP}, {"brief_udp6", ipv6, unix.IPPROTO_UDP, briefUDP},
}

var (
	briefTCP = expr.CtStatePolicyTimeout{
		expr.CtStateTCPSYNSENT: 3, expr.CtStateTCPSYNRECV: 3, expr.CtStateTCPESTABLISHED: 30, expr.CtStateTCPCLOSE: 1,
	}
	briefUDP = expr.CtStatePolicyTimeout{expr.CtStateUDPUNREPLIED: 3, expr.CtStateUDPREPLIED: 30}
)

// A builder fills one transaction with the table.
type builder struct {
	batch *batch
	conn  *nftables.Conn // of the batch
	table *nftables.Table
	cfg   Config
	sets  sets

	counted int            // how many of the hosts of each family count what they drop
	filled  map[string]int // intervals that sets of sources have got, by the name of the set
	err     error          // of adding anonymous sets
}

// newBuilder makes one for a batch, or for nothing but the names if there is
// none.
func newBuilder(out *batch, name string, cfg Config) *builder {
	t := &nftables.Table{Name: name, Family: nftables.TableFamilyINet}
	b := &builder{batch: out, table: t, cfg: cfg, sets: newSets(t, cfg.MaxHosts()), counted: mostCounted, filled: make(map[string]int)}
	if out != nil {
		b.conn = out.conn
	}
	return b
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
	if err := b.fillSources(); err != nil {
		return err
	}
	return b.fillPorts()
}

func (b *builder) addObjects() {
	for _, name := range counters {
		b.conn.AddObj(&nftables.NamedObj{Table: b.table, Name: name, Type: nftables.ObjTypeCounter, Obj: &expr.Counter{}})
	}
	for _, br := range briefs {
		b.addBrief(br)
	}
}

func (b *builder) addBrief(br brief) {
	b.conn.AddObj(&nftables.NamedObj{Table: b.table, Name: br.name, Type: nftables.ObjTypeCtTimeout, Obj: &expr.CtTimeout{
		L3Proto: uint16(br.family.nfproto), L4Proto: br.l4proto, Policy: br.policy,
	}})
}

// fillSources replaces the elements of the sets that say who is ignored and
// who is a neighbour.
func (b *builder) fillSources() error {
	return errors.Join(
		b.fillPrefixes(b.sets.ignored4, ipv4, b.cfg.Ignored),
		b.fillPrefixes(b.sets.ignored6, ipv6, b.cfg.Ignored),
		b.fillPrefixes(b.sets.onLink6, ipv6, append(b.cfg.OnLink6[:len(b.cfg.OnLink6):len(b.cfg.OnLink6)], linkLocal)),
	)
}

// linkLocal is where every IPv6 host has neighbours, RFC 4291 section 2.5.6.
var linkLocal = netip.MustParsePrefix("fe80::/10")

func (b *builder) fillPrefixes(set *nftables.Set, f family, prefixes []netip.Prefix) error {
	b.conn.FlushSet(set)
	spans := merge(ofFamily(prefixes, f))
	b.filled[set.Name] = len(spans)
	elems := make([]nftables.SetElement, 0, 2*len(spans))
	for _, s := range spans {
		elems = append(elems, interval(s.first, s.last, 0, "")...)
	}
	return addElements(b.conn, set, elems)
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

// fillPorts replaces the elements of the sets that say where the tripwires are.
func (b *builder) fillPorts() error {
	var errs []error
	for set, ports := range map[*nftables.Set][]PortRange{
		b.sets.decoyTCP: b.cfg.Decoys, b.sets.watchTCP: b.cfg.WatchTCP, b.sets.watchUDP: b.cfg.WatchUDP,
	} {
		b.conn.FlushSet(set)
		errs = append(errs, addElements(b.conn, set, portIntervals(ports)))
	}
	return errors.Join(errs...)
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
