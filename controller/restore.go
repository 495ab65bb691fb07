package controller

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
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
	stored, err := c.store.Live()
	if err != nil {
		return fmt.Errorf("read blocks: %w", err)
	}
	held, err := c.kernel.Blocked()
	if err != nil {
		return fmt.Errorf("read blocks from the kernel: %w", err)
	}
	over, corrected := c.remember(stored, held)
	adopted := c.adopt(held)
	over = append(over, c.trim()...)
	if err := c.recall(); err != nil {
		return err
	}
	if err := c.load(); err != nil {
		return fmt.Errorf("load the table: %w", err)
	}
	for _, b := range over {
		c.store.End(b.Source, b.Until, false, nil)
	}
	for _, b := range adopted {
		if _, still := c.blocks.get(b.Source); still {
			c.store.Save(b, c.told(Notice{What: Blocked, Block: b}, nil))
		}
	}
	for _, b := range corrected {
		if _, still := c.blocks.get(b.Source); still {
			c.store.Save(b, nil)
		}
	}
	c.store.Forget(time.Now().Add(-c.cfg.Forget), maxRemembered)
	c.log.Info("restored", zap.Int("blocks", len(c.blocks.bySource)), zap.Int("adopted", len(adopted)), zap.Int("over", len(over)))
	return nil
}

// remember takes over the stored blocks that last, and returns those that are
// over or ignored by now, and those whose record is wrong. A clock that was set
// meanwhile has changed the time left in the store, but not in the kernel: that
// has the word. Of prefixes it holds disjoint pieces, which may be those of a
// wider one.
func (c *Controller) remember(stored []state.Block, held []nft.Element) (over, corrected []state.Block) {
	inKernel := make(map[netip.Prefix]time.Duration, len(held))
	for _, e := range held {
		inKernel[e.Prefix] = e.Timeout
	}
	now, wide := time.Now(), c.wide(stored)
	for _, b := range stored {
		left := b.Until.Sub(now)
		if lasts := b.Until.Sub(b.Since); lasts > 0 { // else it began before a clock was set back, and was corrected since
			left = min(left, lasts) // more is a clock that was set back
		}
		own := c.isHost(b.Source) || !wide.contain(b.Source)
		if kernel := inKernel[b.Source]; kernel > 0 && own && (kernel < left || kernel-left > agreement) {
			left = kernel
		}
		if _, _, ignored := c.ignored.covers(b.Source); left <= 0 || ignored {
			over = append(over, b)
			continue
		}
		wrong := (b.Until.Sub(now) - left).Abs() > agreement
		b.Until = now.Add(left)
		c.blocks.put(b)
		if wrong {
			corrected = append(corrected, b)
		}
	}
	return over, corrected
}

// prefixes is a set of them.
type prefixes map[netip.Prefix]bool

// wide are the sources that are no hosts.
func (c *Controller) wide(stored []state.Block) prefixes {
	all := make(prefixes)
	for _, b := range stored {
		if !c.isHost(b.Source) {
			all[b.Source] = true
		}
	}
	return all
}

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
	stored, err := c.store.Live()
	if err != nil {
		c.log.Warn("cannot read the blocks on record", zap.Error(err))
		return
	}
	onRecord := make(map[netip.Prefix]bool, len(stored))
	for _, b := range stored {
		onRecord[b.Source] = true
	}
	for _, b := range c.blocks.bySource {
		if !onRecord[b.Source] {
			c.store.Save(b, nil)
		}
	}
	before := len(c.blocks.bySource)
	over, _ := c.remember(slices.DeleteFunc(stored, func(b state.Block) bool {
		_, ours := c.blocks.get(b.Source)
		return ours
	}), nil)
	for _, b := range append(over, c.trim()...) {
		c.store.End(b.Source, b.Until, false, nil)
	}
	if found := len(c.blocks.bySource) - before; found > 0 {
		c.harm(fmt.Sprintf("%d blocks were found on record", found), nil)
	}
	c.log.Info("agreed with the store", zap.Int("blocks", len(c.blocks.bySource)))
}

// isHost tells whether a source is what is blocked for one address.
func (c *Controller) isHost(source netip.Prefix) bool {
	return source.IsSingleIP() || source.Addr().Is6() && source.Bits() == c.cfg.Table.Prefix6
}

// adopt makes blocks of what the kernel blocks and we do not know. It was
// blocked on unproven evidence, when nobody listened.
func (c *Controller) adopt(held []nft.Element) []state.Block {
	var adopted []state.Block
	now, nets := time.Now(), c.nets()
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

// adoptMissed takes over what the kernel has blocked and could not tell.
func (c *Controller) adoptMissed() {
	held, err := c.kernel.Blocked()
	if err != nil {
		c.log.Warn("the kernel's blocks cannot be read; trying again", zap.Error(err))
		c.reconcile.at = time.Now().Add(repairMost)
		return
	}
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

// nets are the blocks that go to the sets of prefixes.
func (c *Controller) nets() (all []state.Block) {
	for source, b := range c.blocks.bySource {
		if !c.isHost(source) {
			all = append(all, b)
		}
	}
	return all
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
	c.ignored = newIgnoreList(c.cfg.Ignored, h.Ignored, never)
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
	for _, b := range c.blocks.bySource {
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
