package controller

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"go.uber.org/zap"

	"nftsentry/nft"
	"nftsentry/state"
)

// agreement is how far the time left in the kernel and in the store may
// differ: elements last whole seconds.
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
	over := c.remember(stored, held)
	adopted := c.adopt(held)
	if err := c.kernel.Load(c.cfg.Table, c.elements()); err != nil {
		return fmt.Errorf("load the table: %w", err)
	}
	for _, b := range over {
		c.store.End(b.Source, b.Until, false, nil)
	}
	for _, b := range adopted {
		c.store.Save(b, nil)
	}
	c.store.Forget(time.Now().Add(-c.cfg.Forget), maxRemembered)
	c.log.Info("restored", zap.Int("blocks", len(c.blocks.bySource)), zap.Int("adopted", len(adopted)), zap.Int("over", len(over)))
	return nil
}

// remember takes over the stored blocks that last, and returns those that are
// over or ignored by now. A clock that was set meanwhile has changed the time
// left in the store, but not in the kernel.
func (c *Controller) remember(stored []state.Block, held []nft.Element) (over []state.Block) {
	inKernel := make(map[netip.Prefix]time.Duration, len(held))
	for _, e := range held {
		inKernel[e.Prefix] = e.Timeout
	}
	now := time.Now()
	for _, b := range stored {
		left := min(b.Until.Sub(now), b.Until.Sub(b.Since)) // more is a clock that was set back
		if kernel := inKernel[b.Source]; kernel > 0 && (left-kernel).Abs() > agreement {
			left = kernel
		}
		if _, _, ignored := c.ignored.covers(b.Source); left <= 0 || ignored {
			over = append(over, b)
			continue
		}
		b.Until = now.Add(left)
		c.blocks.put(b)
	}
	return over
}

// adopt makes blocks of what the kernel blocks and the store does not know.
func (c *Controller) adopt(held []nft.Element) []state.Block {
	var adopted []state.Block
	now := time.Now()
	for _, e := range held {
		if !c.unknown(e) {
			continue
		}
		b := state.Block{
			Source: e.Prefix, Since: now, Until: now.Add(e.Timeout),
			Strikes: c.strikes(e.Prefix, now), Origin: state.OriginKernel, Comment: e.Comment,
		}
		if e.Timeout == 0 { // for ever
			b.Until = now.Add(MaxTimeout)
		}
		if e.Prefix.IsSingleIP() {
			b.Address = e.Prefix.Addr()
		}
		adopted = append(adopted, b)
	}
	for _, b := range adopted {
		c.blocks.put(b)
	}
	return adopted
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
	return true
}

// setHost takes over what belongs to the host, before Run or in it.
func (c *Controller) setHost(h Host) {
	c.host = h
	if !c.cfg.IgnoreHost {
		h.Ignored = nil
	}
	c.ignored = newIgnoreList(c.cfg.Ignored, h.Ignored, never)
	c.cfg.Table.Ignored = c.ignored.prefixes()
}

// SetHost tells the controller that the host has changed. Sources that belong
// to it now are unblocked.
func (c *Controller) SetHost(ctx context.Context, h Host) error {
	return c.call(ctx, func(answer func(error)) {
		c.setHost(h)
		if err := c.kernel.Ignore(c.cfg.Table.Ignored); err != nil {
			answer(err)
			return
		}
		var now []state.Block
		for _, b := range c.blocks.bySource {
			if _, _, ignored := c.ignored.covers(b.Source); ignored {
				b.Until = time.Now()
				now = append(now, b)
			}
		}
		slices.SortFunc(now, func(a, b state.Block) int { return a.Source.Compare(b.Source) })
		c.end(now, "ignored")
		c.log.Info("host", zap.Strings("ignored", slices.Sorted(maps.Values(describe(h.Ignored)))))
		answer(nil)
	})
}

func describe(ignored map[netip.Prefix]string) map[netip.Prefix]string {
	out := make(map[netip.Prefix]string, len(ignored))
	for p, reason := range ignored {
		out[p] = display(p) + " (" + reason + ")"
	}
	return out
}
