package controller

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"nftsentry/listener"
	"nftsentry/nft"
	"nftsentry/state"
)

// Limits of what the controller remembers.
const (
	maxTouching   = 65536  // sources that have touched a decoy and are not blocked yet
	maxRemembered = 262144 // ended blocks in the store
	sweepEvery    = time.Hour
)

// A Controller decides. Its exported methods may be called at any time and by
// any goroutine while Run runs, but for Restore, which comes before it.
type Controller struct {
	log    *zap.Logger
	cfg    Config
	kernel Kernel
	store  Store
	calls  chan call

	// All below belongs to Run, and before it to Restore.
	host    Host
	ignored ignoreList
	blocks  blocks
	touches touches
	stats   Stats
}

// Stats counts what the controller has done since it was made.
type Stats struct {
	Events    uint64 // events that arrived
	Ignored   uint64 // of these, from ignored sources
	Blocked   uint64 // blocks made
	WouldHave uint64 // blocks that were only logged
	Ended     uint64 // blocks that ended
	Failed    uint64 // blocks that the kernel refused
	Live      int    // blocks in force now
	Prefixes  int    // addresses and prefixes that are ignored now
}

// New makes a controller.
func New(cfg Config, host Host, kernel Kernel, store Store, log *zap.Logger) *Controller {
	c := &Controller{
		log: log, cfg: cfg, kernel: kernel, store: store,
		calls:  make(chan call, 64),
		blocks: newBlocks(), touches: newTouches(cfg.Window),
	}
	c.setHost(host)
	return c
}

// Run decides until ctx ends, and then returns nil. It leaves all blocks in
// force.
func (c *Controller) Run(ctx context.Context, events <-chan listener.Event) error {
	expiry := time.NewTimer(0)
	defer expiry.Stop()
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	for {
		c.arm(expiry)
		select {
		case <-ctx.Done():
			return nil
		case e := <-events:
			c.event(e)
		case call := <-c.calls:
			call.do(call.answer)
		case <-expiry.C:
			c.expire(time.Now())
		case <-sweep.C:
			c.store.Forget(time.Now().Add(-c.cfg.Forget), maxRemembered)
		}
	}
}

// arm sets the timer to the end of the next block.
func (c *Controller) arm(expiry *time.Timer) {
	if until, ok := c.blocks.next(); ok {
		expiry.Reset(time.Until(until))
		return
	}
	expiry.Stop()
}

// event is the way from a probe to a block.
func (c *Controller) event(e listener.Event) {
	c.stats.Events++
	log := c.log.With(
		zap.Stringer("src", e.Source.Addr()), zap.Stringer("proto", e.Protocol), zap.Uint16("port", e.Target.Port()),
		zap.Stringer("kind", e.Kind), zap.Stringer("evidence", e.Evidence),
	)
	if by, reason, ok := c.ignored.find(e.Source.Addr()); ok {
		c.stats.Ignored++
		log.Debug("ignored", zap.Stringer("by", by), zap.String("reason", reason))
		return
	}
	source := c.sourceOf(e.Source.Addr())
	if _, ok := c.blocks.get(source); ok {
		log.Debug("already blocked") // it was on its way when the block was made
		return
	}
	if n := c.touches.add(source, e.Time); n < c.cfg.Connects {
		log.Info("probe", zap.Int("connects", n), zap.Int("trigger", c.cfg.Connects))
		return
	}
	c.touches.forget(source)
	c.convict(e, source, log)
}

// convict makes the block that an event has earned.
func (c *Controller) convict(e listener.Event, source netip.Prefix, log *zap.Logger) {
	now := time.Now()
	b := state.Block{
		Source: source, Address: e.Source.Addr(), Since: now,
		Port: e.Target.Port(), Protocol: e.Protocol.String(), Kind: e.Kind.String(), Evidence: e.Evidence.String(),
		Origin: state.OriginDecoy,
	}
	b.Strikes = c.strikes(source, now)
	timeout := c.cfg.timeout(b.Strikes)
	b.Until = now.Add(timeout)
	b.Comment = comment(b)
	log = log.With(zap.Stringer("timeout", timeout), zap.Int("strikes", b.Strikes))
	if c.cfg.Observe {
		c.stats.WouldHave++
		log.Info("would block")
		return
	}
	if err := c.enforce(b); err != nil {
		c.stats.Failed++
		log.Error("cannot block", zap.Error(err))
		return
	}
	c.stats.Blocked++
	c.store.Save(b, nil)
	if !source.IsSingleIP() {
		log = log.With(zap.Stringer("prefix", source))
	}
	log.Info("block", zap.Duration("took", time.Since(e.Time)))
}

// comment is what a person reads beside the element: what touched which port,
// and the how manieth block of the source it is.
func comment(b state.Block) string {
	text := fmt.Sprintf("%s/%d %s", b.Protocol, b.Port, b.Kind)
	if b.Strikes > 0 {
		text += fmt.Sprintf(" x%d", b.Strikes+1)
	}
	return text
}

// strikes counts the earlier blocks of a source that are not forgotten.
func (c *Controller) strikes(source netip.Prefix, now time.Time) int {
	last, ok, err := c.store.Last(source)
	if err != nil {
		c.log.Warn("cannot read earlier blocks; taking it for the first", zap.String("src", display(source)), zap.Error(err))
	}
	if !ok || now.Sub(last.Until) > c.cfg.Forget {
		return 0
	}
	return last.Strikes + 1
}

// sourceOf is what is blocked for an address: itself, or its IPv6 prefix if
// it is not a neighbour.
func (c *Controller) sourceOf(a netip.Addr) netip.Prefix {
	bits := a.BitLen()
	if a.Is6() && !c.neighbour(a) {
		bits = c.cfg.Table.Prefix6
	}
	return netip.PrefixFrom(a, bits).Masked()
}

func (c *Controller) neighbour(a netip.Addr) bool {
	if a.IsLinkLocalUnicast() {
		return true
	}
	for _, link := range c.host.OnLink6 {
		if link.Contains(a) {
			return true
		}
	}
	return false
}

// enforce puts a block into the kernel and on our own list. A table that
// somebody has deleted is made again with all blocks.
func (c *Controller) enforce(b state.Block) error {
	old, known := c.blocks.get(b.Source)
	c.blocks.put(b)
	err := c.kernel.Block(element(b, time.Now()))
	if errors.Is(err, unix.ENOENT) {
		c.log.Warn("our table is gone from the kernel; making it again", zap.Error(err))
		err = c.kernel.Load(c.cfg.Table, c.elements())
	}
	if err == nil {
		return nil
	}
	c.blocks.remove(b.Source)
	if known {
		c.blocks.put(old)
	}
	return err
}

func element(b state.Block, now time.Time) nft.Element {
	return nft.Element{Prefix: b.Source, Timeout: max(time.Second, b.Until.Sub(now)), Comment: b.Comment}
}

// elements is the form of all live blocks in the kernel.
func (c *Controller) elements() []nft.Element {
	now := time.Now()
	var all []nft.Element
	for _, b := range c.blocks.bySource {
		all = append(all, element(b, now))
	}
	return all
}

// expire ends the blocks whose time is up.
func (c *Controller) expire(now time.Time) {
	c.end(c.blocks.due(now), "expired")
}

// end takes live blocks away, from the kernel first.
func (c *Controller) end(ended []state.Block, reason string) {
	if len(ended) == 0 {
		return
	}
	sources := make([]netip.Prefix, len(ended))
	for i, b := range ended {
		sources[i] = b.Source
	}
	if err := c.kernel.Unblock(sources...); err != nil {
		// The kernel ends them by itself, a second later at most.
		c.log.Warn("cannot take ended blocks out of the kernel", zap.Int("blocks", len(ended)), zap.Error(err))
	}
	for _, b := range ended {
		c.blocks.remove(b.Source)
		c.stats.Ended++
		c.store.End(b.Source, b.Until, false, nil)
		c.log.Info("unblock", zap.String("src", display(b.Source)), zap.String("reason", reason))
	}
}
