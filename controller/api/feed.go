package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

const (
	eventsPath  = "/v1/events"
	maxReaders  = 16          // who watch at once
	readerQueue = 1024        // events that wait for one of them
	slowest     = time.Minute // that a reader may take nothing at all, before it is let go
)

// A Feed hands events to those who watch. The zero value is ready for use.
// Publish never waits: whoever reads too slowly loses events, and is told how
// many.
type Feed struct {
	count atomic.Int32 // len(readers)

	mu      sync.Mutex
	readers map[*reader]struct{} // guarded by mu
}

// A reader is one who watches.
type reader struct {
	filter EventFilter
	events chan Event // closed by nobody
	lost   atomic.Uint64
}

// Readers is how many there are to publish for.
func (f *Feed) Readers() int { return int(f.count.Load()) }

// Publish hands an event to all who want it.
func (f *Feed) Publish(e Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for r := range f.readers {
		if !r.filter.wants(e) {
			continue
		}
		select {
		case r.events <- e:
		default:
			r.lost.Add(1)
		}
	}
}

// join adds a reader; nil if there are too many.
func (f *Feed) join(filter EventFilter) *reader {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.readers) >= maxReaders {
		return nil
	}
	if f.readers == nil {
		f.readers = make(map[*reader]struct{})
	}
	r := &reader{filter: filter, events: make(chan Event, readerQueue)}
	f.readers[r] = struct{}{}
	f.count.Store(int32(len(f.readers)))
	return r
}

func (f *Feed) leave(r *reader) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.readers, r)
	f.count.Store(int32(len(f.readers)))
}

// or answers requests for events until ctx ends, and leaves all others to next.
func (f *Feed) or(ctx context.Context, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != eventsPath || r.Method != http.MethodGet {
			next.ServeHTTP(w, r)
			return
		}
		q := r.URL.Query()
		filter, err := ParseEventFilter(q[eventParam], q[kindParam], q[sourceParam], q[portParam])
		if err != nil {
			send(w, encode(nil, &RequestError{err}))
			return
		}
		f.serve(ctx, w, r, filter)
	})
}

// serve sends events until the client goes, or ctx ends.
func (f *Feed) serve(ctx context.Context, w http.ResponseWriter, r *http.Request, filter EventFilter) {
	if conn, ok := r.Context().Value(connKey{}).(*gateConn); ok && !conn.enterFor(working, slowest) {
		return
	}
	reader := f.join(filter)
	if reader == nil {
		send(w, encode(nil, fmt.Errorf("%d watch already: end one of them first", maxReaders)))
		return
	}
	defer f.leave(reader)
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Time{}) // what a request may take does not bound what follows it
	w.Header().Set("Content-Type", "application/jsonl")
	w.WriteHeader(http.StatusOK)
	for enc := json.NewEncoder(w); ; {
		if control.Flush() != nil {
			return
		}
		select {
		case <-ctx.Done():
			reader.stop(enc)
			return
		case <-r.Context().Done():
			return
		case e := <-reader.events:
			if !reader.send(enc, e) {
				return
			}
		}
	}
}

// stop writes what waits, and that the daemon ends.
func (r *reader) stop(enc *json.Encoder) {
	last := Event{Time: time.Now().UTC().Truncate(time.Microsecond), Event: stopName, Reason: "the daemon ends"}
	select {
	case e := <-r.events:
		if !r.send(enc, e) {
			return
		}
	default:
	}
	if r.filter.wants(last) {
		_ = enc.Encode(last) // whoever is gone does not need it
	}
}

// send writes an event, all that wait after it, and how many were lost before
// those that come next. It tells whether the client is still there.
func (r *reader) send(enc *json.Encoder, e Event) bool {
	for {
		if enc.Encode(e) != nil {
			return false
		}
		if lost := r.lost.Load(); lost > 0 && len(r.events) == 0 {
			r.lost.Add(-lost)
			if enc.Encode(Event{Time: time.Now().UTC(), Event: lostName, Lost: lost}) != nil {
				return false
			}
		}
		select {
		case e = <-r.events:
		default:
			return true
		}
	}
}
