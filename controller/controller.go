package controller

import (
	"context"
	"errors"
	"iter"
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
)

// How often things are looked after.
const (
	sweepEvery     = time.Hour
	learnEvery     = time.Minute      // what the kernel has learnt of services
	reconcileAfter = time.Second      // when messages were lost, and others may be on their way
	reconcileEvery = 10 * time.Second // at most
)

// A Controller decides. Its exported methods may be called at any time and by
// any goroutine while Run runs, but for Restore, which comes before it.
type Controller struct {
	log      *zap.Logger
	cfg      Config
	kernel   Kernel
	store    Store
	audience Audience
	calls    chan call

	// All below belongs to Run, and before it to Restore.
	host      Host
	ignored   ignoreList
	blocks    blocks
	touches   touches   // connections to decoys
	would     sentences // who is only logged to be blocked
	suspects  suspects  // unproven evidence that the kernel only tells of
	doubts    doubts
	reconcile pace
	strange   []netip.Addr // elements that somebody else has added, up to the next reconcile
	repair    repair
	served    services
	panicked  bool  // all blocks are suspended
	lost      error // why nothing can be done any more; nil as a rule
	stats     Stats
}

// Stats counts what the controller has done since it was made.
type Stats struct {
	Events    uint64   // events that arrived
	Probes    uint64   // of these, packets to watched ports, each port of a source once in a window
	Peers     uint64   // of these, from peers
	Ignored   uint64   // events from ignored sources
	Blocked   uint64   // blocks made
	Unproven  uint64   // of these, on unproven evidence
	WouldHave uint64   // blocks that were only logged
	Triggered uint64   // blocks that were left to the hooks
	Ended     uint64   // blocks that ended
	Failed    uint64   // blocks that the kernel refused
	Mended    uint64   // times that the table was made again
	Evicted   uint64   // blocks that had to make room for others
	Damage    error    // why the table cannot be made again; nil if there is no need
	Live      int      // blocks in force now
	Live6     int      // of these, IPv6
	Prefixes  int      // addresses and prefixes that are ignored now
	Served    int      // ports where a service was seen
	Panicked  bool     // all blocks are suspended
	Unlisted  bool     // likewise, because files that list ignored sources cannot be read
	Doubts    []string // why unproven evidence is not trusted at the moment
}

// New makes a controller.
//
// Panicked says that all blocks are suspended until Resume. The audience may
// be nil.
func New(cfg Config, panicked bool, host Host, kernel Kernel, store Store, audience Audience, log *zap.Logger) *Controller {
	if audience == nil {
		audience = func(Notice) {}
	}
	c := &Controller{
		log: log, cfg: cfg, panicked: panicked, kernel: kernel, store: store, audience: audience,
		calls:  make(chan call, 64),
		blocks: newBlocks(cfg.Table.Prefix6), touches: newTouches(cfg.Window),
		reconcile: pace{after: reconcileAfter, every: reconcileEvery},
		suspects:  newSuspects(cfg.Table), would: make(sentences), doubts: newDoubts(log, cfg.Table.Budget), served: make(services),
	}
	c.setHost(host)
	return c
}

// Run decides until ctx ends, and then returns nil, or until the kernel denies
// it all rights, and then returns ErrDenied. It leaves all blocks in force. Missed tells that events were lost on their way: what the kernel has
// blocked meanwhile is then looked up. Changes are what others have done to the
// table: what they have taken away is put back.
func (c *Controller) Run(ctx context.Context, events <-chan listener.Event, missed <-chan struct{}, changes <-chan nft.Change) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	learn := time.NewTicker(learnEvery)
	defer learn.Stop()
	for c.lost == nil {
		c.arm(timer)
		select {
		case <-ctx.Done():
			c.learn()
			return nil
		case e := <-events:
			c.event(e)
		case call := <-c.calls:
			call.run()
		case ch := <-changes:
			c.changed(ch)
		case <-c.store.Changed():
			c.agree()
		case <-missed:
			c.reconcile.ask(time.Now())
		case <-timer.C:
			c.due(time.Now())
		case <-sweep.C:
			c.store.Forget(time.Now().Add(-c.cfg.Forget), maxRemembered)
		case <-learn.C:
			c.learn()
		}
	}
	return c.lost
}

// arm sets the timer to the next moment when something is due.
func (c *Controller) arm(timer *time.Timer) {
	var first time.Time
	for _, next := range []func() (time.Time, bool){c.blocks.next, c.doubts.next, c.reconcile.next, c.repair.next} {
		if at, ok := next(); ok && (first.IsZero() || at.Before(first)) {
			first = at
		}
	}
	if first.IsZero() {
		timer.Stop()
		return
	}
	timer.Reset(time.Until(first))
}

// due does what is due.
func (c *Controller) due(now time.Time) {
	c.end(c.blocks.due(now), Expired)
	for _, reason := range c.doubts.settle(now) {
		c.tell(Notice{What: Trusted, Reason: reason})
	}
	if c.repair.due(now) {
		c.mend()
	}
	if c.reconcile.due(now) {
		c.adoptMissed()
	}
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

// enforce puts a block into the kernel and on our own list, and leaves both as
// they were if it cannot. A table that somebody has deleted is made again with
// all blocks; a set that is full gets room.
func (c *Controller) enforce(b state.Block) error {
	old, known := c.blocks.get(b.Source)
	if !known {
		c.makeRoom(b.Source)
	}
	c.blocks.put(b)
	err := c.kernel.Block(element(b, time.Now()))
	switch {
	case errors.Is(err, unix.ENOENT):
		err = c.makeAgain(err)
	case errors.Is(err, unix.ENFILE): // of what is over and not collected yet, or not ours
		err = c.squeeze(b)
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

// squeeze finds room for a block that is on our list where the kernel has none.
// To load all again empties the set, but of many that takes seconds: some go.
func (c *Controller) squeeze(b state.Block) error {
	if !c.many() {
		return c.load()
	}
	c.blocks.remove(b.Source)
	c.evict(b.Source.Addr().Is4(), relief)
	c.blocks.put(b)
	return c.kernel.Block(element(b, time.Now()))
}

// makeAgain loads a table that somebody has deleted, with all blocks.
func (c *Controller) makeAgain(why error) error {
	c.log.Warn("our table is gone from the kernel; making it again", zap.Error(why))
	c.rediscover()
	return c.load()
}

func element(b state.Block, now time.Time) nft.Element {
	return nft.Element{Prefix: b.Source, Timeout: max(time.Second, b.Until.Sub(now)), Comment: b.Comment}
}

// elements is the form of all live blocks in the kernel, for the time that
// they have left now.
func (c *Controller) elements() iter.Seq[nft.Element] { return elementsOf(c.blocks.all()) }

func elementsOf(blocks iter.Seq[state.Block]) iter.Seq[nft.Element] {
	now := time.Now()
	return func(yield func(nft.Element) bool) {
		for b := range blocks {
			if !yield(element(b, now)) {
				return
			}
		}
	}
}

// over puts on record that a block has ended.
func (c *Controller) over(b state.Block, reason string) {
	c.stats.Ended++
	c.store.End(b.Source, b.Until, false, c.told(Notice{What: Unblocked, Block: b, Reason: reason}, nil))
	c.log.Info("unblock", zap.String("src", display(b.Source)), zap.String("reason", reason))
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
		c.log.Warn("cannot take ended blocks out of the kernel", zap.Int("blocks", len(ended)), zap.Error(err))
		c.lose(err)
		if reason != Expired { // the kernel ends those by itself, a second later at most
			c.excess("it has blocks that have ended", err)
		}
	}
	for _, b := range ended {
		c.blocks.remove(b.Source)
		c.over(b, reason)
	}
}
