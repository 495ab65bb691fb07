package host

import (
	"context"
	"errors"
	"slices"
	"time"

	"go.uber.org/zap"
)

// run is the state of one call of Watcher.Run.
type run struct {
	*Watcher
	changed func(Facts)
	told    Facts
	backoff time.Duration // until the next try; 0 while all is well
}

// round reads once, tells what is new, waits until something changes, and returns how long to rest before the next
// round. Each round has a subscription of its own, so that a flood of changes costs nothing during the rest.
func (r *run) round(ctx context.Context) time.Duration {
	began := time.Now()
	stamps := r.files.stamps()
	sub, serr := r.kernel.subscribe() // before the reading, so that no change falls between the two
	if serr != nil {
		sub = deaf{}
	}
	defer sub.Close()
	facts, rerr := r.read(ctx)
	next := began.Add(interval(time.Since(began)))
	if ctx.Err() != nil {
		return 0
	}
	if !facts.Equal(r.told) {
		r.changed(facts)
		r.told = facts
	}
	if err := r.wait(ctx, sub, stamps, errors.Join(serr, rerr)); err != nil {
		return r.failed(err)
	}
	return max(settle, time.Until(next))
}

// wait waits until the kernel or the files of the resolvers have changed since the reading; if that failed with err,
// no longer than until the next try. It returns the error of the waiting itself.
func (r *run) wait(ctx context.Context, sub subscription, stamps []stamp, err error) error {
	if err != nil {
		_, err = sub.wait(ctx, r.failed(err))
		return err
	}
	for ctx.Err() == nil {
		changed, err := sub.wait(ctx, statInterval)
		if err != nil {
			return err
		}
		r.well()
		if changed || !slices.Equal(stamps, r.files.stamps()) {
			break
		}
	}
	return nil
}

// failed notes an error, logs it unless the last try had failed too, and returns how long to wait for the next.
func (r *run) failed(err error) time.Duration {
	if r.backoff == 0 {
		r.log.Warn("host facts are incomplete", zap.Error(err))
	}
	r.backoff = min(max(2*r.backoff, minBackoff), maxBackoff)
	return r.backoff
}

// well notes that reading and waiting work.
func (r *run) well() {
	if r.backoff != 0 {
		r.log.Info("host facts are complete again")
		r.backoff = 0
	}
}

// interval is the time from the beginning of a reading that took so long to the next one.
func interval(took time.Duration) time.Duration {
	return min(max(share*took, minInterval), maxInterval)
}

// sleep waits for d or the end of ctx.
func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// deaf is the subscription while there is none: it hears of nothing.
type deaf struct{}

var _ subscription = deaf{}

func (deaf) wait(ctx context.Context, d time.Duration) (bool, error) {
	sleep(ctx, d)
	return false, nil
}

func (deaf) Close() error { return nil }
