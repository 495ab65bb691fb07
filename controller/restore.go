package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"runtime/debug"
	"slices"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"nftsentry/nft"
	"nftsentry/state"
)

// agreement is how much more time may be left in the kernel than in the store,
// or be wrong on record: elements last whole seconds.
const agreement = 2 * time.Second

// Restore makes the table in the kernel, with all blocks that are in the
// store, for the time they have left. Blocks that only the kernel knows are
// adopted. It is called once, before Run.
func (c *Controller) Restore() error {
	defer sparing(true)()
	held, whole, err := c.kernel.Blocked()
	if err != nil {
		return fmt.Errorf("read blocks from the kernel: %w", err)
	}
	over, corrected, err := c.remember(held, nil)
	if err != nil {
		return fmt.Errorf("read blocks: %w", err)
	}
	adopted := c.adopt(held)
	held = nil // it is large
	over = append(over, endsOf(endedNow(c.trim()))...)
	if err := c.recall(); err != nil {
		return err
	}
	if err := c.begin(whole, over); err != nil {
		return fmt.Errorf("load the table: %w", err)
	}
	for _, e := range over {
		c.store.End(e.source, e.at, false, nil)
	}
	for _, b := range adopted {
		if _, still := c.blocks.get(b.Source); still {
			c.store.Save(b, c.told(Notice{What: Blocked, Block: b}, nil))
		}
	}
	for _, source := range corrected {
		if b, still := c.blocks.get(source); still {
			c.store.Save(b, nil)
		}
	}
	c.store.Forget(time.Now().Add(-c.cfg.Forget), maxRemembered)
	c.log.Info("restored", zap.Int("blocks", c.blocks.len()), zap.Int("adopted", len(adopted)), zap.Int("over", len(over)))
	return nil
}

// begin makes the table as it is to be from the start. What the kernel holds
// and nobody could list stays until its own time is up, but for what is over on
// record.
func (c *Controller) begin(whole bool, over []ending) error {
	if whole && !c.many() || c.suspended() {
		return c.load()
	}
	if !whole {
		c.log.Warn("the kernel blocks more hosts than can be listed; those that it has not blocked by itself, and that are not on record, stay blocked until their time is up")
	}
	return c.renew(over...)
}

// sparing has the garbage collector spare memory rather than time until the
// function that it returns is called, if there are many blocks: all are on their way, and what
// was used by then would be left as garbage beside what is used next.
func sparing(many bool) (end func()) {
	const share = 40 // of garbage, in hundredths of what is in use
	if !many {
		return func() {}
	}
	before := debug.SetGCPercent(share)
	return func() {
		debug.SetGCPercent(before)
		debug.FreeOSMemory()
	}
}

// manyBlocks is how many are worth it.
const manyBlocks = 16384

// sparing is for what goes through all blocks there are.
func (c *Controller) sparing() (end func()) {
	return sparing(c.blocks.len() >= manyBlocks)
}

// An ending is a block that is over.
type ending struct {
	source netip.Prefix
	at     time.Time
}

func endsOf(blocks []state.Block) []ending {
	var out []ending
	for _, b := range blocks {
		out = append(out, ending{b.Source, b.Until})
	}
	return out
}

// remember takes over the stored blocks that last, but for those to skip, and
// returns those that are over or ignored by now, and the sources of those whose
// record is wrong. A clock that was set meanwhile has changed the time left in
// the store, but not in the kernel: that has the word. Held is what it holds,
// in order; of prefixes it holds disjoint pieces, which may be those of a wider
// one.
func (c *Controller) remember(held []nft.Element, skip func(source netip.Prefix) bool) (over []ending, corrected []netip.Prefix, err error) {
	now := time.Now()
	take := func(b state.Block, kernel time.Duration) {
		switch left, wrong := c.timeLeft(b, kernel, now); {
		case left <= 0:
			over = append(over, ending{b.Source, b.Until})
		default:
			b.Until = now.Add(left)
			c.blocks.put(b)
			if wrong {
				corrected = append(corrected, b.Source)
			}
		}
	}
	wide := make(prefixes)
	var nets []state.Block // they wait until all are known
	err = c.store.Visit(func(b state.Block) {
		switch {
		case skip != nil && skip(b.Source):
		case c.isHost(b.Source):
			take(b, leftIn(held, b.Source))
		default:
			nets, wide[b.Source] = append(nets, b), true
		}
	})
	for _, b := range nets {
		kernel := time.Duration(0)
		if !wide.contain(b.Source) {
			kernel = leftIn(held, b.Source)
		}
		take(b, kernel)
	}
	return over, corrected, err
}

// timeLeft is how long a stored block still lasts of which the kernel says how
// long, or 0, and whether the store is wrong about it. It is 0 or less for
// what is over or ignored.
func (c *Controller) timeLeft(b state.Block, kernel time.Duration, now time.Time) (left time.Duration, wrong bool) {
	if _, _, ignored := c.ignored.covers(b.Source); ignored {
		return 0, false
	}
	left = b.Until.Sub(now)
	if lasts := b.Until.Sub(b.Since); lasts > 0 { // else it began before a clock was set back, and was corrected since
		left = min(left, lasts) // more is a clock that was set back
	}
	if kernel > 0 && (kernel < left || kernel-left > agreement) {
		left = kernel
	}
	return left, (b.Until.Sub(now) - left).Abs() > agreement
}

// leftIn finds how long a source is blocked by what the kernel holds; 0 if it
// is not, or for ever.
func leftIn(held []nft.Element, source netip.Prefix) time.Duration {
	at, found := slices.BinarySearchFunc(held, source, func(e nft.Element, p netip.Prefix) int {
		return cmp.Or(e.Prefix.Addr().Compare(p.Addr()), cmp.Compare(e.Prefix.Bits(), p.Bits()))
	})
	if !found {
		return 0
	}
	return held[at].Timeout
}

// prefixes is a set of them.
type prefixes map[netip.Prefix]bool

// contain tells whether a wider prefix is around p.
func (ps prefixes) contain(p netip.Prefix) bool {
	for bits := p.Bits() - 1; bits >= 0; bits-- {
		if ps[netip.PrefixFrom(p.Addr(), bits).Masked()] {
			return true
		}
	}
	return false
}

// agree is for a store that has other blocks on record than ours, because it
// was damaged, or could not be read before: what either lacks it gets.
func (c *Controller) agree() {
	defer c.sparing()()
	before := c.blocks.len()
	unrecorded := make(map[sourceKey]bool)
	for source := range c.blocks.sources() {
		unrecorded[keyOf(source)] = true
	}
	over, _, err := c.remember(nil, func(source netip.Prefix) bool {
		delete(unrecorded, keyOf(source))
		return c.blocks.has(source)
	})
	if err != nil {
		c.log.Warn("cannot read all blocks on record", zap.Error(err))
		unrecorded = nil // nobody knows
	}
	for key := range unrecorded {
		if b, ok := c.blocks.get(key.prefix()); ok {
			c.store.Save(b, nil)
		}
	}
	for _, e := range over {
		c.store.End(e.source, e.at, false, nil)
	}
	c.shrink()
	if found := c.blocks.len() - before; found > 0 {
		c.harm(fmt.Sprintf("%d blocks were found on record", found), nil)
	}
	c.log.Info("agreed with the store", zap.Int("blocks", c.blocks.len()))
}

// isHost tells whether a source is what is blocked for one address.
func (c *Controller) isHost(source netip.Prefix) bool {
	return c.blocks.isHost(keyOf(source))
}

// adopt makes blocks of what the kernel blocks and we do not know. It was
// blocked on unproven evidence, when nobody listened.
func (c *Controller) adopt(held []nft.Element) []state.Block {
	var adopted []state.Block
	now, nets := time.Now(), c.blocks.prefixes()
	for _, e := range held {
		if c.unknown(e) && !joined(e, nets) {
			adopted = append(adopted, c.adoption(e, now))
		}
	}
	for _, b := range adopted {
		c.blocks.put(b)
		c.log.Info("block", zap.String("src", display(b.Source)), zap.String("evidence", b.Evidence), zap.String("origin", string(b.Origin)),
			zap.Duration("left", time.Until(b.Until).Round(time.Second)), zap.Int("strikes", b.Strikes), zap.String("comment", b.Comment))
	}
	return adopted
}

func (c *Controller) adoption(e nft.Element, now time.Time) state.Block {
	b := state.Block{
		Source: e.Prefix, Since: now.Add(-e.Age), Until: now.Add(e.Timeout), Strikes: c.strikes(e.Prefix, now),
		Evidence: unproven, Origin: state.OriginKernel, Comment: e.Comment,
	}
	if c.isHost(e.Prefix) { // of a prefix, nobody knows which address it was
		b.Address = e.Prefix.Addr()
	}
	if e.Timeout == 0 { // for ever
		b.Until = now.Add(MaxTimeout)
	}
	longer := b.Since.Add(c.cfg.timeoutFor(unproven, b.Strikes))
	if b.Comment == "" && b.Until.Before(longer) { // what has a comment was added by hand, for as long as it was to be
		b.Until = longer
	}
	if b.Comment == "" {
		b.Comment = unseen
	}
	return b
}

// unseen is the comment of a block of which nothing is known but that the
// kernel has made it.
const unseen = "unproven, while nobody listened"

// held is what the kernel blocks, as far as it may be news: all of it if that is
// not too much, or else what the kernel has blocked by itself and what somebody
// else has been seen to add.
func (c *Controller) held() ([]nft.Element, error) {
	if !c.many() {
		all, _, err := c.kernel.Blocked()
		return all, err
	}
	own, err := c.kernel.Convicted()
	if err != nil {
		return nil, err
	}
	others, err := c.kernel.Held(c.strange...)
	return append(own, others...), err
}

// adoptMissed takes over what the kernel has blocked and could not tell.
func (c *Controller) adoptMissed() {
	held, err := c.held()
	if err != nil {
		c.lose(err)
		c.log.Warn("the kernel's blocks cannot be read; trying again", zap.Error(err))
		c.reconcile.at = time.Now().Add(repairMost)
		return
	}
	c.strange = nil
	adopted := c.adopt(held)
	for _, b := range adopted {
		c.insist(b)
		c.stats.Blocked++
		c.stats.Unproven++
		c.store.Save(b, c.told(Notice{What: Blocked, Block: b}, nil))
	}
	if len(adopted) > 0 {
		c.log.Warn("looked up what the kernel has blocked and we had not heard of", zap.Int("blocks", len(adopted)))
	}
}

// joined tells whether an element is what prefixes of ours come to that lie
// side by side and are alike: the kernel holds them as one.
func joined(e nft.Element, nets []state.Block) bool {
	return slices.ContainsFunc(nets, func(b state.Block) bool {
		return b.Comment == e.Comment && e.Prefix.Bits() < b.Source.Bits() && e.Prefix.Contains(b.Source.Addr())
	})
}

// unknown tells whether an element is not ours, and is worth adopting. Pieces
// of a prefix are ours if the prefix is.
func (c *Controller) unknown(e nft.Element) bool {
	if _, known := c.blocks.get(e.Prefix); known || 0 < e.Timeout && e.Timeout < agreement {
		return false
	}
	if _, _, ignored := c.ignored.covers(e.Prefix); ignored {
		return false
	}
	for bits := e.Prefix.Bits() - 1; bits >= 0; bits-- {
		around := netip.PrefixFrom(e.Prefix.Addr(), bits).Masked()
		if b, known := c.blocks.get(around); known && b.Comment == e.Comment {
			return false
		}
	}
	// A table that blocked by longer prefixes has elements that are read as shorter ones.
	for bits := e.Prefix.Bits() + 1; bits < e.Prefix.Addr().BitLen(); bits++ {
		if b, known := c.blocks.get(netip.PrefixFrom(e.Prefix.Addr(), bits)); known && b.Comment == e.Comment {
			return false
		}
	}
	return true
}

// setHost takes over what belongs to the host, before Run or in it.
func (c *Controller) setHost(h Host) {
	c.host = h
	if !c.cfg.IgnoreHost {
		h.Ignored = nil
	}
	c.ignored = newIgnoreList(c.cfg.Listed, c.cfg.Ignored, h.Ignored, never)
	c.cfg.Table.Ignored, c.cfg.Table.OnLink6 = c.ignored.prefixes(), h.OnLink6
}

// SetHost tells the controller that the host has changed. Sources that belong
// to it now are unblocked.
func (c *Controller) SetHost(ctx context.Context, h Host) error {
	return c.call(ctx, func(answer func(error)) {
		h.Find, h.Serving = c.host.Find, c.host.Serving
		c.setHost(h)
		err := c.kernel.SetHost(c.cfg.Table.Ignored, c.cfg.Table.OnLink6)
		if errors.Is(err, unix.ENOENT) {
			err = c.makeAgain(err)
		}
		if err != nil {
			c.lose(err)
			answer(err)
			return
		}
		c.endIgnored()
		c.log.Info("host", zap.Strings("ignored", slices.Sorted(maps.Values(describe(h.Ignored)))))
		answer(nil)
	})
}

// endIgnored ends the blocks of sources that are ignored by now.
func (c *Controller) endIgnored() {
	var now []state.Block
	for b := range c.blocks.all() {
		if _, _, ignored := c.ignored.covers(b.Source); ignored {
			b.Until = time.Now()
			now = append(now, b)
		}
	}
	slices.SortFunc(now, func(a, b state.Block) int { return a.Source.Compare(b.Source) })
	c.end(now, NowIgnored)
}

func describe(ignored map[netip.Prefix]string) map[netip.Prefix]string {
	out := make(map[netip.Prefix]string, len(ignored))
	for p, reason := range ignored {
		out[p] = display(p) + " (" + reason + ")"
	}
	return out
}
