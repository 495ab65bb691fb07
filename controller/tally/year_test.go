package tally

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/zap"

	"nftsentry/state"
)

// worstHour is what is kept of an hour in which all lists are full of the longest rows.
func worstHour(t *testing.T, random *rand.Rand, at time.Time) []byte {
	t.Helper()
	var h hour
	for range 4 * counted {
		e := worst(random, at)
		h.add(&e)
	}
	h.counts.Packets, h.counts.Bytes = 1<<40, 1<<50
	for i := range Kinds {
		h.counts.KindProbes[i], h.counts.KindBlocks[i] = 1<<40, 1<<40
	}
	var total Total
	total.Add(h.record())
	value, err := total.encode()
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// TestYear fills a year with the worst of hours, and measures the store. Days are folded as the keeper does; of most
// only the outcome is handed in, since to fold them all takes long.
func TestYear(t *testing.T) {
	const most = 50 << 20
	dir := t.TempDir()
	s, err := state.Open(dir, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	random := rand.New(rand.NewPCG(1, 2))
	samples := make([][]byte, 24)
	for i := range samples {
		samples[i] = worstHour(t, random, start)
	}
	k := New(s, noDrops, zap.NewNop())
	for n := range 365 {
		records := make(map[string][]byte)
		date := start.AddDate(0, 0, n).Truncate(day)
		old := date.AddDate(0, 0, -36)
		if n >= 36 && n%30 != 0 {
			records[dayKey(old)] = samples[n%24]
		}
		for h := range 24 {
			records[hourKey(date.Add(time.Duration(h)*time.Hour))] = samples[h]
			if len(records[dayKey(old)]) > 0 {
				records[hourKey(old.Add(time.Duration(h)*time.Hour))] = nil
			}
		}
		s.SaveTally(records)
		k.began, k.kept = date.Add(-2*steady), time.Time{}
		k.retain(date.Add(day - time.Minute))
		if err := s.WriteTally(); err != nil {
			t.Fatal(err)
		}
	}
	rewrite(t, s, start.AddDate(0, 0, 364), samples)
	days, hours, largest := measure(t, s)
	info, err := os.Stat(filepath.Join(dir, "nftsentry.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("a year: %d hours and %d days of %d bytes at most, a file of %.1f MiB", hours, days, largest, float64(info.Size())/(1<<20))
	if info.Size() > most || hours+days*24 != 365*24 || hours > 36*24 {
		t.Errorf("a year takes %d bytes with %d hours and %d days; at most %d are allowed", info.Size(), hours, days, most)
	}
}

// rewrite writes the hours of a day again and again, as the keeper does every few minutes.
func rewrite(t *testing.T, s *state.Store, date time.Time, samples [][]byte) {
	t.Helper()
	for n := range 5 * 24 {
		s.SaveTally(map[string][]byte{hourKey(date.Truncate(day).Add(time.Duration(n/5) * time.Hour)): samples[n%24]})
		if err := s.WriteTally(); err != nil {
			t.Fatal(err)
		}
	}
}

// measure counts what is kept.
func measure(t *testing.T, s Reader) (days, hours, largest int) {
	t.Helper()
	if err := s.EachTally("d", "h"+keyEnd, func(key string, value []byte) error {
		if _, length, _ := parseKey(key); length == day {
			days++
		} else {
			hours++
		}
		largest = max(largest, len(value))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return days, hours, largest
}
