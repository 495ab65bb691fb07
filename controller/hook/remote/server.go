package remote

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"nftsentry/controller/hook"
)

// draftTime is how long a configuration waits for its commit.
const draftTime = time.Minute

// A Service does what the daemon asks for.
type Service interface {
	Tell(e hook.Event)
	Sync(live []hook.Event)
	Stats() []hook.Stat
	// Prepare reads the configuration file anew and names it, "" for the built-in defaults.
	Prepare(ctx context.Context) (file string, p hook.Prepared, err error)
}

// A Server hears the daemon on the socket.
type Server struct {
	door     *door
	patience time.Duration // with a client that does not send, or read
	instance string        // of this process
	syncing  chan struct{} // has one if sources are being read, which may be many

	mu    sync.Mutex // guards what follows
	id    string     // of plan
	plan  hook.Prepared
	until time.Time // when plan is given up
}

func newServer(d *door) *Server {
	d.free = sync.NewCond(&d.mu)
	return &Server{door: d, instance: rand.Text(), syncing: make(chan struct{}, 1), patience: patience}
}

// Close closes the socket, and removes it if we have made it. It is not needed after Run.
func (s *Server) Close() error { return s.door.Close() }

// Run answers requests until ctx ends, and then returns nil. It closes the socket.
func (s *Server) Run(ctx context.Context, service Service) error {
	errorLog, _ := zap.NewStdLogAt(s.door.log, zap.DebugLevel) // the level is one
	web := &http.Server{
		Handler:                      s.handler(service),
		ReadHeaderTimeout:            s.patience,
		ReadTimeout:                  s.patience,
		WriteTimeout:                 2 * s.patience,
		MaxHeaderBytes:               4096,
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     errorLog,
		BaseContext:                  func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			return context.WithValue(ctx, guestKey{}, conn)
		},
	}
	web.SetKeepAlivesEnabled(false)
	g, inner := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := web.Serve(s.door); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("socket of the hook service: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		<-inner.Done()
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
		defer cancel()
		if web.Shutdown(late) != nil {
			return web.Close()
		}
		return nil
	})
	return g.Wait()
}

// handler has a route for each request. What is not known is 404, or 405.
func (s *Server) handler(service Service) http.Handler {
	mux := http.NewServeMux()
	route := func(method, path string, most int64, do func(ctx context.Context, body []byte) (any, error)) {
		mux.HandleFunc(method+" "+path, func(w http.ResponseWriter, r *http.Request) { s.answer(w, r, most, do) })
	}
	route(http.MethodPost, eventsPath, maxRequest, func(_ context.Context, body []byte) (any, error) { return hear(service, body) })
	route(http.MethodPost, sourcesPath, maxSync, func(_ context.Context, body []byte) (any, error) { return follow(service, body) })
	route(http.MethodGet, statsPath, maxRequest, func(context.Context, []byte) (any, error) { return tally{service.Stats()}, nil })
	route(http.MethodPost, preparePath, maxRequest, func(ctx context.Context, _ []byte) (any, error) { return s.prepare(ctx, service) })
	route(http.MethodPost, commitPath, maxRequest, func(ctx context.Context, body []byte) (any, error) { return s.commit(ctx, body) })
	route(http.MethodPost, abortPath, maxRequest, func(_ context.Context, body []byte) (any, error) { return s.abort(body) })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if g, ok := r.Context().Value(guestKey{}).(*guest); ok && g.stranger != nil {
			reply(w, http.StatusForbidden, problem{g.stranger.Error()})
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// guestKey is of the connection in the context of a request.
type guestKey struct{}

// answer reads a request, has it done, and answers.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, most int64, do func(context.Context, []byte) (any, error)) {
	if most > maxRequest {
		s.syncing <- struct{}{} // whoever is before us is read for as long as our patience lasts
		defer func() { <-s.syncing }()
	}
	w.Header().Set(instanceHeader, s.instance)
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
	var out any
	if err != nil {
		err = &requestError{err}
	} else {
		out, err = do(r.Context(), body)
	}
	code := http.StatusOK
	if err != nil {
		code, out = codeOf(err), problem{err.Error()}
	}
	reply(w, code, out)
}

func reply(w http.ResponseWriter, code int, out any) {
	data, err := json.Marshal(out)
	if err != nil { // nothing that we answer has a form that JSON has not
		code, data = http.StatusInternalServerError, nil
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(append(data, '\n')) // the client may have gone
}

// A requestError is a request that is wrong in itself.
type requestError struct{ err error }

func (e *requestError) Error() string { return "request: " + e.err.Error() }
func (e *requestError) Unwrap() error { return e.err }

// errStale is the error of a configuration that nobody holds any more.
var errStale = errors.New("no such configuration waits: prepare it again")

func codeOf(err error) int {
	var wrong *requestError
	switch {
	case errors.As(err, &wrong):
		return http.StatusBadRequest
	case errors.Is(err, errStale):
		return http.StatusConflict
	}
	return http.StatusUnprocessableEntity
}

// decode reads one value. Keys that are not known are of a newer daemon.
func decode(body []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(body))
	if err := dec.Decode(into); err != nil {
		return &requestError{err}
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return &requestError{errors.New("more than one value")}
	}
	return nil
}

// hear hands on events: all of a batch, or none if one is wrong.
func hear(service Service, body []byte) (any, error) {
	var b batch
	if err := decode(body, &b); err != nil {
		return nil, err
	}
	if err := b.check(); err != nil {
		return nil, &requestError{err}
	}
	for _, e := range b.Events {
		service.Tell(e)
	}
	return struct{}{}, nil
}

// follow hands on what is blocked.
func follow(service Service, body []byte) (any, error) {
	var b blocked
	if err := decode(body, &b); err != nil {
		return nil, err
	}
	if err := b.check(); err != nil {
		return nil, &requestError{err}
	}
	live := make([]hook.Event, len(b.Sources))
	for i, p := range b.Sources {
		live[i] = hook.Event{On: hook.Block, Source: p}
	}
	service.Sync(live)
	return struct{}{}, nil
}

// prepare has the configuration read. It takes the place of one that waits.
func (s *Server) prepare(ctx context.Context, service Service) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.giveUp()
	file, p, err := service.Prepare(ctx)
	if err != nil {
		return nil, err
	}
	s.id, s.plan, s.until = rand.Text(), p, time.Now().Add(draftTime)
	return draft{ID: s.id, Config: file}, nil
}

func (s *Server) commit(ctx context.Context, body []byte) (any, error) {
	var d draft
	if err := decode(body, &d); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.plan == nil || d.ID != s.id || time.Now().After(s.until) {
		return nil, errStale
	}
	p := s.plan
	s.plan = nil
	return struct{}{}, p.Commit(ctx)
}

func (s *Server) abort(body []byte) (any, error) {
	var d draft
	if err := decode(body, &d); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.plan != nil && d.ID == s.id {
		s.giveUp()
	}
	return struct{}{}, nil
}

// giveUp gives up what waits. The caller holds mu.
func (s *Server) giveUp() {
	if s.plan != nil {
		s.plan.Abort()
		s.plan = nil
	}
}
