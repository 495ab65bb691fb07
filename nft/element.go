package nft

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// MaxComment is how many bytes a comment may have: nft(8) takes 128 with the
// zero byte at the end.
const MaxComment = 127

// ErrNotApplied means that the kernel reported no error for a write and yet
// does not hold what was written.
var ErrNotApplied = errors.New("the kernel did not apply it")

// An Element is a blocked source as the kernel holds it.
type Element struct {
	// Prefix is what is blocked, a full-length one for a single address. It
	// is masked, and no IPv4 address wears IPv6 clothes.
	Prefix netip.Prefix
	// Timeout is how long from now the block lasts. It is rounded up to whole
	// seconds, at least one. Read back, 0 means for ever.
	Timeout time.Duration
	// Comment is shown by nft(8); at most MaxComment bytes.
	Comment string
	// Age is how long ago a host was blocked, when it is read back.
	Age time.Duration
}

func (e Element) validate() error {
	switch {
	case !e.Prefix.IsValid() || e.Prefix != e.Prefix.Masked() || e.Prefix.Addr().Is4In6() || e.Prefix.Addr().Zone() != "":
		return fmt.Errorf("%v is not a masked prefix", e.Prefix)
	case len(e.Comment) > MaxComment:
		return fmt.Errorf("comment of %d bytes, %d allowed", len(e.Comment), MaxComment)
	case e.Timeout < time.Second:
		return fmt.Errorf("timeout %v is under a second", e.Timeout)
	}
	return nil
}

// Block adds the elements, or gives those that are there the new timeout and
// comment, be it longer or shorter: all of them in one transaction, or none.
// It returns once the kernel holds them.
//
// Errors: unix.ENOENT, when somebody has deleted the table; unix.ENFILE, when
// the set is full; ErrNotApplied.
func (t *Table) Block(elems ...Element) error {
	if err := t.block(slices.Values(elems), math.MaxInt); err != nil {
		if len(elems) == 1 {
			return fmt.Errorf("block %s: %w", elems[0].Prefix, err)
		}
		return fmt.Errorf("block %d sources: %w", len(elems), err)
	}
	return nil
}

// block sorts out prefixes, which go with the hosts, or before more of them than
// go into one transaction.
func (t *Table) block(elems iter.Seq[Element], most int) error {
	n, now, nets := 0, time.Now(), make(map[netip.Prefix]span)
	for e := range elems {
		switch err := e.validate(); {
		case err != nil:
			return err
		case t.isHost(e.Prefix):
			n++
		default:
			nets[e.Prefix] = spanOf(e.Prefix, now.Add(e.Timeout), e.Comment)
		}
	}
	add := func() { maps.Copy(t.nets, nets) }
	if n <= most {
		return t.change(t.hostsOf(elems), n, add, len(nets) > 0)
	}
	if len(nets) > 0 {
		if err := t.changeNets(add); err != nil {
			return err
		}
	}
	return t.putMany(TableName, t.hostsOf(elems))
}

// hostsOf are those of the elements that go to sets of hosts.
func (t *Table) hostsOf(elems iter.Seq[Element]) iter.Seq[Element] {
	return func(yield func(Element) bool) {
		for e := range elems {
			if t.isHost(e.Prefix) && !yield(e) {
				return
			}
		}
	}
}

// change puts so many hosts into the kernel and, if there are any to change,
// all prefixes as they are when they were changed. If that fails that is taken
// back.
func (t *Table) change(hosts iter.Seq[Element], n int, change func(), nets bool) error {
	began, old := time.Now(), t.nets
	if nets {
		t.nets = maps.Clone(old)
		change()
	}
	err := t.put(TableName, hosts, n, mostCounted, func(b *builder) error {
		if nets {
			return b.fillNets(t.nets)
		}
		return nil
	})
	if err == nil {
		err = t.verifyHosts(sample(hosts, n), began)
	}
	if err == nil && nets {
		err = t.verifyNets()
	}
	if err != nil {
		t.nets = old
	}
	return err
}

// putHosts adds, deletes and adds again: before Linux 6.12 an element that is
// there keeps its old timeout when it is added again.
func (b *builder) putHosts(hosts iter.Seq[Element]) error {
	return errors.Join(
		b.eachHost(unix.NFT_MSG_NEWSETELEM, 0, hosts),
		b.eachHost(unix.NFT_MSG_DELSETELEM, 0, hosts),
		b.eachHost(unix.NFT_MSG_NEWSETELEM, 0, hosts),
	)
}

// Unblock deletes the elements of the prefixes, of many hosts in several
// transactions. It is no error if one is not there.
func (t *Table) Unblock(prefixes ...netip.Prefix) error {
	var hosts []Element
	nets := make(map[netip.Prefix]span)
	for _, p := range prefixes {
		if t.isHost(p) {
			hosts = append(hosts, Element{Prefix: p, Timeout: time.Minute})
		} else if s, ok := t.nets[p]; ok {
			nets[p] = s
		}
	}
	if err := errors.Join(t.unblockHosts(hosts), t.unblockNets(nets)); err != nil {
		return fmt.Errorf("unblock: %w", err)
	}
	return nil
}

// unblockHosts adds before it deletes: to delete what has just expired is an
// error. Where a full set has no room for that, each goes by itself.
func (t *Table) unblockHosts(hosts []Element) error {
	for some := range slices.Chunk(hosts, piece) {
		if err := t.unblockPiece(some); err != nil {
			return err
		}
	}
	return nil
}

func (t *Table) unblockPiece(hosts []Element) error {
	err := t.transact(func(b *builder) error { return b.deleteHosts(hosts) })
	if errors.Is(err, unix.ENFILE) {
		err = nil
		for _, e := range hosts {
			gone := t.transact(func(b *builder) error { return b.eachHost(unix.NFT_MSG_DELSETELEM, 0, slices.Values([]Element{e})) })
			if !errors.Is(gone, unix.ENOENT) {
				err = errors.Join(err, gone)
			}
		}
	}
	if errors.Is(err, unix.ENOENT) { // so is the table
		return nil
	}
	if err != nil {
		return err
	}
	return t.verifyGone(hosts)
}

func (b *builder) deleteHosts(hosts []Element) error {
	for chunk := range slices.Chunk(hosts, 512) { // the set may have no room for more at once
		err := errors.Join(
			b.eachHost(unix.NFT_MSG_NEWSETELEM, 0, slices.Values(chunk)),
			b.eachHost(unix.NFT_MSG_DELSETELEM, 0, slices.Values(chunk)),
		)
		if err != nil {
			return err
		}
	}
	return nil
}

// Forgive has the kernel forget what it has counted against the sources, so
// that each begins anew; without any, against everybody.
func (t *Table) Forgive(sources ...netip.Prefix) error {
	if len(sources) == 0 {
		err := t.transact(func(b *builder) error {
			b.conn.FlushSet(b.sets.suspects4)
			b.conn.FlushSet(b.sets.suspects6)
			return nil
		})
		return ignoreMissing("forgive all sources", err)
	}
	const few = 16
	var errs []error
	if len(sources) > few {
		var err error
		if sources, err = t.suspected(sources); err != nil {
			errs = append(errs, ignoreMissing("forgive sources", err))
		}
	}
	for _, p := range sources { // each by itself: to delete what is not there is an error
		err := t.transact(func(b *builder) error {
			return b.conn.SetDeleteElements(b.suspectSet(p.Addr().Is4()), []nftables.SetElement{{Key: p.Addr().AsSlice()}})
		})
		errs = append(errs, ignoreMissing(fmt.Sprintf("forgive %s", p), err))
	}
	return errors.Join(errs...)
}

// suspected are those of the sources against which the kernel has counted
// anything.
func (t *Table) suspected(sources []netip.Prefix) ([]netip.Prefix, error) {
	asked := make(map[netip.Addr]netip.Prefix, len(sources))
	for _, p := range sources {
		asked[p.Addr()] = p
	}
	var found []netip.Prefix
	b := newBuilder(nil, TableName, t.cfg)
	for _, v4 := range []bool{true, false} {
		err := t.eachElement(b.suspectSet(v4), func(e listed) {
			if p, ok := asked[e.key]; ok {
				found = append(found, p)
			}
		})
		if err != nil {
			return found, err
		}
	}
	return found, nil
}

func (b *builder) suspectSet(v4 bool) *nftables.Set {
	if v4 {
		return b.sets.suspects4
	}
	return b.sets.suspects6
}

// ignoreMissing passes over that there is no table, or no such element in it.
func ignoreMissing(what string, err error) error {
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

func (t *Table) unblockNets(nets map[netip.Prefix]span) error {
	if len(nets) == 0 {
		return nil
	}
	began := time.Now()
	err := t.changeNets(func() {
		for p := range nets {
			delete(t.nets, p)
		}
	})
	if err != nil {
		return err
	}
	if err := t.verifyNoMore(began); err != nil {
		maps.Copy(t.nets, nets) // whatever is there is taken out by the next change
		return err
	}
	return nil
}

func (b *builder) blockSets() []*nftables.Set {
	return []*nftables.Set{b.sets.blocked4, b.sets.blocked6, b.sets.nets4, b.sets.nets6}
}

// isHost tells whether a prefix goes to a set of hosts: one address, or an
// IPv6 prefix of just the configured length. An IPv6 address that is the
// first of such a prefix does not, since its element would stand for the
// whole prefix.
func (t *Table) isHost(p netip.Prefix) bool {
	switch {
	case p.Addr().Is4():
		return p.IsSingleIP()
	case p.Bits() == t.cfg.Prefix6:
		return true
	default:
		wide := netip.PrefixFrom(p.Addr(), t.cfg.Prefix6)
		return p.IsSingleIP() && wide.Masked() != wide
	}
}

func (b *builder) hostSet(p netip.Prefix) *nftables.Set {
	if p.Addr().Is4() {
		return b.sets.blocked4
	}
	return b.sets.blocked6
}

// sort splits blocks into hosts, which it returns with their number, and
// prefixes, for t.nets.
func (t *Table) sort(blocks iter.Seq[Element]) (hosts iter.Seq[Element], n int) {
	if blocks == nil {
		return none, 0
	}
	now := time.Now()
	for e := range blocks {
		if t.isHost(e.Prefix) {
			n++
			continue
		}
		t.nets[e.Prefix] = spanOf(e.Prefix, now.Add(e.Timeout), e.Comment)
	}
	return t.hostsOf(blocks), n
}

// fillHosts replaces the elements of the sets of hosts.
func (b *builder) fillHosts(hosts iter.Seq[Element]) error {
	b.conn.FlushSet(b.sets.blocked4)
	b.conn.FlushSet(b.sets.blocked6)
	return b.eachHost(unix.NFT_MSG_NEWSETELEM, 0, hosts)
}

// eachHost adds or deletes hosts, with flags besides those of all messages.
func (b *builder) eachHost(kind netlink.HeaderType, flags netlink.HeaderFlags, hosts iter.Seq[Element]) error {
	w4, w6 := b.batch.elements(kind, b.sets.blocked4), b.batch.elements(kind, b.sets.blocked6)
	w4.flags, w6.flags = flags, flags
	w4.counters, w6.counters = b.counted, b.counted
	for e := range hosts {
		if e.Prefix.Addr().Is4() {
			w4.add(e)
		} else {
			w6.add(e)
		}
	}
	return errors.Join(w4.close(), w6.close())
}

// changeNets makes a change to the prefixes asked for and puts it, with all
// others, into the kernel in one transaction; if that fails the change is
// taken back.
func (t *Table) changeNets(do func()) error { return t.change(none, 0, do, true) }

// none are no hosts.
func none(func(Element) bool) {}

// RestoreNets puts all blocked prefixes back into their sets, in place of what
// somebody has made of them. The error is unix.ENOENT if somebody has deleted
// the table.
func (t *Table) RestoreNets() error {
	if err := t.changeNets(func() {}); err != nil {
		return fmt.Errorf("restore blocked prefixes: %w", err)
	}
	return nil
}

// fillNets replaces the elements of the sets of prefixes by the disjoint form
// of all that are asked for.
func (b *builder) fillNets(nets map[netip.Prefix]span) error {
	var errs []error
	for _, f := range []family{ipv4, ipv6} {
		set := b.netSet(f)
		b.conn.FlushSet(set)
		errs = append(errs, addElements(b.conn, set, netElements(f, nets)))
	}
	return errors.Join(errs...)
}

func (b *builder) netSet(f family) *nftables.Set {
	if f.bytes == ipv4.bytes {
		return b.sets.nets4
	}
	return b.sets.nets6
}

func netElements(f family, nets map[netip.Prefix]span) []nftables.SetElement {
	var elems []nftables.SetElement
	for _, s := range liveSpans(f, nets) {
		elems = append(elems, interval(s.first, s.last, seconds(time.Until(s.until)), s.comment)...)
	}
	return elems
}

// liveSpans is the disjoint form of the prefixes of a family whose time is not up.
func liveSpans(f family, nets map[netip.Prefix]span) []span { return spansAt(f, nets, time.Now()) }

func spansAt(f family, nets map[netip.Prefix]span, now time.Time) []span {
	var all []span
	for p, s := range nets {
		if p.Addr().BitLen() == f.last.BitLen() && s.until.After(now) {
			all = append(all, s)
		}
	}
	return disjoint(all)
}
