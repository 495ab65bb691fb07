package controller

import (
	"context"
	"iter"
	"net/netip"
	"slices"
	"time"

	"nftsentry/listener"
	"nftsentry/state"
)

// A What says what a Notice is about.
type What uint8

// What there is to notice.
const (
	Probed     What = iota + 1 // Event: a tripwire was touched, and the source is not blocked for it yet; its verdict says whether it counts
	Exempted                   // Event: as Probed, and it does not count since the source is a peer
	Ignored                    // Event, By, Reason: a tripwire was touched by a source that is never blocked
	Repeated                   // Event, Block: a tripwire was touched by a source that is blocked already
	Sentenced                  // Event, Block: the source is about to be blocked, if the kernel has not done so
	Blocked                    // Event unless nobody saw it, Block, Took: on record, and in the kernel unless its table is being mended
	Extended                   // as Blocked, of a block that was there
	Unblocked                  // Block, Reason: it has ended
	WouldBlock                 // Event, Block: the block that is only logged
	Triggered                  // Event, Block: as WouldBlock, where the response is to run the hooks
	Doubted                    // Reason: unproven evidence is not trusted for now
	Trusted                    // Reason: it is again
	Healed                     // Reason: our table was made again, or what was taken out of it put back
	Reloaded                   // Reason: another configuration holds
	Panicked                   // Reason: nothing is noticed or blocked from now on
	Resumed                    // Reason: that is over
)

var whatNames = [...]string{
	Probed: "probe", Exempted: "exempted", Ignored: "ignored", Repeated: "repeated", Sentenced: "sentence", Blocked: "block",
	Extended: "extend", Unblocked: "unblock", WouldBlock: "would-block", Triggered: "run", Doubted: "doubt", Trusted: "trust",
	Healed: "heal", Reloaded: "reload", Panicked: "panic", Resumed: "resume",
}

// String is a word for it, such as "would-block".
func (w What) String() string {
	if int(w) < len(whatNames) && whatNames[w] != "" {
		return whatNames[w]
	}
	return "unknown"
}

// Why a block has ended, as the Reason of Unblocked.
const (
	Expired    = "expired"  // its time was up
	ByOperator = "operator" // somebody has asked for it
	NowIgnored = "ignored"  // its source is never blocked by now
	MadeRoom   = "room"     // the kernel's set was full
)

// A Notice tells of one thing that has happened. What it is about says which
// of the fields it has; the others are zero.
type Notice struct {
	Time   time.Time // when it happened; carries the monotonic clock
	What   What
	Source netip.Prefix   // whom it is about, as it is or would be blocked; zero for none
	Event  listener.Event // the probe; without a Time if there is none
	Block  state.Block
	By     netip.Prefix  // what has the source ignored
	Reason string        // why, for a person
	Took   time.Duration // from the probe to the block in the kernel
}

// An Audience is told of everything that happens, by the goroutine of Run and
// in the order in which it happens: what is in the kernel is by then on its way
// to the store. It must not wait for anything, and least of all for the
// controller.
type Audience func(Notice)

// tell tells the audience. The source of a notice without a block has to be
// found by the goroutine of Run.
func (c *Controller) tell(n Notice) {
	if n.Block.Source.IsValid() {
		n.Source = n.Block.Source
	}
	if n.Time.IsZero() {
		n.Time = time.Now()
	}
	c.audience(n)
}

// Witness calls f with all blocks in force: none while they are suspended. Whatever the audience has heard by then
// is in them, and what it hears later comes later. Like the audience, f must not
// wait.
func (c *Controller) Witness(ctx context.Context, f func(live []state.Block)) error {
	return c.call(ctx, func(answer func(error)) {
		var live []state.Block
		if !c.suspended() && !c.cfg.Observe {
			live = slices.Collect(c.blocks.all())
		}
		f(live)
		answer(nil)
	})
}

// told tells the audience, and gives back what waits for the store. The store
// answers in an order of its own: what became of a source last is to be heard
// last.
func (c *Controller) told(n Notice, then func(error)) func(error) {
	c.tell(n)
	return then
}

// toldAll is told for many blocks at once.
func (c *Controller) toldAll(all iter.Seq[state.Block], notice func(state.Block) Notice, then func(error)) func(error) {
	for b := range all {
		c.tell(notice(b))
	}
	return then
}

// unblocked is what the audience hears of a block that an operator has ended.
func (c *Controller) unblocked(b state.Block) Notice {
	return Notice{What: Unblocked, Block: b, Reason: ByOperator}
}
