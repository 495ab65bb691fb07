package controller

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"go.uber.org/zap"

	"nftsentry/state"
)

// Errors of commands. The error that wraps one says what it is about.
var (
	ErrIgnored    = errors.New("an ignored source is never blocked")
	ErrNotBlocked = errors.New("not blocked")
	ErrObserving  = errors.New("nothing is blocked in observe mode; set mode = \"enforce\"")
	ErrInvalid    = errors.New("invalid request")
)

// Bounds of what an operator may ask for.
const (
	MinTimeout = time.Second
	MaxTimeout = 10 * 365 * 24 * time.Hour
	maxText    = 100 // bytes of an operator's comment
)

// A call is work for Run on behalf of somebody who waits. Whoever does it
// calls answer once, then or later, with what became of it. It is either taken
// by Run or given up by who waits: nothing is done of which nobody hears.
type call struct {
	do     func(answer func(error))
	answer func(error)
	taken  *atomic.Bool
}

// run does the work, unless it was given up.
func (c call) run() {
	if c.taken.CompareAndSwap(false, true) {
		c.do(c.answer)
	}
}

// call has Run do something and waits until it is answered, or until ctx ends
// before Run has begun.
func (c *Controller) call(ctx context.Context, do func(answer func(error))) error {
	answered, taken := make(chan error, 1), new(atomic.Bool)
	select {
	case c.calls <- call{do, func(err error) { answered <- err }, taken}:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-answered:
		return err
	case <-ctx.Done():
		if taken.CompareAndSwap(false, true) {
			return ctx.Err()
		}
		return <-answered
	}
}

// Block blocks a source on the operator's word, or gives the block that is
// there the new end and comment. A timeout of 0 is the one that the source
// would get for touching a decoy. It returns the block once it is in the
// kernel and in the store.
//
// Errors: ErrInvalid, ErrIgnored, ErrObserving, those of the kernel and the store.
func (c *Controller) Block(ctx context.Context, source netip.Prefix, timeout time.Duration, text string) (state.Block, error) {
	if err := checkRequest(source, timeout, text); err != nil {
		return state.Block{}, err
	}
	var b state.Block
	err := c.call(ctx, func(answer func(error)) {
		what := Blocked
		if _, known := c.blocks.get(source); known {
			what = Extended
		}
		var err error
		if b, err = c.blockOnWord(source, timeout, text); err != nil {
			answer(err)
			return
		}
		c.store.Save(b, c.told(Notice{What: what, Block: b}, stored(answer)))
	})
	if err != nil {
		return state.Block{}, err
	}
	return b, nil
}

func checkRequest(source netip.Prefix, timeout time.Duration, text string) error {
	switch {
	case !source.IsValid() || source != source.Masked() || source.Addr().Is4In6() || source.Addr().Zone() != "":
		return fmt.Errorf("%w: %v is neither an address nor a prefix without host bits", ErrInvalid, source)
	case timeout != 0 && (timeout < MinTimeout || timeout > MaxTimeout):
		return fmt.Errorf("%w: timeout %v: from 1s to 3650d", ErrInvalid, timeout)
	case len(text) > maxText:
		return fmt.Errorf("%w: comment of %d bytes: at most %d", ErrInvalid, len(text), maxText)
	case !utf8.ValidString(text) || slices.ContainsFunc([]rune(text), func(r rune) bool { return !unicode.IsPrint(r) || r == '"' }):
		return fmt.Errorf("%w: comment %q: printable characters only, and no quotes", ErrInvalid, text)
	}
	return nil
}

// blockOnWord makes or changes a block for the operator.
func (c *Controller) blockOnWord(source netip.Prefix, timeout time.Duration, text string) (state.Block, error) {
	switch {
	case c.cfg.Observe:
		return state.Block{}, ErrObserving
	case c.panicked:
		return state.Block{}, ErrPanicked
	}
	if by, reason, ok := c.ignored.covers(source); ok {
		return state.Block{}, fmt.Errorf("%s is covered by %s (%s): %w", display(source), display(by), reason, ErrIgnored)
	}
	now := time.Now()
	b, known := c.blocks.get(source)
	if !known {
		b = state.Block{Source: source, Since: now, Origin: state.OriginOperator, Strikes: c.strikes(source, now)}
		if source.IsSingleIP() {
			b.Address = source.Addr()
		}
	}
	if timeout == 0 {
		timeout = c.cfg.timeout(b.Strikes)
	}
	b.Until = now.Add(timeout)
	if text != "" {
		b.Comment = "operator: " + text
	} else if !known {
		b.Comment = "operator"
	}
	if err := c.enforce(b); err != nil {
		c.harm("what became of a command is not known", err)
		return state.Block{}, err
	}
	verb := "extend"
	if !known {
		c.stats.Blocked++
		verb = "block"
	}
	c.log.Info(verb, zap.String("src", display(source)), zap.Duration("timeout", timeout), zap.String("origin", "operator"))
	return b, nil
}

// Unblock ends the block of a source, or the one around an address if that
// was made for an address in it, and forgets the strikes of the source.
//
// Errors: ErrNotBlocked, those of the kernel and the store.
func (c *Controller) Unblock(ctx context.Context, source netip.Prefix) (state.Block, error) {
	var b state.Block
	err := c.call(ctx, func(answer func(error)) {
		var err error
		if b, err = c.unblockOnWord(source); err != nil {
			answer(err)
			return
		}
		c.store.End(b.Source, time.Now(), true, c.told(Notice{What: Unblocked, Block: b, Reason: ByOperator}, stored(answer)))
	})
	if err != nil {
		return state.Block{}, err
	}
	return b, nil
}

func (c *Controller) unblockOnWord(source netip.Prefix) (state.Block, error) {
	b, ok := c.blocks.get(source)
	if !ok {
		if b, ok = c.blocks.around(source.Addr()); !ok || !source.IsSingleIP() {
			return state.Block{}, fmt.Errorf("%s is %w", display(source), ErrNotBlocked)
		}
		if c.sourceOf(source.Addr()) != b.Source {
			return state.Block{}, fmt.Errorf("%s by itself is %w; it lies in %s, which is", display(source), ErrNotBlocked, b.Source)
		}
	}
	if err := errors.Join(c.kernel.Unblock(b.Source), c.kernel.Forgive(b.Source)); err != nil {
		c.harm("what became of a command is not known", err)
		return state.Block{}, err
	}
	c.blocks.remove(b.Source)
	c.stats.Ended++
	c.log.Info("unblock", zap.String("src", display(b.Source)), zap.String("reason", ByOperator))
	return b, nil
}

// UnblockAll ends all blocks, forgets their strikes and tells how many there were.
func (c *Controller) UnblockAll(ctx context.Context) (int, error) {
	var n int
	err := c.call(ctx, func(answer func(error)) {
		before := c.blocks
		c.blocks = newBlocks()
		if err := errors.Join(c.load(), c.kernel.Forgive()); err != nil {
			c.blocks = before
			c.harm("what became of a command is not known", err)
			answer(err)
			return
		}
		all := slices.Collect(maps.Values(before.bySource))
		n = len(all)
		c.stats.Ended += uint64(n)
		c.log.Info("unblock all", zap.Int("blocks", n), zap.String("reason", ByOperator))
		c.endAll(all, stored(answer))
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}

// endAll writes the end of blocks to the store, and answers when the last of
// them is written, with the first error.
func (c *Controller) endAll(blocks []state.Block, answer func(error)) {
	if len(blocks) == 0 {
		answer(nil)
		return
	}
	now := time.Now()
	left, first := len(blocks), error(nil)
	for _, b := range blocks {
		c.store.End(b.Source, now, true, func(err error) { // all from the store's one goroutine
			c.tell(Notice{What: Unblocked, Block: b, Reason: ByOperator})
			if first == nil {
				first = err
			}
			if left--; left == 0 {
				answer(first)
			}
		})
	}
}

// stored wraps the answer of a store, which comes when the kernel has done
// its part.
func stored(answer func(error)) func(error) {
	return func(err error) {
		if err != nil {
			err = fmt.Errorf("done in the kernel, but not yet on disk: %w", err)
		}
		answer(err)
	}
}

// List tells the live blocks, the oldest first.
func (c *Controller) List(ctx context.Context) ([]state.Block, error) {
	var all []state.Block
	err := c.call(ctx, func(answer func(error)) {
		all = slices.SortedFunc(maps.Values(c.blocks.bySource), func(a, b state.Block) int {
			if d := a.Since.Compare(b.Since); d != 0 {
				return d
			}
			return a.Source.Compare(b.Source)
		})
		answer(nil)
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// Stats tells what the controller has done.
func (c *Controller) Stats(ctx context.Context) (Stats, error) {
	var s Stats
	err := c.call(ctx, func(answer func(error)) {
		s = c.stats
		s.Live, s.Prefixes, s.Served, s.Doubts = len(c.blocks.bySource), len(c.ignored.reasons), len(c.served), c.doubts.list()
		s.Live6, s.Panicked, s.Damage = c.blocks.count(false), c.panicked, c.repair.failed
		answer(nil)
	})
	if err != nil {
		return Stats{}, err
	}
	return s, nil
}

// Do has Run call f, which may then use what Run owns, such as the kernel's
// table.
func (c *Controller) Do(ctx context.Context, f func() error) error {
	return c.call(ctx, func(answer func(error)) { answer(f()) })
}

// display writes a full-length prefix as the address it is.
func display(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}
