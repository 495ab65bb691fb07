package controller

import (
	"net/netip"
	"slices"
	"time"
)

// touches counts the connections of each source within a window of time.
type touches struct {
	window time.Duration
	times  map[netip.Prefix][]time.Time // oldest first
}

func newTouches(window time.Duration) touches {
	return touches{window: window, times: make(map[netip.Prefix][]time.Time)}
}

// add counts one connection and tells how many there are now.
func (t *touches) add(source netip.Prefix, at time.Time) int {
	times, known := t.times[source]
	if !known && len(t.times) >= maxTouching {
		t.makeRoom(at)
	}
	times = append(t.recent(times, at), at)
	t.times[source] = times
	return len(times)
}

func (t *touches) recent(times []time.Time, now time.Time) []time.Time {
	return slices.DeleteFunc(times, func(at time.Time) bool { return now.Sub(at) > t.window })
}

// makeRoom drops what no longer counts, and if most of it does, some of that.
func (t *touches) makeRoom(now time.Time) {
	for source, times := range t.times {
		if len(t.recent(times, now)) == 0 {
			delete(t.times, source)
		}
	}
	for source := range t.times {
		if len(t.times) < maxTouching*7/8 {
			return
		}
		delete(t.times, source)
	}
}

func (t *touches) forget(source netip.Prefix) { delete(t.times, source) }
