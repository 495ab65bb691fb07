package controller

import (
	"fmt"
	"net/netip"
	"time"

	"go.uber.org/zap"

	"nftsentry/listener"
	"nftsentry/state"
)

// event is the way from a probe to a block.
func (c *Controller) event(e listener.Event) {
	c.stats.Events++
	if c.suspended() {
		c.debug("suspended", e)
		return
	}
	if e.Verdict == listener.Crowded || e.Verdict == listener.Overspent {
		c.doubt(e)
		c.relieve(e.Source.Addr().Is4())
		return
	}
	source := c.sourceOf(e.Source.Addr())
	if e.Source.Addr() == e.Target.Addr() {
		c.pardon(e, source, source, "from the host itself")
		return
	}
	if by, reason, ok := c.ignored.find(e.Source.Addr()); ok {
		c.pardon(e, source, by, reason)
		return
	}
	switch {
	case e.Evidence == listener.Proven:
		c.connect(e, source)
	case e.Verdict == listener.Convicted:
		c.stats.Probes++
		c.convict(e, source)
	default:
		c.probe(e, source)
	}
}

// doubt takes note that the kernel has left evidence out of account.
func (c *Controller) doubt(e listener.Event) {
	c.tell(Notice{Time: e.Time, What: Probed, Source: c.sourceOf(e.Source.Addr()), Event: e})
	if c.doubts.add(e.Verdict, e.Time) {
		c.tell(Notice{What: Doubted, Reason: reasons[e.Verdict]})
	}
}

// fields are what a message about an event says of it.
func fields(e listener.Event) []zap.Field {
	return []zap.Field{
		zap.Stringer("src", e.Source.Addr()), zap.Stringer("proto", e.Protocol), zap.Uint16("port", e.Target.Port()),
		zap.Stringer("kind", e.Kind), zap.Stringer("evidence", e.Evidence),
	}
}

// debug logs an event that comes to nothing. There may be thousands a second,
// so that what is not logged must cost nothing.
func (c *Controller) debug(message string, e listener.Event, more ...zap.Field) {
	if checked := c.log.Check(zap.DebugLevel, message); checked != nil {
		checked.Write(append(fields(e), more...)...)
	}
}

// pardon lets an ignored source be. The kernel knows of them too, but it may
// have judged just before it was told.
func (c *Controller) pardon(e listener.Event, source, by netip.Prefix, reason string) {
	c.stats.Ignored++
	if c.log.Core().Enabled(zap.DebugLevel) { // else by is allocated for nothing
		c.debug("ignored", e, zap.Stringer("by", by), zap.String("reason", reason))
	}
	c.tell(Notice{Time: e.Time, What: Ignored, Source: source, Event: e, By: by, Reason: reason})
	if e.Verdict != listener.Convicted {
		return
	}
	if err := c.kernel.Unblock(source); err != nil {
		c.excess("it blocks an ignored source", err)
	}
}

// connect is for a completed connection to a decoy.
func (c *Controller) connect(e listener.Event, source netip.Prefix) {
	if b, ok := c.blocks.get(source); ok && b.Evidence != unproven {
		c.again(e, b)
		return
	}
	if n := c.touches.add(source, e.Time); n < c.cfg.Connects {
		c.log.Info("probe", append(fields(e), zap.Int("connects", n), zap.Int("trigger", c.cfg.Connects))...)
		c.tell(Notice{Time: e.Time, What: Probed, Source: source, Event: e})
		return
	}
	c.touches.forget(source)
	c.convict(e, source)
}

// probe is for a packet to a watched port, or one to a decoy port that opens
// a connection. The kernel counts those that may make a block.
func (c *Controller) probe(e listener.Event, source netip.Prefix) {
	c.stats.Probes++
	if e.Verdict == listener.Exempted {
		c.stats.Peers++
		c.debug("probe of a peer", e)
		c.tell(Notice{Time: e.Time, What: Exempted, Source: source, Event: e})
		return
	}
	c.debug("probe", e)
	blocks := c.cfg.blocks(e.Protocol)
	if b, ok := c.blocks.get(source); ok && e.Verdict == listener.Noticed && blocks {
		c.again(e, b)
		return
	}
	if blocks || !c.suspects.add(source, e.Time) || c.would.has(source, e.Time) {
		c.tell(Notice{Time: e.Time, What: Probed, Source: source, Event: e})
		return
	}
	if !c.suspects.afford(e.Time) {
		e.Verdict = listener.Overspent
		c.doubt(e)
		return
	}
	c.convict(e, source)
}

// convict makes the block that an event has earned, or puts on record the one
// that the kernel has made.
func (c *Controller) convict(e listener.Event, source netip.Prefix) {
	now := time.Now()
	b, verb := c.sentence(e, source, now)
	if verb == "" {
		c.again(e, b)
		return
	}
	log := func() *zap.Logger { // not before the kernel blocks: it takes as long as a quarter of that
		more := append(fields(e), zap.Duration("timeout", b.Until.Sub(now)), zap.Int("strikes", b.Strikes))
		if !source.IsSingleIP() {
			more = append(more, zap.Stringer("prefix", source))
		}
		return c.log.With(more...)
	}
	if !c.cfg.blocks(e.Protocol) && e.Verdict != listener.Convicted {
		c.leave(e, b, now, log())
		return
	}
	if verb == "block" {
		c.tell(Notice{Time: e.Time, What: Sentenced, Event: e, Block: b})
	}
	done := c.insist(b)
	what := Extended
	if verb == "block" {
		what = Blocked
		c.stats.Blocked++
		if b.Evidence == unproven {
			c.stats.Unproven++
		}
	}
	if _, still := c.blocks.get(source); !still { // it had to make room
		return
	}
	took := time.Since(e.Time)
	c.store.Save(b, c.told(Notice{What: what, Event: e, Block: b, Took: took}, func(err error) { // it is a block once it is in the kernel and in the store
		if !done {
			return
		}
		log := log()
		if err != nil {
			log = log.With(zap.Bool("on_disk", false))
		}
		log.Info(verb, zap.Duration("took", took))
	}))
}

// leave is for a block that is not made, since the response is another one.
func (c *Controller) leave(e listener.Event, b state.Block, now time.Time, log *zap.Logger) {
	if !c.would.add(b.Source, now, b.Until) {
		c.tell(Notice{Time: e.Time, What: Probed, Source: b.Source, Event: e})
		return
	}
	if c.cfg.response(e.Protocol) == RespondRun {
		c.stats.Triggered++
		c.tell(Notice{Time: e.Time, What: Triggered, Event: e, Block: b})
		log.Info("run")
		return
	}
	c.stats.WouldHave++
	c.tell(Notice{Time: e.Time, What: WouldBlock, Event: e, Block: b})
	log.Info("would block")
}

// underway is how long an event may be on its way when its source is blocked.
const underway = time.Second

// again is for an event of a source that is blocked. One that comes later than
// can be explained shows that the kernel does not hold the block any more: so
// do a connection to a decoy, and a block that the kernel has made anew.
func (c *Controller) again(e listener.Event, b state.Block) {
	if e.Time.Sub(b.Since) < underway {
		c.tell(Notice{Time: e.Time, What: Probed, Source: b.Source, Event: e})
		c.debug("already blocked", e)
		return
	}
	c.tell(Notice{Time: e.Time, What: Repeated, Event: e, Block: b})
	if c.cfg.Observe || c.repair.failed != nil {
		c.debug("already blocked", e)
		return
	}
	c.log.Warn("a blocked source got through: somebody has taken its element out of the kernel; putting it back", fields(e)...)
	c.insist(b)
}

// sentence is the block that an event earns: a new one, a longer one for a
// source whose evidence is proven by now, or the name of one that was found in
// the kernel before its event came. The verb is "" if none is due.
func (c *Controller) sentence(e listener.Event, source netip.Prefix, now time.Time) (b state.Block, verb string) {
	old, known := c.blocks.get(source)
	nameless := known && old.Comment == unseen
	if known && !nameless && (old.Evidence != unproven || e.Evidence == listener.Unproven) {
		return old, ""
	}
	b = state.Block{
		Source: source, Address: e.Source.Addr(), Since: now,
		Port: e.Target.Port(), Evidence: e.Evidence.String(), Origin: state.OriginDecoy,
	}
	if e.Protocol != 0 { // else the packet's headers were too long to be seen whole
		b.Protocol, b.Kind = e.Protocol.String(), e.Kind.String()
	}
	if e.Evidence == listener.Unproven {
		b.Origin = state.OriginKernel
	}
	verb = "block"
	if known {
		b.Since, b.Strikes, verb = old.Since, old.Strikes, "extend"
	} else {
		b.Strikes = c.strikes(source, now)
	}
	b.Until = now.Add(c.cfg.timeoutFor(b.Evidence, b.Strikes))
	if known && b.Until.Before(old.Until) {
		b.Until = old.Until
	}
	b.Comment = comment(b)
	return b, verb
}

// comment is what a person reads beside the element: what touched which port,
// and the how manieth block of the source it is.
func comment(b state.Block) string {
	text := fmt.Sprintf("%s/%d %s", b.Protocol, b.Port, b.Kind)
	if b.Protocol == "" {
		text = "port hidden by extension headers"
	}
	if b.Strikes > 0 {
		text += fmt.Sprintf(" x%d", b.Strikes+1)
	}
	return text
}
