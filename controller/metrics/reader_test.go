package metrics

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/sync/errgroup"
)

// drive runs a reader in a bubble of time.
func drive(t *testing.T, read func(context.Context) (Reading, error), test func(t *testing.T, r *reader, log *observer.ObservedLogs)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		core, log := observer.New(zap.WarnLevel)
		r := newReader(read, zap.New(core))
		ctx, stop := context.WithCancel(t.Context())
		var g errgroup.Group
		g.Go(func() error { return r.run(ctx) })
		test(t, r, log)
		stop()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
}

// TestReadOnceASecond has many ask, and counts how often the source is.
func TestReadOnceASecond(t *testing.T) {
	n := 0
	drive(t, func(context.Context) (Reading, error) { n++; return Reading{Blocks4: n}, nil }, func(t *testing.T, r *reader, _ *observer.ObservedLogs) {
		for second := 1; second <= 3; second++ {
			for range 10 {
				var g errgroup.Group
				for range 20 {
					g.Go(func() error {
						if got, ok := r.get(); !ok || got.Blocks4 != second {
							t.Errorf("second %d: reading %d, %t", second, got.Blocks4, ok)
						}
						return nil
					})
				}
				_ = g.Wait()
				time.Sleep(fresh / 10)
			}
		}
	})
	if n != 3 {
		t.Errorf("%d readings in three seconds, want 3", n)
	}
}

// TestReadTakesTooLong shows that a scrape waits no longer than patience, and
// that the one who is read is not asked again before he has answered.
func TestReadTakesTooLong(t *testing.T) {
	var answer chan Reading // of the bubble
	reads := 0
	drive(t, func(context.Context) (Reading, error) { reads++; return <-answer, nil }, func(t *testing.T, r *reader, _ *observer.ObservedLogs) {
		answer = make(chan Reading)
		for range 3 {
			began := time.Now()
			if _, ok := r.get(); ok || time.Since(began) != patience {
				t.Errorf("a reading, %t, after %v; want none after %v", ok, time.Since(began), patience)
			}
		}
		answer <- Reading{Blocks4: 7}
		synctest.Wait()
		if got, ok := r.get(); !ok || got.Blocks4 != 7 {
			t.Errorf("after the answer: %d, %t", got.Blocks4, ok)
		}
		if reads != 1 {
			t.Errorf("%d readings, want 1", reads)
		}
	})
}

// TestReadIsGivenUp shows that the source is told when to stop.
func TestReadIsGivenUp(t *testing.T) {
	drive(t, func(ctx context.Context) (Reading, error) { <-ctx.Done(); return Reading{}, ctx.Err() }, func(t *testing.T, r *reader, _ *observer.ObservedLogs) {
		began := time.Now()
		if _, ok := r.get(); ok || time.Since(began) != patience {
			t.Errorf("a reading, %t, after %v", ok, time.Since(began))
		}
	})
}

// TestReadFails shows that failures are told once, and are over when it works.
func TestReadFails(t *testing.T) {
	wrong := errors.New("no answer")
	var err error
	drive(t, func(context.Context) (Reading, error) { return Reading{Blocks4: 1}, err }, func(t *testing.T, r *reader, log *observer.ObservedLogs) {
		for i, want := range []bool{true, false, false, true, false} {
			err = nil
			if !want {
				err = wrong
			}
			if _, ok := r.get(); ok != want {
				t.Errorf("reading %d: %t, want %t", i, ok, want)
			}
			time.Sleep(fresh)
		}
		if n := log.Len(); n != 2 {
			t.Errorf("%d warnings, want 2", n)
		}
	})
}
