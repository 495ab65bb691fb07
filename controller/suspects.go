package controller

import (
	"maps"
	"net/netip"
	"time"

	"golang.org/x/time/rate"

	"nftsentry/nft"
)

// suspects counts the unproven evidence that the kernel only tells of, and
// does so as the kernel counts what it judges: the window of a source begins
// with the first port that it touches, and each message is about another port.
type suspects struct {
	ports   int // the trigger
	window  time.Duration
	budget  *rate.Limiter
	sources map[netip.Prefix]tally
}

// A tally is how many ports a source has touched since a moment.
type tally struct {
	since time.Time
	ports int
}

func newSuspects(cfg nft.Config) suspects {
	s := suspects{sources: make(map[netip.Prefix]tally)}
	s.configure(cfg)
	return s
}

// configure takes over what is asked for, and keeps what has been counted.
func (s *suspects) configure(cfg nft.Config) {
	every := cfg.Budget.Per / time.Duration(max(1, cfg.Budget.Count))
	s.ports, s.window = cfg.Ports, cfg.Window
	s.budget = rate.NewLimiter(rate.Every(every), cfg.Budget.Count)
}

// add counts a port and tells whether the trigger is reached.
// A source that finds no room is not counted, as in a set that is full.
func (s *suspects) add(source netip.Prefix, at time.Time) bool {
	t, known := s.sources[source]
	if !known || at.Sub(t.since) >= s.window {
		t = tally{since: at}
	}
	if !known && len(s.sources) >= maxTouching && !s.makeRoom(at) {
		return false
	}
	t.ports++
	s.sources[source] = t
	return t.ports >= s.ports
}

// makeRoom forgets the sources whose window has passed.
func (s *suspects) makeRoom(now time.Time) bool {
	for source, t := range s.sources {
		if now.Sub(t.since) >= s.window {
			delete(s.sources, source)
		}
	}
	return len(s.sources) < maxTouching
}

// afford takes one block off the budget, if there is one left.
func (s *suspects) afford(now time.Time) bool { return s.budget.AllowN(now, 1) }

// sentences remembers whom only a message says to be blocked, and until when,
// so that it is said once.
type sentences map[netip.Prefix]time.Time

// has tells whether a source is said to be blocked.
func (s sentences) has(source netip.Prefix, now time.Time) bool { return now.Before(s[source]) }

// add tells whether a source is not said to be blocked yet, and takes it for
// blocked until a moment. What finds no room is not said.
func (s sentences) add(source netip.Prefix, now, until time.Time) bool {
	if s.has(source, now) {
		return false
	}
	if len(s) >= maxTouching {
		maps.DeleteFunc(s, func(_ netip.Prefix, until time.Time) bool { return !now.Before(until) })
	}
	if len(s) >= maxTouching {
		return false
	}
	s[source] = until
	return true
}
