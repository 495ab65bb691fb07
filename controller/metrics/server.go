package metrics

import (
	"context"
	"errors"
	"fmt"
	stdlog "log"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
)

// Limits of the server.
const (
	maxHeader   = 4096             // bytes
	maxGathers  = 2                // scrapes that are worked for at once; the others wait
	readWithin  = 5 * time.Second  // a client has for its request
	writeWithin = 10 * time.Second // a scrape may take, until the client has read it
)

// Run serves the metrics on a listener until ctx ends, and then returns nil. It
// closes the listener, and waits for those who are being answered.
func (m *Metrics) Run(ctx context.Context, l net.Listener) error {
	answers := &door{next: m.handler()}
	defer answers.shut()
	web := &http.Server{
		Handler:     answers,
		ReadTimeout: readWithin, ReadHeaderTimeout: readWithin, WriteTimeout: writeWithin,
		MaxHeaderBytes:               maxHeader,
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     m.errorLog(),
	}
	web.SetKeepAlivesEnabled(false) // whoever is connected for long is up to nothing
	g, inner := errgroup.WithContext(ctx)
	g.Go(func() error { return m.reader.run(inner) })
	g.Go(func() error {
		if err := web.Serve(newGate(l)); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("metrics: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		<-inner.Done()
		return web.Close()
	})
	return g.Wait()
}

// handler answers GET /metrics. Nothing is compressed: it is a few kilobytes,
// and mostly for this host.
func (m *Metrics) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(newTurns(m.registry), promhttp.HandlerOpts{
		ErrorLog: m.errorLog(), ErrorHandling: promhttp.ContinueOnError, DisableCompression: true,
	}))
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "the metrics are at /metrics", http.StatusNotFound)
	})
	return mux
}

func (m *Metrics) errorLog() *stdlog.Logger {
	l, _ := zap.NewStdLogAt(m.log, zap.WarnLevel) // the level is one
	return l
}

// A door leads to a handler until it is shut.
type door struct {
	next http.Handler
	mu   sync.RWMutex // read-locked by each who is inside, locked for ever when it is shut
}

// ServeHTTP may be called by many at once.
func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !d.mu.TryRLock() {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	defer d.mu.RUnlock()
	d.next.ServeHTTP(w, r)
}

// shut lets nobody in any more, and waits until all are out: http.Server.Close
// closes their connections, and does not wait.
func (d *door) shut() { d.mu.Lock() }

// turns lets a few gather at once. Who writes to a client that does not read
// takes no turn.
type turns struct {
	from prometheus.Gatherer
	busy chan struct{} // holds as many as gather; who finds it full waits
}

func newTurns(from prometheus.Gatherer) turns { return turns{from, make(chan struct{}, maxGathers)} }

// Gather is for promhttp.
func (t turns) Gather() ([]*dto.MetricFamily, error) {
	t.busy <- struct{}{}
	defer func() { <-t.busy }()
	return t.from.Gather()
}
