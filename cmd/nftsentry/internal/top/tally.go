package top

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

const (
	minutes  = 10   // that a tally looks back
	mostKeys = 4096 // in each of them; what comes for the first time after that is not counted
	seconds  = 10   // that a rate looks back
)

// A tally counts what has happened in the last minutes, by key.
type tally struct {
	minute int64                   // since 1970, of the last part
	parts  [minutes]map[string]int // the newest last
}

// add counts one.
func (t *tally) add(key string, at time.Time) {
	t.turn(at)
	part := &t.parts[minutes-1]
	if *part == nil {
		*part = make(map[string]int)
	}
	if _, there := (*part)[key]; there || len(*part) < mostKeys {
		(*part)[key]++
	}
}

// turn drops what is too old. A clock that was set back changes nothing.
func (t *tally) turn(now time.Time) {
	minute := now.Unix() / 60
	for steps := min(minute-t.minute, minutes); steps > 0; steps-- {
		copy(t.parts[:], t.parts[1:])
		t.parts[minutes-1] = nil
	}
	t.minute = max(t.minute, minute)
}

// A count is how often a key was counted.
type count struct {
	key string
	n   int
}

// most are the keys with the highest counts, at most so many.
func (t *tally) most(now time.Time, limit int) []count {
	t.turn(now)
	sums := make(map[string]int)
	for _, part := range t.parts {
		for key, n := range part {
			sums[key] += n
		}
	}
	var all []count
	for key, n := range maps.All(sums) {
		all = append(all, count{key, n})
	}
	slices.SortFunc(all, func(a, b count) int { return cmp.Or(b.n-a.n, cmp.Compare(a.key, b.key)) })
	return all[:min(limit, len(all))]
}

// A rate counts what has happened in the last seconds.
type rate struct {
	second int64 // since 1970, of the last part, which is not over yet
	parts  [seconds + 1]uint64
}

func (r *rate) add(n uint64, at time.Time) {
	r.turn(at)
	r.parts[seconds] += n
}

func (r *rate) turn(now time.Time) {
	for steps := min(now.Unix()-r.second, seconds+1); steps > 0; steps-- {
		copy(r.parts[:], r.parts[1:])
		r.parts[seconds] = 0
	}
	r.second = max(r.second, now.Unix())
}

// perSecond is the mean of the seconds that are over.
func (r *rate) perSecond(now time.Time) float64 {
	r.turn(now)
	var sum uint64
	for _, n := range r.parts[:seconds] {
		sum += n
	}
	return float64(sum) / seconds
}
