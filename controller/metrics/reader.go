package metrics

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"
)

const (
	fresh    = time.Second     // a reading serves all scrapes for so long
	patience = 2 * time.Second // with the one who is asked for a reading
)

// A reader keeps scrapes from whoever is read: it reads once a second at most,
// and a scrape waits no longer than patience.
type reader struct {
	read   func(context.Context) (Reading, error)
	log    *zap.Logger
	wanted chan struct{} // holds one; closed by nobody; there is room in it when next is nil

	mu   sync.Mutex    // guards what follows
	last Reading       // if ok
	ok   bool          // the last read has succeeded
	at   time.Time     // when it was done; zero before the first
	next chan struct{} // closed when the read that is under way is done; nil if there is none
}

func newReader(read func(context.Context) (Reading, error), log *zap.Logger) *reader {
	return &reader{read: read, log: log, wanted: make(chan struct{}, 1), ok: true}
}

// get returns a reading that is fresh, unless none can be had in time. It may
// be called by many at once.
func (r *reader) get() (Reading, bool) {
	r.mu.Lock()
	if !r.at.IsZero() && time.Since(r.at) < fresh {
		defer r.mu.Unlock()
		return r.last, r.ok
	}
	if r.next == nil {
		r.next = make(chan struct{})
		r.wanted <- struct{}{}
	}
	next := r.next
	r.mu.Unlock()

	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case <-next:
	case <-late.C:
		return Reading{}, false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last, r.ok
}

// run reads when it is wanted, until ctx ends. It returns nil.
func (r *reader) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.wanted:
		}
		short, cancel := context.WithTimeout(ctx, patience)
		reading, err := r.read(short)
		cancel()
		r.done(reading, err)
	}
}

func (r *reader) done(reading Reading, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil && r.ok {
		r.log.Warn("cannot read what the metrics need; they are left out until it works again", zap.Error(err))
	}
	r.last, r.ok, r.at = reading, err == nil, time.Now()
	close(r.next)
	r.next = nil
}
