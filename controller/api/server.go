package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"nftsentry/state"
)

// A Guard does what the requests ask for. *controller.Controller is one.
type Guard interface {
	Block(ctx context.Context, source netip.Prefix, timeout time.Duration, comment string) (state.Block, error)
	Unblock(ctx context.Context, source netip.Prefix) (state.Block, error)
	UnblockAll(ctx context.Context) (int, error)
	List(ctx context.Context) ([]state.Block, error)
}

// A Daemon is what holds the guard, and all else that runs.
type Daemon interface {
	Status(ctx context.Context) (Status, error)
	Reload(ctx context.Context) (Reloaded, error)
	Panic(ctx context.Context) (Panicked, error)
	Resume(ctx context.Context) (Panicked, error)
	Report(ctx context.Context, r ReportRequest) (Report, error)
}

const (
	maxRequest = 4096 // bytes, header and body each
	maxWorking = 32   // requests of one kind at once; the others wait
	maxListing = 1    // lists at once, which may be long
	patience   = 5 * time.Second
)

// A Server answers on the control socket.
type Server struct {
	listener *gate
	lock     *os.File // held as long as the socket is ours
	log      *zap.Logger
}

// Run answers requests until ctx ends, and then returns nil. It closes and
// removes the socket.
func (s *Server) Run(ctx context.Context, guard Guard, daemon Daemon) error {
	web := &http.Server{
		Handler:                      handler(guard, daemon),
		ReadHeaderTimeout:            s.listener.patience,
		ReadTimeout:                  s.listener.patience,
		MaxHeaderBytes:               maxRequest,
		DisableGeneralOptionsHandler: true,
		ConnContext:                  withConn,
		ErrorLog:                     errorLog(s.log),
	}
	web.SetKeepAlivesEnabled(false) // a connection has one request, and so no more than its share of the work
	g, inner := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := web.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("control socket: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		<-inner.Done()
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if web.Shutdown(late) != nil {
			return web.Close()
		}
		return nil
	})
	return errors.Join(g.Wait(), s.Close())
}

// Close closes and removes the socket, and only then lets another daemon have
// its place. It is not needed after Run, and no error.
func (s *Server) Close() error {
	var errs []error
	for _, c := range []io.Closer{s.listener, s.lock} {
		if err := c.Close(); !errors.Is(err, net.ErrClosed) && !errors.Is(err, os.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// errorLog is for what net/http has to say, which is nothing but mistakes of
// ours: no client can cause any of it.
func errorLog(log *zap.Logger) *stdlog.Logger {
	l, _ := zap.NewStdLogAt(log, zap.ErrorLevel) // the level is one
	return l
}

type connKey struct{}

func withConn(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, conn)
}

// A request is one that has arrived in full.
type request struct {
	*http.Request
	body []byte
}

// A router takes each request to its route, by path and method.
type router map[string]map[string]route

// A route answers requests of one kind, some at a time, so that no kind is in
// the way of another.
type route struct {
	do   func(request) (any, error)
	busy chan struct{} // has as many as are at work; when it is full the next waits
}

func handler(guard Guard, daemon Daemon) http.Handler {
	one := func(most int, f func(request) (any, error)) route { return route{f, make(chan struct{}, most)} }
	return router{
		"/v1/status": {http.MethodGet: one(maxWorking, func(r request) (any, error) { return tell(r, daemon) })},
		"/v1/blocks": {
			http.MethodGet:    one(maxListing, func(r request) (any, error) { return list(r, guard) }),
			http.MethodPost:   one(maxWorking, func(r request) (any, error) { return block(r, guard) }),
			http.MethodDelete: one(maxWorking, func(r request) (any, error) { return unblock(r, guard) }),
		},
		"/v1/report": {http.MethodGet: one(maxListing, func(r request) (any, error) { return report(r, daemon) })},
		"/v1/reload": {http.MethodPost: one(maxWorking, func(r request) (any, error) { return daemon.Reload(r.Context()) })},
		"/v1/panic":  {http.MethodPost: one(maxWorking, func(r request) (any, error) { return daemon.Panic(r.Context()) })},
		"/v1/resume": {http.MethodPost: one(maxWorking, func(r request) (any, error) { return daemon.Resume(r.Context()) })},
	}
}

// ServeHTTP begins to work only for a request that is complete.
func (rt router) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err != nil {
		send(w, encode(nil, &RequestError{fmt.Errorf("request: %w", err)}))
		return
	}
	methods, known := rt[r.URL.Path]
	route, allowed := methods[r.Method]
	switch {
	case !known:
		send(w, reply{http.StatusNotFound, Problem{"no such request: are the command and the daemon of one version?"}.encode()})
	case !allowed:
		w.Header().Set("Allow", strings.Join(slices.Sorted(maps.Keys(methods)), ", "))
		send(w, reply{http.StatusMethodNotAllowed, Problem{"no such method for this request"}.encode()})
	default:
		send(w, route.work(request{r, body}))
	}
}

var errGone = errors.New("the client has gone")

// work does what a request asks for, unless its client has gone by then.
func (rt route) work(r request) reply {
	select {
	case rt.busy <- struct{}{}:
	case <-r.Context().Done():
		return encode(nil, errGone)
	}
	defer func() { <-rt.busy }()
	if conn, ok := r.Context().Value(connKey{}).(*gateConn); ok {
		if !conn.enter(working) {
			return encode(nil, errGone)
		}
		defer conn.enter(answering)
	}
	return encode(rt.do(r))
}

// A RequestError is a request that is wrong in itself, as the server finds it
// and as the client tells it. Its status is 400.
type RequestError struct{ Err error }

// Error says what is wrong and what to write instead.
func (e *RequestError) Error() string { return e.Err.Error() }

// Unwrap gives the error inside.
func (e *RequestError) Unwrap() error { return e.Err }

// A reply is the answer to a request, as it is sent.
type reply struct {
	code int
	body []byte // a line of JSON
}

func encode(answer any, err error) reply {
	code := http.StatusOK
	var body []byte
	if err == nil {
		body, err = json.Marshal(answer)
	}
	if err != nil {
		code = http.StatusUnprocessableEntity
		var wrong *RequestError
		if errors.As(err, &wrong) {
			code = http.StatusBadRequest
		}
		return reply{code, Problem{err.Error()}.encode()}
	}
	return reply{code, append(body, '\n')}
}

func (p Problem) encode() []byte {
	body, _ := json.Marshal(p) // a string always can be
	return append(body, '\n')
}

func send(w http.ResponseWriter, r reply) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(r.code)
	_, _ = w.Write(r.body) // the client may have gone
}

// tell gives the status, a line for each problem.
func tell(r request, daemon Daemon) (any, error) {
	s, err := daemon.Status(r.Context())
	for i, p := range s.Problems {
		s.Problems[i] = oneLine(p)
	}
	return s, err
}

// oneLine joins the lines of a text, which are those of joined errors.
func oneLine(text string) string {
	var lines []string
	for line := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == '\n' || r == '\r' }) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "; ")
}

func list(r request, guard Guard) (any, error) {
	live, err := guard.List(r.Context())
	if err != nil {
		return nil, err
	}
	all := make([]Block, len(live))
	for i, b := range live {
		all[i] = BlockOf(b)
	}
	return all, nil
}

func block(r request, guard Guard) (any, error) {
	source, timeout, comment, err := readRequest(r.body)
	if err != nil {
		return nil, &RequestError{err}
	}
	b, err := guard.Block(r.Context(), source, timeout, comment)
	if err != nil {
		return nil, err
	}
	return BlockOf(b), nil
}

// readRequest reads a BlockRequest. What is not UTF-8 is wrong: the decoder
// would change it without a word.
func readRequest(body []byte) (source netip.Prefix, timeout time.Duration, comment string, err error) {
	var req BlockRequest
	if !utf8.Valid(body) {
		err = errNotUTF8
	} else {
		err = decode(body, &req)
	}
	if err != nil {
		return netip.Prefix{}, 0, "", fmt.Errorf("request: %w", err)
	}
	return req.parse()
}

var errTrailing = errors.New("more than one value")

func decode(body []byte, req *BlockRequest) error {
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(req); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errTrailing
	}
	return nil
}

func unblock(r request, guard Guard) (any, error) {
	query := r.URL.Query()
	if query.Get("all") == "true" {
		n, err := guard.UnblockAll(r.Context())
		return UnblockedAll{n}, err
	}
	source, err := ParseSource(query.Get("source"))
	if err != nil {
		return nil, &RequestError{err}
	}
	b, err := guard.Unblock(r.Context(), source)
	if err != nil {
		return nil, err
	}
	return BlockOf(b), nil
}
