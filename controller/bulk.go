package controller

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"nftsentry/nft"
	"nftsentry/state"
)

// ErrNoRoom means that the kernel's sets would have to let go of blocks that
// nobody wants to miss.
var ErrNoRoom = errors.New("no room for so many hosts")

// maxTold is how many of many errors are told.
const maxTold = 20

// complaints are the errors of many sources.
type complaints struct {
	told []error
	more int
}

func (c *complaints) add(err error) {
	switch {
	case err == nil:
	case len(c.told) < maxTold-1:
		c.told = append(c.told, err)
	default:
		c.more++
	}
}

// err is all of them, an error a line; nil for none.
func (c *complaints) err() error {
	if c.more > 0 {
		return errors.Join(append(c.told, fmt.Errorf("and %d more like these", c.more))...)
	}
	return errors.Join(c.told...)
}

// BlockMany is Block for many sources at once, with one timeout and comment:
// either all of them are blocked, by one transaction of the kernel and one of
// the store, or none is. Hosts for which there is no room take the place of
// blocks on unproven evidence, but of no others. It returns the blocks as they
// are then.
//
// Errors: those of Block, of up to twenty sources; ErrNoRoom.
func (c *Controller) BlockMany(ctx context.Context, sources []netip.Prefix, timeout time.Duration, text string) (iter.Seq[state.Block], error) {
	var wrong complaints
	for _, source := range sources {
		wrong.add(checkRequest(source, timeout, text))
	}
	if err := wrong.err(); err != nil {
		return nil, err
	}
	sources = distinct(sources)
	var made []state.Block
	err := c.call(ctx, func(answer func(error)) {
		defer sparing(c.blocks.len()+len(sources) >= manyBlocks)()
		known := make(map[netip.Prefix]bool)
		for _, source := range sources {
			if c.blocks.has(source) {
				known[source] = true
			}
		}
		var err error
		if made, err = c.blockAllOnWord(sources, timeout, text); err != nil || len(made) == 0 {
			answer(err)
			return
		}
		blocked := func(b state.Block) Notice {
			if known[b.Source] {
				return Notice{What: Extended, Block: b}
			}
			return Notice{What: Blocked, Block: b}
		}
		c.store.SaveAll(made, c.toldAll(slices.Values(made), blocked, stored(answer)))
	})
	if err != nil {
		return nil, err
	}
	return slices.Values(made), nil
}

// distinct are sources without those that come again, in their order.
func distinct(sources []netip.Prefix) []netip.Prefix {
	seen := make(map[sourceKey]bool, len(sources))
	return slices.DeleteFunc(slices.Clone(sources), func(p netip.Prefix) bool {
		before := seen[keyOf(p)]
		seen[keyOf(p)] = true
		return before
	})
}

// blockAllOnWord makes or changes blocks for the operator.
func (c *Controller) blockAllOnWord(sources []netip.Prefix, timeout time.Duration, text string) ([]state.Block, error) {
	if err := c.blocksNow(); err != nil {
		return nil, err
	}
	var wrong complaints
	for _, source := range sources {
		wrong.add(c.mayBlock(source))
	}
	if err := wrong.err(); err != nil {
		return nil, err
	}
	over, err := c.roomFor(sources)
	if err != nil {
		return nil, err
	}
	now, fresh := time.Now(), uint64(0)
	made := make([]state.Block, len(sources))
	for i, source := range sources {
		b, known := c.onWord(source, timeout, text, now)
		if made[i] = b; !known {
			fresh++
		}
	}
	if err := c.enforceAll(made, over); err != nil {
		c.excess("what became of a command is not known", err)
		return nil, err
	}
	c.spare(over)
	c.stats.Blocked += fresh
	c.log.Info("block many", zap.Int("blocks", len(made)), zap.Uint64("new", fresh), zap.String("origin", "operator"))
	return made, nil
}

// roomFor finds the blocks that have to end for new ones of these sources:
// hosts on unproven evidence that are not among them.
func (c *Controller) roomFor(sources []netip.Prefix) (over []state.Block, err error) {
	asked := make(map[sourceKey]bool, len(sources))
	fresh := map[bool]int{} // hosts that are not blocked yet, of IPv4 and of IPv6
	for _, source := range sources {
		asked[keyOf(source)] = true
		if c.isHost(source) && !c.blocks.has(source) {
			fresh[source.Addr().Is4()]++
		}
	}
	for _, v4 := range []bool{true, false} {
		most := c.cfg.Table.MaxHosts()
		excess := c.blocks.hosts(v4) + fresh[v4] - most
		if fresh[v4] == 0 || excess <= 0 {
			continue
		}
		some := c.doubted(v4, excess, asked)
		if len(some) < excess {
			return nil, fmt.Errorf("%w: %d new ones of %s, and only %d of %d places (block.max) are free or taken by blocks on unproven evidence; "+
				"unblock some, raise block.max, or block prefixes, which take no place", ErrNoRoom, fresh[v4], familyName(v4), fresh[v4]-excess+len(some), most)
		}
		over = append(over, endedNow(some)...)
	}
	return over, nil
}

// doubted are up to so many hosts on unproven evidence that can be spared most,
// but for some.
func (c *Controller) doubted(v4 bool, most int, but map[sourceKey]bool) (found []state.Block) {
	var seen []state.Block // they are taken out to see the next, and go back
	for len(found) < most {
		b, ok := c.blocks.leastMissed(v4)
		if !ok || b.Evidence != unproven {
			break
		}
		c.blocks.remove(b.Source)
		seen = append(seen, b)
		if !but[keyOf(b.Source)] {
			found = append(found, b)
		}
	}
	for _, b := range seen {
		c.blocks.put(b)
	}
	return found
}

func familyName(v4 bool) string {
	if v4 {
		return "IPv4"
	}
	return "IPv6"
}

// enforceAll is enforce for many blocks, all of them or none. Those that are
// over go by the same transaction of the kernel, which then loads all of the
// table, or stay.
func (c *Controller) enforceAll(all, over []state.Block) error {
	var old []state.Block
	for _, b := range over {
		before, _ := c.blocks.get(b.Source)
		old = append(old, before)
		c.blocks.remove(b.Source)
	}
	for _, b := range all {
		if before, known := c.blocks.get(b.Source); known {
			old = append(old, before)
		}
		c.blocks.put(b)
	}
	err := c.replaceAll(all, over)
	switch {
	case len(over) > 0 && !c.many():
	case errors.Is(err, unix.ENOENT):
		err = c.makeAgain(err)
	case errors.Is(err, unix.ENFILE), // of what is over and not collected yet, or not ours
		errors.Is(err, unix.EMSGSIZE): // all in the kernel are named once, these three times
		err = c.load()
	}
	if err == nil {
		return nil
	}
	for _, b := range all {
		c.blocks.remove(b.Source)
	}
	for _, b := range old {
		c.blocks.put(b)
	}
	return err
}

// replaceAll puts blocks into the kernel in place of those that are over. Where
// there are too many to load all anew, those that are over go first: they would
// be next anyway.
func (c *Controller) replaceAll(all, over []state.Block) error {
	if len(over) > 0 && !c.many() {
		return c.load()
	}
	if len(over) > 0 {
		sources := make([]netip.Prefix, len(over))
		for i, b := range over {
			sources[i] = b.Source
		}
		if err := c.kernel.Unblock(sources...); err != nil {
			return err
		}
	}
	elements := elementsOf(slices.Values(all))
	if len(all) > nft.DefaultHosts { // too many for one transaction
		return c.kernel.BlockAll(elements)
	}
	return c.kernel.Block(slices.Collect(elements)...)
}

// UnblockMany is Unblock for many sources at once, by one transaction of the
// kernel for all that are hosts, one for all that are prefixes, and one of the
// store. Those that are not blocked are told of, up to twenty, and keep no
// others from being let go. It returns the sources of the blocks that have ended.
func (c *Controller) UnblockMany(ctx context.Context, sources []netip.Prefix) (ended []netip.Prefix, missing, err error) {
	err = c.call(ctx, func(answer func(error)) {
		var wrong complaints
		gone := make(map[netip.Prefix]state.Block)
		for _, source := range sources {
			b, err := c.blockOf(source)
			wrong.add(err)
			if err == nil {
				ended, gone[b.Source] = append(ended, b.Source), b
			}
		}
		missing = wrong.err()
		if ended = distinct(ended); len(ended) == 0 {
			answer(nil)
			return
		}
		if err := c.letGo(ended); err != nil {
			answer(err)
			return
		}
		c.log.Info("unblock many", zap.Int("blocks", len(ended)), zap.String("reason", ByOperator))
		c.store.EndAll(ended, time.Now(), true, c.toldAll(maps.Values(gone), c.unblocked, stored(answer)))
	})
	if err != nil {
		return nil, nil, err
	}
	return ended, missing, nil
}

// letGo takes blocks out of the kernel, and off our list, for good.
func (c *Controller) letGo(sources []netip.Prefix) error {
	if err := errors.Join(c.kernel.Unblock(sources...), c.kernel.Forgive(sources...)); err != nil {
		c.excess("what became of a command is not known", err)
		return err
	}
	for _, source := range sources {
		c.blocks.remove(source)
	}
	c.stats.Ended += uint64(len(sources))
	return nil
}

// verbOf is the word for what becomes of a block.
func verbOf(old state.Block, known bool, b state.Block) string {
	switch {
	case !known:
		return "block"
	case b.Until.Before(old.Until):
		return "shorten"
	}
	return "extend"
}
