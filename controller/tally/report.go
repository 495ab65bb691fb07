package tally

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sort"
	"time"
)

// A Period is what a report is about.
type Period struct {
	// Edges are where its parts begin, ascending, and at last its end: two at least.
	Edges []time.Time
	// From and To are the period that it is compared with.
	From, To time.Time
}

// A Report is what was counted in a period.
type Report struct {
	Since  time.Time // when the counting began; zero if it never has
	Total  Record    // of the whole period
	Parts  []Counts  // one less than there are edges
	Before Counts    // of the period that it is compared with
	Unread int       // records that were damaged, and are left out
}

// errPeriod says that there is no such period.
var errPeriod = errors.New("a period needs two ascending edges at least")

// Read sums up a period, with so many rows of each list at the most. An hour
// belongs to the part in which it begins, and a day, when its hours are not
// kept any more, to that which has its noon.
func Read(from Reader, p Period, most int) (Report, error) {
	if len(p.Edges) < 2 || !slices.IsSortedFunc(p.Edges, time.Time.Compare) {
		return Report{}, errPeriod
	}
	r := Report{Parts: make([]Counts, len(p.Edges)-1)}
	err := from.EachTally(sinceKey, sinceKey+"\x00", func(_ string, value []byte) (err error) {
		r.Since, err = time.Parse(time.RFC3339, string(value))
		return err
	})
	if err != nil {
		return Report{}, fmt.Errorf("read when the counting began: %w", err)
	}
	s := summing{Period: p, report: &r}
	first, last := earlier(p.From, p.Edges[0]), p.Edges[len(p.Edges)-1]
	if p.To.After(last) {
		last = p.To
	}
	for _, keys := range [][2]string{
		{dayKey(first.Add(-day)), dayKey(last) + "\x00"},
		{hourKey(first), hourKey(last) + "\x00"},
	} {
		if err := from.EachTally(keys[0], keys[1], s.take); err != nil {
			return Report{}, err
		}
	}
	r.Total = s.total.Record(most)
	return r, nil
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// summing adds records to a report.
type summing struct {
	Period
	report *Report
	total  Total
}

func (s *summing) take(key string, value []byte) error {
	at, length, ok := parseKey(key)
	if !ok {
		return nil
	}
	if length == day {
		at = at.Add(day / 2)
	}
	// The part before the first edge that is after the time.
	part := sort.Search(len(s.Edges), func(i int) bool { return s.Edges[i].After(at) }) - 1
	inside := part >= 0 && part < len(s.report.Parts)
	before := !at.Before(s.From) && at.Before(s.To)
	if !inside && !before {
		return nil
	}
	if !inside {
		return s.takeBefore(value)
	}
	var r Record
	if err := json.Unmarshal(value, &r); err != nil {
		s.report.Unread++
		return nil
	}
	s.report.Parts[part].add(&r.Counts)
	s.total.Add(&r)
	return nil
}

// takeBefore takes the totals alone.
func (s *summing) takeBefore(value []byte) error {
	var r struct {
		Counts Counts `json:"counts"`
	}
	if err := json.Unmarshal(value, &r); err != nil {
		s.report.Unread++
		return nil
	}
	s.report.Before.add(&r.Counts)
	return nil
}
