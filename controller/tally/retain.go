package tally

import (
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
)

// KeepDays is how long days are kept; then they are forgotten.
const KeepDays = 400 * day

// How long other records are kept.
const (
	keepHours = 35 * day // then they are folded into days
	mostHours = 1000     // that are kept in any case; those above fold sooner

	steady = time.Hour   // for which a clock must run before it is trusted
	jump   = time.Minute // by which a steady clock may be set
)

// retain folds hours that are old into days, and forgets days that are older,
// once an hour. A clock that was set of late is not trusted with it: it may be
// wrong, and what is forgotten does not come back. The caller holds k.writing.
func (k *Keeper) retain(now time.Time) {
	if hourOf(now).Equal(k.kept) {
		return
	}
	k.kept = hourOf(now)
	if !isSteady(k.began.Round(0), now.Round(0), now.Sub(k.began)) {
		k.began = now
	}
	trusted := now.Sub(k.began) >= steady
	err := k.fold(now, trusted)
	if err == nil && trusted {
		err = k.forget(now)
	}
	if err != nil {
		k.log.Warn("old counts cannot be folded into days; trying again in an hour", zap.Error(err))
	}
}

// isSteady tells whether the wall clock has gone on as the monotonic one has.
func isSteady(before, now time.Time, elapsed time.Duration) bool {
	return (now.Sub(before) - elapsed).Abs() <= jump
}

// fold folds hours into days.
func (k *Keeper) fold(now time.Time, trusted bool) error {
	hours, err := k.oldHours(now, trusted)
	if err != nil {
		return err
	}
	days := make(map[string][]string)
	for _, key := range hours {
		date, _, _ := strings.Cut(key[1:], "T")
		days["d"+date] = append(days["d"+date], key)
	}
	for key, hours := range days {
		if err := k.foldDay(key, hours); err != nil {
			return err
		}
	}
	return nil
}

// oldHours are the keys of the hours to fold.
func (k *Keeper) oldHours(now time.Time, trusted bool) ([]string, error) {
	var all []string
	err := k.store.EachTally("h", "h"+keyEnd, func(key string, _ []byte) error {
		all = append(all, key)
		return nil
	})
	slices.Sort(all)
	n := max(0, len(all)-mostHours)
	if trusted {
		old, _ := slices.BinarySearch(all, hourKey(now.Add(-keepHours).UTC().Truncate(day))) // whole days
		n = max(n, old)
	}
	return all[:n], err
}

// foldDay adds hours to the record of their day, and deletes them.
func (k *Keeper) foldDay(key string, hours []string) error {
	var total Total
	records := make(map[string][]byte)
	add := func(name string, value []byte) error {
		if err := total.addEncoded(value); err != nil {
			k.log.Error("counts cannot be read; they are left out", zap.String("record", name), zap.Error(err))
		}
		return nil
	}
	for _, name := range append(hours, key) {
		if err := k.store.EachTally(name, name+"\x00", add); err != nil {
			return err
		}
		records[name] = nil
	}
	var err error
	if records[key], err = total.encode(); err != nil {
		return err
	}
	k.store.SaveTally(records)
	return nil
}

// forget deletes days that are too old.
func (k *Keeper) forget(now time.Time) error {
	records := make(map[string][]byte)
	err := k.store.EachTally("d", dayKey(now.Add(-KeepDays)), func(key string, _ []byte) error {
		records[key] = nil
		return nil
	})
	if len(records) > 0 {
		k.store.SaveTally(records)
	}
	return err
}
