package main

import (
	"fmt"
	"time"

	"nftsentry/conf"
	"nftsentry/controller/api"
)

// A period is what a report is about, and how its parts are named.
type period struct {
	api.ReportRequest
	step   step
	before string // how the period that it is compared with is called
}

// A step is how long the parts of a period are.
type step int

const (
	hourly    step = iota
	quarterly      // of a day
	daily
	weekly
)

// String is what a part is.
func (s step) String() string {
	return [...]string{hourly: "hour", quarterly: "quarter of a day", daily: "day", weekly: "week"}[s]
}

// The longest periods that are shown in steps.
const (
	longestHourly    = 48 * time.Hour
	longestQuarterly = 14 * 24 * time.Hour
	longestDaily     = 100 * 24 * time.Hour
	longestWeekly    = 2 * 366 * 24 * time.Hour
)

// lastPeriod is the last day, week or month up to now, in the zone of now: 24
// hours of which the last one is not over, or 7 or 30 days of the calendar of
// which the last one is today. It is compared with the one before, as far as
// it had come at this time of day.
func lastPeriod(last string, now time.Time) (period, error) {
	hour := now.Truncate(time.Hour)
	end := latest(now.Truncate(time.Second), hour).Add(time.Second)
	var p period
	var days int
	switch last {
	case "day":
		p.before, p.step = "the 24 hours before", hourly
		first := hour.Add(-23 * time.Hour)
		p.Edges = edges(first, end, hourly)
		p.From, p.To = first.Add(-24*time.Hour), first
		return p, nil
	case "week":
		days, p.step, p.before = 7, quarterly, "the week before"
	case "month":
		days, p.step, p.before = 30, daily, "the 30 days before"
	default:
		return period{}, usagef("--last %q: write day, week or month", last)
	}
	first := date(now, 1-days)
	p.Edges = edges(first, end, p.step)
	p.From, p.To = date(now, 1-2*days), earliest(hour.Add(time.Hour).AddDate(0, 0, -days), first)
	return p, nil
}

// spanPeriod is the time between two others, up to now at the most, in whole
// hours. It is compared with as many hours before.
func spanPeriod(since, until string, now time.Time) (period, error) {
	from, err := parseWhen("since", since, now)
	if err != nil {
		return period{}, err
	}
	to := now.Truncate(time.Second).Add(time.Second)
	if until != "" {
		end, err := parseWhen("until", until, now)
		if err != nil {
			return period{}, err
		}
		to = earliest(hourUp(end), to)
	}
	from = hourDown(from)
	length := hourUp(to).Sub(from)
	p := period{before: "the same time before"}
	switch {
	case !from.Before(to):
		return period{}, usagef("--since %s is not before the end of the report, %s", from.Format(stamp), to.Format(stamp))
	case now.Sub(from) > longestWeekly:
		return period{}, usagef("--since %s is too long ago: two years at most, and counts are kept for 400 days", from.Format(stamp))
	case length <= longestHourly:
		p.step = hourly
	case length <= longestQuarterly:
		p.step = quarterly
	case length <= longestDaily:
		p.step = daily
	default:
		p.step = weekly
	}
	p.Edges, p.From, p.To = edges(from, to, p.step), from.Add(-length), from
	return p, nil
}

// hourDown is the beginning of the hour by the clock on the wall, which need
// not be one of UTC.
func hourDown(t time.Time) time.Time {
	return t.Truncate(time.Second).Add(-time.Duration(60*t.Minute()+t.Second()) * time.Second)
}

// hourUp is the end of it.
func hourUp(t time.Time) time.Time {
	if down := hourDown(t); down.Before(t) {
		return down.Add(time.Hour)
	}
	return t
}

// stamp is how a time is shown and can be written.
const stamp = "2006-01-02 15:04"

// parseWhen reads a time, or how long ago it is.
func parseWhen(flag, text string, now time.Time) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t.In(now.Location()), nil
	}
	for _, layout := range []string{stamp, "2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return t, nil
		}
	}
	ago, err := conf.ParseDuration(text)
	if err != nil {
		return time.Time{}, usagef("--%s %q: write a date such as %q, a time such as %q, or how long ago it is, such as \"36h\"",
			flag, text, now.Format(time.DateOnly), now.Format(stamp))
	}
	return now.Add(-ago), nil
}

// edges are where the parts from one time to another begin, and the latter.
// Days and their quarters are those of the clock on the wall: when it is set,
// a day has 23 hours or 25.
func edges(from, to time.Time, s step) []time.Time {
	out := []time.Time{from}
	for t := s.next(from); t.Before(to); t = s.next(t) {
		out = append(out, t)
	}
	return append(out, to)
}

// next is where the part after t begins.
func (s step) next(t time.Time) time.Time {
	switch s {
	case hourly:
		return t.Add(time.Hour)
	case quarterly:
		for n := 1; ; n++ { // the quarter may not be there when the clock is set
			q := time.Date(t.Year(), t.Month(), t.Day(), (t.Hour()/6+n)*6, 0, 0, 0, t.Location())
			if q.After(t) {
				return q
			}
		}
	case daily:
		return date(t, 1)
	}
	return date(t, 7)
}

// date is the beginning of the day that is some days later.
func date(t time.Time, days int) time.Time {
	return time.Date(t.Year(), t.Month(), t.Day()+days, 0, 0, 0, 0, t.Location())
}

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// name is how a part is called, in the zone of its times.
func (s step) name(from, to time.Time) string {
	const day = "Mon 2 Jan"
	switch s {
	case hourly:
		return from.Format(day + " 15:04")
	case quarterly:
		return fmt.Sprintf("%s %s to %s", from.Format(day), from.Format("15:04"), to.Format("15:04"))
	case daily:
		return from.Format(day)
	}
	return fmt.Sprintf("%s to %s", from.Format("2 Jan"), to.Add(-time.Second).Format("2 Jan 2006"))
}
