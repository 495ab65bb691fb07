package nft

import (
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

// ErrDormant means that the table is there, and that the kernel passes over it.
var ErrDormant = errors.New("the table is dormant")

// A Table is nftsentry's table in the kernel of one network namespace. It
// outlives the program: Close leaves it in force, Delete takes it away. A
// Table must not be used by two goroutines at once, nor two Tables of one
// process: the library numbers sets in a variable of its own.
type Table struct {
	netns  int
	cfg    Config
	nets   map[netip.Prefix]span // prefixes asked for; the nets sets hold their disjoint form
	conn   *nftables.Conn        // lasting; nil until needed and after an error
	wire   *netlink.Conn         // what conn uses
	port   uint32                // the port id of conn
	ports  ownPorts              // of all connections that make changes
	reader *netlink.Conn         // for single elements and for the shape, likewise
	found  map[string]int        // intervals in each set that look has seen last, by the name of the set
	shape  shape                 // what our own last transaction has left; nothing if somebody came between
}

// Open makes ready to work on the table in the network namespace that the
// file descriptor netns stands for, or in the caller's if it is 0. It does
// not change the kernel. Until Load, what is there is read as a table that
// blocks IPv6 sources by prefixes of prefix6 bits.
func Open(netns, prefix6 int) (*Table, error) {
	t := &Table{netns: netns, cfg: Config{Prefix6: prefix6}, nets: make(map[netip.Prefix]span)}
	if _, err := t.connection(); err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	return t, nil
}

// Close gives back what Open took and leaves the table as it is.
func (t *Table) Close() error {
	var errs []error
	if t.conn != nil {
		errs = append(errs, t.hangUp())
	}
	if t.reader != nil {
		errs = append(errs, t.reader.Close())
		t.reader = nil
	}
	return errors.Join(errs...)
}

// bufferSize is what the netlink sockets ask for, in bytes: a transaction is
// sent as one datagram, and each of its messages is acknowledged.
const bufferSize = 32 << 20

func bigBuffers(c *netlink.Conn) error {
	return errors.Join(c.SetReadBuffer(bufferSize), c.SetWriteBuffer(bufferSize))
}

func (t *Table) connection() (*nftables.Conn, error) {
	if t.conn != nil {
		return t.conn, nil
	}
	opts := []nftables.ConnOption{nftables.AsLasting(), nftables.WithSockOptions(bigBuffers, t.opened)}
	if t.netns != 0 {
		opts = append(opts, nftables.WithNetNSFd(t.netns))
	}
	conn, err := nftables.New(opts...)
	if err != nil {
		return nil, err
	}
	t.conn = conn
	return conn, nil
}

// opened has refusals come without the message that was refused: those of many
// elements are more than a small buffer takes.
func (t *Table) opened(c *netlink.Conn) error {
	t.wire, t.port = c, c.PID()
	t.ports.opened(t.port)
	return c.SetOption(netlink.CapAcknowledge, true)
}

// hangUp closes the connection for changes.
func (t *Table) hangUp() error {
	conn := t.conn
	t.conn, t.wire = nil, nil
	if conn == nil {
		return nil
	}
	t.ports.closing(t.port)
	return conn.CloseLasting()
}

// transact sends what fill adds as one transaction: all of it takes effect at
// once, or nothing does. A connection that has failed once is not used again,
// since the kernel's late answers may be in it.
func (t *Table) transact(fill func(*builder) error) error {
	return t.transactAs(TableName, t.cfg, fill)
}

// transactAs is transact for a table of another name and configuration.
func (t *Table) transactAs(name string, cfg Config, fill func(*builder) error) error {
	if _, err := t.connection(); err != nil {
		return err
	}
	out, err := newBatch()
	if err == nil {
		err = fill(newBuilder(out, name, cfg))
	}
	if err == nil {
		err = out.send(t.wire)
	}
	if err != nil {
		return errors.Join(tooLong(err), t.hangUp())
	}
	return nil
}

// tooLong says what to do where a transaction is longer than the socket takes:
// without CAP_NET_ADMIN in the first user namespace it gets no larger buffer
// than others do, socket(7).
func tooLong(err error) error {
	if !errors.Is(err, unix.EMSGSIZE) {
		return err
	}
	return fmt.Errorf("%w: more than a socket may send at once in this container: set the sysctl net.core.wmem_max of the host to %d, or ignore and block fewer",
		err, bufferSize)
}

// Load makes the table what the configuration says, with exactly the given
// blocks in its sets, in one transaction: a packet meets the old table or the
// new one, never something between. More than 131,072 hosts come in several:
// a packet of a blocked source meets the old table, the new one, or one that
// stands in meanwhile; after an error the next Load begins anew. Of services
// there are then just those given, at most MaxServed; nil leaves those that
// are there.
//
// An error that is an *UnsupportedError says what the kernel lacks.
//
// Blocks may be nil, and is gone through several times: each time with the
// same elements, in any order.
func (t *Table) Load(cfg Config, blocks iter.Seq[Element], served []Service) error {
	if err := cfg.validate(); err != nil {
		return err
	}
	old, nets := t.cfg, t.nets
	t.cfg, t.nets = cfg, make(map[netip.Prefix]span)
	if err := t.load(blocks, served); err != nil {
		t.cfg, t.nets = old, nets
		return t.explain(cfg, err)
	}
	return nil
}

func (t *Table) load(blocks iter.Seq[Element], served []Service) error {
	asleep, err := t.dormant()
	if err != nil {
		return err
	}
	fits, err := t.fit()
	if err != nil {
		return err
	}
	afresh := asleep || !fits // to wake it up and change it at once is more than the kernel allows
	hosts, n := t.sort(blocks)
	if n > atOnce {
		return t.loadMany(hosts, served, afresh)
	}
	began := time.Now()
	if err := t.replace(hosts, served, afresh); err != nil {
		return err
	}
	return errors.Join(t.verifyHosts(sample(hosts, n), began), t.verifyNets(), t.dismiss())
}

// replace builds the table around hosts and t.nets; afresh takes away first
// what is there. A table of another version has sets of the same name and
// other shape.
func (t *Table) replace(hosts iter.Seq[Element], served []Service, afresh bool) error {
	err := t.rebuild(hosts, served, afresh)
	if !afresh && (errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EBUSY)) {
		err = t.rebuild(hosts, served, true)
	}
	return err
}

func (t *Table) rebuild(hosts iter.Seq[Element], served []Service, afresh bool) error {
	return t.transform(func(b *builder, chains []string) error {
		b.conn.AddTable(b.table)
		if afresh {
			b.conn.DelTable(b.table)
		} else {
			b.removeChains(chains)
		}
		if err := b.addTable(); err != nil {
			return err
		}
		if err := b.fillHosts(hosts); err != nil {
			return err
		}
		if err := b.fillNets(t.nets); err != nil {
			return err
		}
		if served != nil {
			if err := b.fillServed(served); err != nil {
				return err
			}
		}
		return b.addChains()
	})
}

// presentChains names the chains that a table of ours has now.
func (t *Table) presentChains(table string) ([]string, error) {
	conn, err := t.connection()
	if err != nil {
		return nil, err
	}
	all, err := conn.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, fmt.Errorf("list chains: %w", err)
	}
	var names []string
	for _, c := range all {
		if c.Table.Name == table {
			names = append(names, c.Name)
		}
	}
	return names, nil
}

// removeChains empties all chains before it deletes any: they refer to each other.
func (b *builder) removeChains(names []string) {
	for _, name := range names {
		b.conn.FlushChain(&nftables.Chain{Table: b.table, Name: name})
	}
	for _, name := range names {
		b.conn.DelChain(&nftables.Chain{Table: b.table, Name: name})
	}
}

// Reshape makes all of the table again that Intact looks at, and leaves its
// blocks, and what it has learnt, as they are. The error is unix.ENOENT if
// somebody has deleted the table or one of its sets, ErrDormant if somebody
// has put it to sleep: Load wakes it up.
func (t *Table) Reshape() error {
	asleep, err := t.dormant()
	if err != nil {
		return err
	}
	if asleep {
		return ErrDormant
	}
	if err := t.transform((*builder).reshape); err != nil {
		return fmt.Errorf("make the table's rules again: %w", err)
	}
	return nil
}

// dormant tells whether somebody has put the table to sleep.
func (t *Table) dormant() (bool, error) {
	conn, err := t.connection()
	if err != nil {
		return false, err
	}
	tables, err := conn.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return false, fmt.Errorf("list tables: %w", err)
	}
	// No other flag can be set on a table of ours, and the library gives them in the wrong byte order.
	return slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == TableName && t.Flags != 0 }), nil
}

// Unlure takes the chain away that leads decoy ports to the listener, as
// befits a listener that stops. All blocks stay in force. The error is
// unix.ENOENT if somebody has deleted the table.
func (t *Table) Unlure() error {
	t.cfg.Port = 0
	err := t.transform(func(b *builder, chains []string) error {
		b.removeChains(chains)
		return b.addChains()
	})
	if err != nil {
		return fmt.Errorf("take the lure chain away: %w", err)
	}
	return nil
}

// SetHost replaces the sources that are neither noticed nor blocked, and the
// IPv6 prefixes of the host's own links, as in Config.
func (t *Table) SetHost(ignored, onLink6 []netip.Prefix) error {
	t.cfg.Ignored, t.cfg.OnLink6 = ignored, onLink6
	err := t.transform(func(b *builder, _ []string) error { return b.fillSources() })
	if err != nil {
		return fmt.Errorf("replace ignored sources and neighbours: %w", err)
	}
	return nil
}

// Delete takes the table away with all that is in it, and tells whether there was one.
func (t *Table) Delete() (bool, error) {
	conn, err := t.connection()
	if err != nil {
		return false, err
	}
	found, err := exists(conn, TableName)
	if err != nil {
		return false, err
	}
	t.shape = shape{}
	if err := errors.Join(t.transact((*builder).deleteTable), t.dismiss()); err != nil {
		return false, fmt.Errorf("delete table inet %s: %w", TableName, err)
	}
	return found, nil
}

func (b *builder) deleteTable() error {
	b.conn.AddTable(b.table) // deleting what is not there would be an error
	b.conn.DelTable(b.table)
	return nil
}

// seconds rounds a time left up to what an element gets: whole seconds, and
// never 0, which would mean for ever.
func seconds(d time.Duration) time.Duration {
	return max(time.Second, (d + time.Second - 1).Truncate(time.Second))
}
