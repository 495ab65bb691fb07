package controller

import (
	"slices"
	"time"

	"go.uber.org/zap"

	"nftsentry/listener"
	"nftsentry/nft"
)

// calm is how long unproven evidence must not have been refused for before it
// is trusted again. The kernel tells of refusals once a second. A budget that
// is spent stays so until there is another block in it.
const calm = 10 * time.Second

// doubts are the reasons why unproven evidence is not trusted at the moment.
// Each is logged when it comes up and when it is over.
type doubts struct {
	log    *zap.Logger
	refill time.Duration // of the budget, until there is one more block in it
	open   map[listener.Verdict]doubt
}

// calmOf is how long a doubt lasts after its last sign.
func (d *doubts) calmOf(v listener.Verdict) time.Duration {
	if v == listener.Overspent {
		return max(calm, d.refill)
	}
	return calm
}

// A doubt lasts from its first sign until calm after its last one.
type doubt struct{ first, last time.Time }

// Why unproven evidence is not trusted, as the Reason of Doubted and Trusted
// and in Stats.
const (
	DoubtCrowded = "a set of the kernel is full, as by a flood of forged sources"
	DoubtBudget  = "trigger.budget is spent"
)

var reasons = map[listener.Verdict]string{listener.Crowded: DoubtCrowded, listener.Overspent: DoubtBudget}

func newDoubts(log *zap.Logger, budget nft.Rate) doubts {
	return doubts{log: log, refill: budget.Per / time.Duration(max(1, budget.Count)), open: make(map[listener.Verdict]doubt)}
}

// add takes note of a sign of doubt, and tells whether it is the first.
func (d *doubts) add(v listener.Verdict, at time.Time) (first bool) {
	one, known := d.open[v]
	if !known {
		one.first = at
		d.log.Warn("unproven evidence is not trusted for now; proven evidence is", zap.String("reason", reasons[v]))
	}
	one.last = at
	d.open[v] = one
	return !known
}

// next is when the next doubt may be over.
func (d *doubts) next() (at time.Time, ok bool) {
	for v, one := range d.open {
		if over := one.last.Add(d.calmOf(v)); !ok || over.Before(at) {
			at, ok = over, true
		}
	}
	return at, ok
}

// settle ends the doubts of which there has been no sign for a while, and
// returns their reasons.
func (d *doubts) settle(now time.Time) (over []string) {
	for v, one := range d.open {
		if now.Sub(one.last) >= d.calmOf(v) {
			delete(d.open, v)
			over = append(over, reasons[v])
			d.log.Info("unproven evidence is trusted again", zap.String("reason", reasons[v]), zap.Duration("after", now.Sub(one.first).Round(time.Second)))
		}
	}
	return over
}

// list names the doubts.
func (d *doubts) list() []string {
	var out []string
	for v := range d.open {
		out = append(out, reasons[v])
	}
	slices.Sort(out)
	return out
}
