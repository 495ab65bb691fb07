package controller

import "time"

// A pace says when something is due that is asked for at any time, and done
// some time after that, at most once in an interval.
type pace struct {
	after time.Duration
	every time.Duration
	at    time.Time // when it is due; zero if nobody asks
	done  time.Time // when it was done last
}

func (p *pace) ask(now time.Time) {
	if p.at.IsZero() {
		p.at = now.Add(p.after)
		if soonest := p.done.Add(p.every); p.at.Before(soonest) {
			p.at = soonest
		}
	}
}

// next is when it is due.
func (p *pace) next() (time.Time, bool) { return p.at, !p.at.IsZero() }

// due tells whether it is due, and takes it for done if so.
func (p *pace) due(now time.Time) bool {
	if p.at.IsZero() || now.Before(p.at) {
		return false
	}
	p.at, p.done = time.Time{}, now
	return true
}
