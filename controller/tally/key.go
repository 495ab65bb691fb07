package tally

import "time"

// The keys of what is kept, in the order of time: an hour is
// "h2026-11-24T15", a day "d2026-11-24", both in UTC.
const (
	hourLayout = "h2006-01-02T15"
	dayLayout  = "d2006-01-02"
	keyEnd     = ";" // after all keys of their kind, behind the letter

	sinceKey = "since" // when the counting began, RFC 3339
	dropsKey = "x"     // the kernel's counters when they were last read
)

func hourKey(t time.Time) string { return t.UTC().Format(hourLayout) }
func dayKey(t time.Time) string  { return t.UTC().Format(dayLayout) }

// hourOf is the beginning of the hour of a time, in the years that keys can say.
func hourOf(t time.Time) time.Time {
	t = t.Round(0).UTC().Truncate(time.Hour)
	if first := time.Unix(0, 0).UTC(); t.Before(first) {
		return first
	}
	if last := time.Date(9999, 12, 31, 23, 0, 0, 0, time.UTC); t.After(last) {
		return last
	}
	return t
}

// parseKey is when the record with a key begins, and how long it lasts.
func parseKey(key string) (begin time.Time, length time.Duration, ok bool) {
	if t, err := time.Parse(hourLayout, key); err == nil {
		return t, time.Hour, true
	}
	if t, err := time.Parse(dayLayout, key); err == nil {
		return t, day, true
	}
	return time.Time{}, 0, false
}

const day = 24 * time.Hour
