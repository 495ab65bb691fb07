package controller

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"go.uber.org/zap"

	"nftsentry/nft"
	"nftsentry/state"
)

// Paces of repair. Somebody who undoes our table again and again is not fought
// at the speed of the machine.
const (
	repairFirst = 200 * time.Millisecond // between two attempts that fail; twice as long each time
	repairMost  = 2 * time.Second        // at the most
	calmAfter   = time.Minute            // without damage, the next one is repaired at once again
	patienceFor = 60                     // repairs within calmAfter, then
	repairEvery = 10 * time.Second       // one in this time
)

// A repair brings the kernel in line with our list, as soon as it may.
type repair struct {
	at     time.Time     // when it is due; zero if nothing is wrong
	wait   time.Duration // after the next failure
	recent []time.Time   // when the last ones were done, the oldest first
	failed error         // why the last one did not succeed; nil if it did
	blocks bool          // it is about the blocks too, not the rules alone
	excess bool          // the kernel may block what it must not
	warned bool          // that somebody undoes them
}

// ask says that something is wrong.
func (r *repair) ask(now time.Time) {
	if !r.at.IsZero() {
		return
	}
	r.at = now
	if r.spent(now) {
		r.at = r.recent[len(r.recent)-1].Add(repairEvery)
	} else {
		r.warned = false
	}
}

// spent tells whether there were so many repairs of late that the next one has
// to wait.
func (r *repair) spent(now time.Time) bool {
	for len(r.recent) > 0 && now.Sub(r.recent[0]) > calmAfter {
		r.recent = r.recent[1:]
	}
	return len(r.recent) >= patienceFor
}

// next is when it is due.
func (r *repair) next() (time.Time, bool) { return r.at, !r.at.IsZero() }

func (r *repair) due(now time.Time) bool { return !r.at.IsZero() && !now.Before(r.at) }

// done takes note of what came of it.
func (r *repair) done(now time.Time, err error) {
	r.failed = err
	if err == nil {
		r.at, r.wait, r.blocks, r.excess = time.Time{}, 0, false, false
		r.recent = append(r.recent, now)
		return
	}
	r.blocks = true // nobody knows what is there by now
	r.wait = min(max(2*r.wait, repairFirst), repairMost)
	r.at = now.Add(r.wait)
}

// harm takes note that the kernel is not as it should be. It is brought in
// line in the next round of the loop, or when the pace allows.
func (c *Controller) harm(what string, why error) {
	c.lose(why)
	now := time.Now()
	if c.repair.at.IsZero() {
		c.log.Warn("our table is not as it should be", zap.String("what", what), zap.Error(why))
	}
	c.repair.ask(now)
	c.repair.blocks = true
	if c.repair.at.After(now) && c.repair.failed == nil && !c.repair.warned {
		c.repair.warned = true
		c.log.Error("somebody undoes our table again and again: it is made again every "+repairEvery.String()+
			" only; find out who, such as by \"nft monitor\"", zap.Time("next", c.repair.at))
	}
}

// excess is harm where the kernel may block what it must not.
func (c *Controller) excess(what string, why error) {
	c.harm(what, why)
	c.repair.excess = true
}

// changed is for what somebody else has done to the table. Whoever takes our
// blocks or rules away has them back at once, if not again and again.
func (c *Controller) changed(ch nft.Change) {
	by := fmt.Sprintf("%q (process %d) has changed it", ch.Process, ch.PID)
	if ch.Process == "" {
		by = "it was changed, and not all of how"
	}
	if ch.All {
		c.harm(by, nil)
		return
	}
	if ch.Shape && c.repair.at.IsZero() { // else it is made again anyway
		if intact, err := c.kernel.Intact(); !intact || err != nil {
			blocks := c.repair.blocks // as it was: this harm is to the rules alone
			c.harm(by, err)
			c.repair.blocks = blocks
		}
	}
	if len(ch.Hosts)+len(ch.Nets) > 0 && c.repair.spent(time.Now()) {
		c.harm(by, nil)
		return
	}
	if len(ch.Nets) > 0 {
		if err := c.kernel.RestoreNets(); err != nil {
			c.harm(by, err)
			return
		}
		c.tell(Notice{What: Healed, Reason: by + ": put back the prefixes"})
		c.repair.recent = append(c.repair.recent, time.Now())
	}
	c.restoreHosts(ch.Hosts, by)
}

// restoreHosts puts back the elements that somebody has deleted or changed.
// Those that he has added are looked up, and adopted.
func (c *Controller) restoreHosts(keys []netip.Addr, by string) {
	if len(keys) == 0 || c.suspended() {
		return
	}
	restored := 0
	for _, key := range keys {
		b, ours := c.blocks.get(c.kernel.HostPrefix(key))
		if !ours {
			if len(c.strange) < nft.MostListed {
				c.strange = append(c.strange, key)
			}
			c.reconcile.ask(time.Now())
			continue
		}
		if !c.insist(b) {
			return // all are made again
		}
		restored++
	}
	if restored == 0 {
		return
	}
	c.repair.recent = append(c.repair.recent, time.Now())
	c.tell(Notice{What: Healed, Reason: fmt.Sprintf("%s: put back %d elements", by, restored)})
	c.log.Warn("put back what somebody has taken out of our table", zap.String("by", by), zap.Int("elements", restored))
}

// mend makes the table again, or its rules alone if that will do.
func (c *Controller) mend() {
	began := time.Now()
	var err error
	if !c.repair.blocks {
		err = c.kernel.Reshape()
	}
	if c.repair.blocks || err != nil {
		err = c.mendAll()
	}
	c.lose(err)
	first := c.repair.failed == nil
	c.repair.done(time.Now(), err)
	switch {
	case err == nil:
		c.stats.Mended++
		c.tell(Notice{What: Healed, Reason: "our table was made again"})
		c.log.Info("made our table again", zap.Int("blocks", c.blocks.len()), zap.Duration("took", time.Since(began)))
	case first && c.lost == nil:
		c.log.Error("cannot make our table again; trying on", zap.Error(err))
	}
}

// mendAll makes all of the table again.
func (c *Controller) mendAll() error {
	defer c.sparing()()
	c.adoptUntold()
	c.rediscover()
	return c.load()
}

// adoptUntold takes over, and returns, what the kernel has blocked and could not
// tell yet, before the table is filled anew. What has a comment and is not on our
// list is no block of the kernel's own: we have ended it, or it was never to be.
func (c *Controller) adoptUntold() []state.Block {
	if c.suspended() {
		return nil
	}
	held, err := c.held()
	if err != nil {
		return nil // the event may yet come
	}
	held = slices.DeleteFunc(held, func(e nft.Element) bool { return e.Comment != "" })
	adopted := c.adopt(held)
	for _, b := range adopted {
		c.store.Save(b, c.told(Notice{What: Blocked, Block: b}, nil))
	}
	c.shrink()
	return adopted
}

// insist is enforce for what has to be: a block that the kernel has refused
// stays on our list, and is tried again with all others. It tells whether the
// kernel has taken it at once.
func (c *Controller) insist(b state.Block) bool {
	if c.repair.failed != nil { // it would only fail again
		c.repair.blocks = true
		c.blocks.put(b)
		c.shrink()
		return false
	}
	err := c.enforce(b)
	if err == nil {
		return true
	}
	c.stats.Failed++
	c.log.Warn("cannot block yet", zap.String("src", display(b.Source)), zap.Error(err))
	c.blocks.put(b)
	c.harm("it refuses a block", err)
	return false
}
