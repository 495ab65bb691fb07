package controller

import (
	"context"
	"errors"
	"fmt"
	"iter"
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
	MaxComment = 100 // bytes of an operator's comment
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
	case len(text) > MaxComment:
		return fmt.Errorf("%w: comment of %d bytes: at most %d", ErrInvalid, len(text), MaxComment)
	case !utf8.ValidString(text) || slices.ContainsFunc([]rune(text), func(r rune) bool { return !unicode.IsPrint(r) || r == '"' }):
		return fmt.Errorf("%w: comment %q: printable characters only, and no quotes", ErrInvalid, text)
	}
	return nil
}

// blocksNow tells why nobody can be blocked; nil if that can be.
func (c *Controller) blocksNow() error {
	switch {
	case c.cfg.Observe:
		return ErrObserving
	case c.panicked:
		return ErrPanicked
	case c.cfg.Unlisted:
		return ErrUnlisted
	}
	return nil
}

// mayBlock tells why a source may not be blocked; nil if it may.
func (c *Controller) mayBlock(source netip.Prefix) error {
	if by, reason, ok := c.ignored.covers(source); ok {
		return fmt.Errorf("%s is covered by %s (%s): %w", display(source), display(by), reason, ErrIgnored)
	}
	return nil
}

// onWord is the block that the operator asks for, and whether the source is
// blocked already.
func (c *Controller) onWord(source netip.Prefix, timeout time.Duration, text string, now time.Time) (b state.Block, known bool) {
	b, known = c.blocks.get(source)
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
	return b, known
}

// blockOnWord makes or changes a block for the operator.
func (c *Controller) blockOnWord(source netip.Prefix, timeout time.Duration, text string) (state.Block, error) {
	err := c.blocksNow()
	if err == nil {
		err = c.mayBlock(source)
	}
	if err != nil {
		return state.Block{}, err
	}
	now := time.Now()
	old, _ := c.blocks.get(source)
	b, known := c.onWord(source, timeout, text, now)
	if err := c.enforce(b); err != nil {
		c.excess("what became of a command is not known", err)
		return state.Block{}, err
	}
	if !known {
		c.stats.Blocked++
	}
	c.log.Info(verbOf(old, known, b), zap.String("src", display(source)), zap.Duration("timeout", b.Until.Sub(now)), zap.String("origin", "operator"))
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
	b, err := c.blockOf(source)
	if err == nil {
		err = c.letGo([]netip.Prefix{b.Source})
	}
	if err != nil {
		return state.Block{}, err
	}
	c.log.Info("unblock", zap.String("src", display(b.Source)), zap.String("reason", ByOperator))
	return b, nil
}

// blockOf finds the block of a source, or the one around an address that was
// made for it.
func (c *Controller) blockOf(source netip.Prefix) (state.Block, error) {
	b, ok := c.blocks.get(source)
	if ok {
		return b, nil
	}
	if b, ok = c.blocks.around(source.Addr()); !ok || !source.IsSingleIP() {
		return state.Block{}, fmt.Errorf("%s is %w: \"nftsentry list\" shows who is", display(source), ErrNotBlocked)
	}
	if c.sourceOf(source.Addr()) != b.Source {
		return state.Block{}, fmt.Errorf("%s by itself is %w; it lies in %s, which is: run \"nftsentry unblock %[3]s\"", display(source), ErrNotBlocked, b.Source)
	}
	return b, nil
}

// UnblockAll ends all blocks, forgets their strikes and tells how many there were.
func (c *Controller) UnblockAll(ctx context.Context) (int, error) {
	var n int
	err := c.call(ctx, func(answer func(error)) {
		defer c.sparing()()
		before := c.blocks
		c.blocks = newBlocks(c.cfg.Table.Prefix6)
		if err := errors.Join(c.load(), c.kernel.Forgive()); err != nil {
			c.blocks = before
			c.excess("what became of a command is not known", err)
			answer(err)
			return
		}
		all := slices.Collect(before.sources())
		n = len(all)
		c.stats.Ended += uint64(n)
		c.log.Info("unblock all", zap.Int("blocks", n), zap.String("reason", ByOperator))
		if n == 0 {
			answer(nil)
			return
		}
		c.store.EndAll(all, time.Now(), true, c.toldAll(before.all(), c.unblocked, stored(answer)))
	})
	if err != nil {
		return 0, err
	}
	return n, nil
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

// List tells the live blocks, the oldest first, as they are now. They may be
// gone through at any time.
func (c *Controller) List(ctx context.Context) (iter.Seq[state.Block], error) {
	var all iter.Seq[state.Block]
	err := c.call(ctx, func(answer func(error)) {
		all = c.blocks.snapshot()
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
		s.Live, s.Prefixes, s.Served, s.Doubts = c.blocks.len(), c.ignored.size(), len(c.served), c.doubts.list()
		s.Live6, s.Panicked, s.Unlisted, s.Damage = c.blocks.count(false), c.panicked, c.cfg.Unlisted, c.repair.failed
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
