package tally

import (
	"context"
	"encoding/json"
	"math"
	"sync"
	"time"

	"go.uber.org/zap"
)

const (
	writeEvery = 5 * time.Minute // after the first event
	beforeTurn = 2 * time.Second // before the end of an hour the counters are read, so that it has what is its
	maxHours   = 4               // that are counted at once, which are more than one when the clock jumps
)

// Store is what keeps records. *state.Store is one.
type Store interface {
	Reader
	SaveTally(records map[string][]byte)
}

// Reader is where records are read. *state.Store and *state.TallyFile are.
type Reader interface {
	EachTally(from, to string, visit func(key string, value []byte) error) error
}

// Drops are the kernel's counters of what it has dropped, since its table was made.
type Drops struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// since is what was dropped after an earlier reading. Counters that have
// become less have begun anew.
func (d Drops) since(old Drops) Drops {
	if d.Packets < old.Packets || d.Bytes < old.Bytes {
		return d
	}
	return Drops{d.Packets - old.Packets, d.Bytes - old.Bytes}
}

// A Keeper counts events and keeps them. Its methods may be called at any time
// by any goroutine.
type Keeper struct {
	store Store
	read  func(context.Context) (Drops, error)
	log   *zap.Logger
	kick  chan struct{} // there is something to write; of size 1, full is as good as told

	mu    sync.Mutex          // guards what follows; held for short
	hours map[time.Time]*hour // since the last write
	dirty bool                // hours has something

	writing sync.Mutex // is held while records are read, changed and handed in; guards what follows
	drops   *Drops     // as they were last read; nil for never
	saved   *Drops     // as they were last handed in; nil for never
	unread  error      // why they could not be read
	began   time.Time  // since when the clock has been steady
	kept    time.Time  // the hour in which old records were last looked for
}

// New makes a keeper. Read reads the kernel's counters.
func New(store Store, read func(context.Context) (Drops, error), log *zap.Logger) *Keeper {
	return &Keeper{store: store, read: read, log: log, kick: make(chan struct{}, 1), hours: make(map[time.Time]*hour), began: time.Now()}
}

// Add counts an event. It never waits for anything that takes long.
func (k *Keeper) Add(e Event) {
	k.mu.Lock()
	k.hour(e.Time).add(&e)
	k.touch()
}

// touch unlocks k.mu, and sees to it that what was counted is written.
func (k *Keeper) touch() {
	first := !k.dirty
	k.dirty = true
	k.mu.Unlock()
	if first {
		select {
		case k.kick <- struct{}{}:
		default:
		}
	}
}

// hour is where to count what happens at a time. Of too many hours, between
// which a clock has jumped to and fro, the nearest will do.
func (k *Keeper) hour(t time.Time) *hour {
	at := hourOf(t)
	h := k.hours[at]
	if h != nil {
		return h
	}
	if len(k.hours) < maxHours {
		h = new(hour)
		k.hours[at] = h
		return h
	}
	nearest := int64(math.MaxInt64)
	for other, counting := range k.hours {
		if away := max(other.Unix()-at.Unix(), at.Unix()-other.Unix()); away < nearest { // a Duration cannot be that long
			nearest, h = away, counting
		}
	}
	return h
}

// Run hands to the store what was counted until ctx ends, some minutes after
// it happened, and returns nil. What is left then is for Write. While nothing
// happens it wakes up once an hour.
func (k *Keeper) Run(ctx context.Context) error {
	k.begin(ctx)
	due := time.Now().Add(untilTurn(time.Now()))
	timer := time.NewTimer(time.Until(due))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-k.kick:
			if soon := time.Now().Add(writeEvery); soon.Before(due) {
				due = soon
				timer.Reset(writeEvery)
			}
			continue
		case <-timer.C:
		}
		k.Write(ctx)
		wait := untilTurn(time.Now())
		due = time.Now().Add(wait)
		timer.Reset(wait)
	}
}

// untilTurn is how long it is until this hour is nearly over.
func untilTurn(now time.Time) time.Duration {
	wait := hourOf(now).Add(time.Hour - beforeTurn).Sub(now.Round(0))
	if wait <= 0 {
		wait += time.Hour
	}
	return min(max(wait, time.Second), time.Hour)
}

// begin takes up what an earlier run has kept.
func (k *Keeper) begin(ctx context.Context) {
	k.writing.Lock()
	defer k.writing.Unlock()
	now := time.Now()
	known := false
	err := k.store.EachTally(sinceKey, sinceKey+"\x00", func(string, []byte) error {
		known = true
		return nil
	})
	if err == nil && !known {
		k.store.SaveTally(map[string][]byte{sinceKey: []byte(now.UTC().Format(time.RFC3339))})
	}
	k.note(err)
	k.retain(now)
	k.saved = k.keptDrops()
	k.drops = k.saved
	k.readDrops(ctx, now)
}

// Write reads the counters and hands in what was counted. It is called for
// the last time after all events.
func (k *Keeper) Write(ctx context.Context) {
	k.writing.Lock()
	defer k.writing.Unlock()
	now := time.Now()
	k.readDrops(ctx, now)
	records := make(map[string][]byte)
	for at, h := range k.take() {
		value, err := k.merge(hourKey(at), h)
		if err != nil {
			k.note(err)
			k.giveBack(at, h)
			continue
		}
		records[hourKey(at)] = value
	}
	if k.drops != nil && (k.saved == nil || *k.saved != *k.drops) {
		records[dropsKey], _ = json.Marshal(k.drops) // two numbers always can be
		k.saved = k.drops
	}
	if len(records) > 0 {
		k.store.SaveTally(records)
	}
	k.retain(now)
}

// take takes what was counted.
func (k *Keeper) take() map[time.Time]*hour {
	k.mu.Lock()
	defer k.mu.Unlock()
	hours := k.hours
	k.hours, k.dirty = make(map[time.Time]*hour), false
	return hours
}

// giveBack takes back what could not be handed in.
func (k *Keeper) giveBack(at time.Time, h *hour) {
	k.mu.Lock()
	k.hour(at).absorb(h)
	k.touch()
}

// merge adds what was counted to what is kept of the hour.
func (k *Keeper) merge(key string, h *hour) ([]byte, error) {
	var total Total
	err := k.store.EachTally(key, key+"\x00", func(_ string, value []byte) error {
		if err := total.addEncoded(value); err != nil {
			k.log.Error("counts of an hour cannot be read; they are counted anew", zap.String("hour", key), zap.Error(err))
			total = Total{}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	total.Add(h.record())
	return total.encode()
}

// readDrops reads the kernel's counters, and counts what they have grown by.
// What was dropped before the very first reading is not of this hour. The
// caller holds k.writing.
func (k *Keeper) readDrops(ctx context.Context, now time.Time) {
	d, err := k.read(ctx)
	if err != nil && k.unread == nil && ctx.Err() == nil {
		k.log.Warn("cannot read how much was dropped; it is counted when it can be read", zap.Error(err))
	}
	if k.unread = err; err != nil {
		return
	}
	old := k.drops
	k.drops = &d
	if old == nil {
		return
	}
	more := d.since(*old)
	if more == (Drops{}) {
		return
	}
	k.mu.Lock()
	h := k.hour(now)
	h.counts.Packets += more.Packets
	h.counts.Bytes += more.Bytes
	k.touch()
}

// keptDrops are the counters as they were last written; nil for never.
func (k *Keeper) keptDrops() (old *Drops) {
	err := k.store.EachTally(dropsKey, dropsKey+"\x00", func(_ string, value []byte) error {
		var d Drops
		if err := json.Unmarshal(value, &d); err != nil {
			return err
		}
		old = &d
		return nil
	})
	k.note(err)
	return old
}

func (k *Keeper) note(err error) {
	if err != nil {
		k.log.Warn("counts for the report cannot be read", zap.Error(err))
	}
}
