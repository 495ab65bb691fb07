package tally

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
)

// counter is a kernel's counters that a test sets.
type counter struct {
	mu    sync.Mutex // guards what follows
	drops Drops
	err   error
	reads int
}

func (c *counter) read(context.Context) (Drops, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reads++
	return c.drops, c.err
}

// set sets what is read.
func (c *counter) set(d Drops, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drops, c.err = d, err
}

// times is how often it was read.
func (c *counter) times() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reads
}

// run runs a keeper until the returned function is called, which also writes what is left.
func run(k *Keeper) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var g errgroup.Group
	g.Go(func() error { return k.Run(ctx) })
	return func() {
		cancel()
		_ = g.Wait() // always nil
		k.Write(context.Background())
	}
}

// totals reads what was counted in an hour.
func totals(t *testing.T, s Reader, at time.Time) Counts {
	t.Helper()
	r, err := Read(s, Period{Edges: []time.Time{hourOf(at), hourOf(at).Add(time.Hour)}}, 10)
	if err != nil {
		t.Fatal(err)
	}
	return r.Total.Counts
}

// TestKeeperWrites shows when what was counted is handed in: some minutes after the first event, and at the end.
func TestKeeperWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFakeStore()
		k := New(s, noDrops, zap.NewNop())
		stop := run(k)
		synctest.Wait()
		began := s.written()
		time.Sleep(10 * time.Minute)
		k.Add(touched(Block, time.Now(), "192.0.2.7", 23))
		time.Sleep(writeEvery - time.Second)
		k.Add(touched(Probe, time.Now(), "192.0.2.8", 23))
		if s.written() != began {
			t.Errorf("%d writes before their time", s.written()-began)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got := totals(t, s, time.Now()); s.written() != began+1 || got.Probes != 2 || got.Blocks != 1 {
			t.Errorf("after %d writes %+v, want one with both events", s.written()-began, got)
		}
		k.Add(touched(Probe, time.Now(), "192.0.2.8", 24))
		stop()
		if got := totals(t, s, time.Now()); got.Probes != 3 || got.Blocks != 1 {
			t.Errorf("after the end %+v", got)
		}
	})
}

// TestKeeperIdle shows that nothing is written while nothing happens, and that the counters are read once an hour.
func TestKeeperIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := newFakeStore(), &counter{drops: Drops{5, 300}}
		stop := run(New(s, c.read, zap.NewNop()))
		time.Sleep(time.Hour)
		synctest.Wait()
		writes, reads := s.written(), c.times()
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if s.written() != writes || c.times() != reads+24 {
			t.Errorf("in a day of peace %d writes and %d readings, want 0 and 24", s.written()-writes, c.times()-reads)
		}
		stop()
		if s.written() != writes {
			t.Errorf("%d writes at the end", s.written()-writes)
		}
	})
}

// TestKeeperDrops shows that drops are what the counters grow by, also over restarts of the daemon and of the counters.
func TestKeeperDrops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := newFakeStore(), &counter{drops: Drops{1000, 60000}}
		k := New(s, c.read, zap.NewNop())
		stop := run(k)
		synctest.Wait()
		drop := func(to Drops, err error, want Drops) {
			t.Helper()
			c.set(to, err)
			k.Write(t.Context())
			if got := totals(t, s, time.Now()); got.Packets != want.Packets || got.Bytes != want.Bytes {
				t.Errorf("after %v: %d packets, %d bytes, want %v", to, got.Packets, got.Bytes, want)
			}
		}
		drop(Drops{1000, 60000}, nil, Drops{})
		drop(Drops{1010, 60600}, nil, Drops{10, 600})
		drop(Drops{3, 180}, nil, Drops{13, 780}) // the table was made again
		drop(Drops{}, errors.New("no table"), Drops{13, 780})
		drop(Drops{4, 240}, nil, Drops{14, 840})
		stop()
		c.set(Drops{104, 6240}, nil) // while no daemon ran
		k = New(s, c.read, zap.NewNop())
		stop = run(k)
		synctest.Wait()
		drop(Drops{105, 6300}, nil, Drops{115, 6900})
		stop()
	})
}

// TestKeeperClock shows that a clock which jumps makes hours of its own and harms no others, however often it jumps.
func TestKeeperClock(t *testing.T) {
	s := newFakeStore()
	k := New(s, noDrops, zap.NewNop())
	years := []time.Time{start, start.AddDate(-40, 0, 0), start.AddDate(4, 0, 0), time.Date(-5, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(20000, 1, 1, 0, 0, 0, 0, time.UTC)}
	for _, at := range years {
		k.Add(touched(Probe, at, "192.0.2.7", 23))
		k.Add(touched(Probe, start.Add(time.Minute), "192.0.2.7", 23))
	}
	if len(k.hours) != maxHours {
		t.Errorf("%d hours are counted at once, want %d", len(k.hours), maxHours)
	}
	k.Write(t.Context())
	if got := totals(t, s, start); got.Probes != uint64(len(years)+1) {
		t.Errorf("%d probes, want %d", got.Probes, len(years)+1)
	}
	k.Add(touched(Probe, start, "192.0.2.7", 23))
	k.Write(t.Context())
	if got := totals(t, s, start); got.Probes != uint64(len(years)+2) {
		t.Errorf("after a second write %d probes, want %d", got.Probes, len(years)+2)
	}
}

// TestKeeperDisk shows that counts wait for a disk that cannot be read, and that damaged ones begin anew.
func TestKeeperDisk(t *testing.T) {
	s := newFakeStore()
	k := New(s, noDrops, zap.NewNop())
	k.Add(touched(Probe, start, "192.0.2.7", 23))
	s.failing, s.asked = errors.New("no disk"), func() { k.Add(touched(Block, start, "192.0.2.7", 23)) } // while it is handed in
	k.Write(t.Context())
	s.failing, s.asked = nil, nil
	k.Write(t.Context())
	r, err := Read(s, Period{Edges: []time.Time{hourOf(start), hourOf(start).Add(time.Hour)}}, 10)
	if err != nil || r.Total.Counts.Probes < 2 || r.Total.Counts.Probes != r.Total.Counts.Blocks+1 ||
		r.Total.Sources.Rows[0].Weight != r.Total.Counts.Probes || r.Total.Sources.Rows[0].Blocks != r.Total.Counts.Blocks {
		t.Errorf("one probe and some blocks are %+v, %v", r.Total, err)
	}
	s.records[hourKey(start)] = []byte("damage")
	r, err = Read(s, Period{Edges: []time.Time{start.Add(-time.Hour), start}}, 10)
	if err != nil || r.Unread != 1 {
		t.Errorf("a damaged hour: %d unread, %v", r.Unread, err)
	}
	k.Add(touched(Probe, start, "192.0.2.7", 23))
	k.Write(t.Context())
	if got := totals(t, s, start); got.Probes != 1 {
		t.Errorf("after damage %d probes, want 1", got.Probes)
	}
}

// TestSteady shows when the clock is trusted to forget by.
func TestSteady(t *testing.T) {
	for name, tt := range map[string]struct {
		wall, elapsed time.Duration
		want          bool
	}{
		"as it should be": {time.Hour, time.Hour, true},
		"adjusted":        {time.Hour + 30*time.Second, time.Hour, true},
		"forward":         {49 * time.Hour, time.Hour, false},
		"back":            {-time.Hour, time.Hour, false},
	} {
		if got := isSteady(start, start.Add(tt.wall), tt.elapsed); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestRetain shows that hours become days after five weeks, and that those are forgotten after 400.
func TestRetain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFakeStore()
		k := New(s, noDrops, zap.NewNop())
		first := time.Now() // midnight, UTC
		stop := run(k)
		for range 37 * 24 {
			k.Add(touched(Block, time.Now(), "192.0.2.7", 23))
			time.Sleep(time.Hour)
		}
		synctest.Wait()
		days, hours := 0, 0
		for key := range s.all() {
			switch _, length, _ := parseKey(key); length {
			case day:
				days++
			case time.Hour:
				hours++
			}
		}
		if _, there := s.all()[dayKey(first)]; days != 1 || hours != 36*24 || !there {
			t.Errorf("after 37 days there are %d days and %d hours, the first day %v", days, hours, there)
		}
		r, err := Read(s, Period{Edges: []time.Time{first, first.AddDate(0, 0, 1), time.Now()}}, 10)
		if err != nil || r.Parts[0].Blocks != 24 || r.Total.Counts.Blocks != 37*24 || r.Total.Offenders.Rows[0].Blocks != 37*24 {
			t.Errorf("%+v, %v", r, err)
		}
		time.Sleep(500 * day)
		synctest.Wait()
		want := map[string]bool{sinceKey: true, dropsKey: true}
		for key := range s.all() {
			if !want[key] {
				t.Errorf("%s is still there", key)
			}
		}
		stop()
	})
}

// TestRetainBound shows that a clock which is never steady makes no more hours than there may be.
func TestRetainBound(t *testing.T) {
	s := newFakeStore()
	var total Total
	value, err := total.encode()
	if err != nil {
		t.Fatal(err)
	}
	for n := range mostHours + 30 {
		s.records[hourKey(start.Add(time.Duration(n)*time.Hour))] = value
	}
	New(s, noDrops, zap.NewNop()).Write(t.Context())
	hours := 0
	for key := range s.records {
		if _, length, _ := parseKey(key); length == time.Hour {
			hours++
		}
	}
	if _, there := s.records[dayKey(start)]; hours != mostHours || !there {
		t.Errorf("%d hours are left, want %d", hours, mostHours)
	}
}

// TestRead shows which part of a period an hour belongs to, and what it is compared with.
func TestRead(t *testing.T) {
	s := newFakeStore()
	k := New(s, noDrops, zap.NewNop())
	for n := range 6 {
		for range n + 1 {
			k.Add(touched(Block, hourOf(start).Add(time.Duration(n)*time.Hour), "192.0.2.7", 23))
		}
		k.Write(t.Context())
	}
	at := func(n int) time.Time { return hourOf(start).Add(time.Duration(n) * time.Hour) }
	r, err := Read(s, Period{Edges: []time.Time{at(2), at(3), at(5)}, From: at(0), To: at(2)}, 1)
	if err != nil {
		t.Fatal(err)
	}
	var parts []uint64
	for _, c := range r.Parts {
		parts = append(parts, c.Blocks)
	}
	if diff := cmp.Diff([]uint64{3, 9}, parts); diff != "" || r.Total.Counts.Blocks != 12 || r.Before.Blocks != 3 {
		t.Errorf("%d blocks, %d before, in parts (-want +got):\n%s", r.Total.Counts.Blocks, r.Before.Blocks, diff)
	}
	for _, edges := range [][]time.Time{nil, {start}, {start, at(0)}} {
		if _, err := Read(s, Period{Edges: edges}, 1); err == nil {
			t.Errorf("edges %v are taken", edges)
		}
	}
	s.failing = errors.New("no disk")
	if _, err := Read(s, Period{Edges: []time.Time{at(2), at(3)}}, 1); !errors.Is(err, s.failing) {
		t.Errorf("Read without a disk: %v", err)
	}
}
