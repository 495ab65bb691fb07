package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
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
	Bulk
	List(ctx context.Context) (iter.Seq[state.Block], error)
}

// Bulk is what a Guard does with many sources at once.
type Bulk interface {
	BlockMany(ctx context.Context, sources []netip.Prefix, timeout time.Duration, comment string) (iter.Seq[state.Block], error)
	UnblockMany(ctx context.Context, sources []netip.Prefix) (ended []netip.Prefix, missing, err error)
}

// A Daemon is what holds the guard, and all else that runs.
type Daemon interface {
	Status(ctx context.Context) (Status, error)
	Explain(ctx context.Context, addr netip.Addr) (Explanation, error)
	Report(ctx context.Context, r ReportRequest) (Report, error)
	Switches
}

// Switches change what a daemon does.
type Switches interface {
	Reload(ctx context.Context) (Reloaded, error)
	Panic(ctx context.Context) (Panicked, error)
	Resume(ctx context.Context) (Panicked, error)
}

const (
	maxRequest = 4096     // bytes, header and body each
	maxBulk    = 16 << 20 // bytes of the body of a bulk request
	maxWorking = 32       // requests of one kind at once; the others wait
	maxListing = 1        // lists at once, which may be long
	patience   = 5 * time.Second
)

// A Server answers on the control socket.
type Server struct {
	listener *gate
	lock     *os.File // held as long as the socket is ours
	log      *zap.Logger
	feed     Feed
}

// Feed is where those who watch get their events from.
func (s *Server) Feed() *Feed { return &s.feed }

// Run answers requests until ctx ends, and then returns nil. It closes and
// removes the socket.
func (s *Server) Run(ctx context.Context, guard Guard, daemon Daemon) error {
	web := &http.Server{
		Handler:                      s.feed.or(ctx, handler(guard, daemon)),
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
	do     func(request) (any, error)
	busy   chan struct{} // has as many as are at work; when it is full the next waits
	most   int64         // bytes of the body
	refuse *reply        // what all are told; nil for none
	bodies chan struct{} // has as many as are being read, or worked on, if they may be long; nil otherwise
}

func handler(guard Guard, daemon Daemon) http.Handler {
	one := func(most int, f func(request) (any, error)) route {
		return route{do: f, busy: make(chan struct{}, most), most: maxRequest}
	}
	bodies := make(chan struct{}, 1)
	bulk := func(f func(request) (any, error)) route {
		return route{do: f, busy: make(chan struct{}, 1), most: maxBulk, bodies: bodies}
	}
	return router{
		sourcesPath:  {http.MethodGet: one(maxWorking, func(r request) (any, error) { return explained(r, daemon) })},
		"/v1/status": {http.MethodGet: one(maxWorking, func(r request) (any, error) { return tell(r, daemon) })},
		"/v1/blocks": {
			http.MethodGet:    one(maxListing, func(r request) (any, error) { return list(r, guard) }),
			http.MethodPost:   one(maxWorking, func(r request) (any, error) { return block(r, guard) }),
			http.MethodDelete: one(maxWorking, func(r request) (any, error) { return unblock(r, guard) }),
		},
		"/v1/report":       {http.MethodGet: one(maxListing, func(r request) (any, error) { return report(r, daemon) })},
		"/v1/bulk/block":   {http.MethodPost: bulk(func(r request) (any, error) { return blockMany(r, guard) })},
		"/v1/bulk/unblock": {http.MethodPost: bulk(func(r request) (any, error) { return unblockMany(r, guard) })},
		"/v1/reload":       {http.MethodPost: one(maxWorking, func(r request) (any, error) { return daemon.Reload(r.Context()) })},
		"/v1/panic":        {http.MethodPost: one(maxWorking, func(r request) (any, error) { return daemon.Panic(r.Context()) })},
		"/v1/resume":       {http.MethodPost: one(maxWorking, func(r request) (any, error) { return daemon.Resume(r.Context()) })},
	}
}

// ServeHTTP begins to work only for a request that is complete.
func (rt router) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	methods, known := rt[pathOf(r.URL.Path)]
	route, allowed := methods[r.Method]
	switch {
	case !known:
		route = unserved(http.StatusNotFound, "no such request: are the command and the daemon of one version?")
	case !allowed:
		w.Header().Set("Allow", strings.Join(slices.Sorted(maps.Keys(methods)), ", "))
		route = unserved(http.StatusMethodNotAllowed, "no such method for this request")
	}
	send(w, route.read(w, r))
}

// unserved is the route of a request that there is not.
func unserved(code int, text string) route {
	return route{most: maxRequest, refuse: &reply{code: code, body: Problem{text}.encode()}}
}

// read reads all of a request, and then works for it.
func (rt route) read(w http.ResponseWriter, r *http.Request) reply {
	if rt.bodies != nil {
		rt.bodies <- struct{}{} // whoever is before us is read for as long as our patience lasts, or worked for
		defer func() { <-rt.bodies }()
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(patience)) // the connection may be closed by now
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, rt.most))
	if err != nil {
		return encode(nil, &RequestError{fmt.Errorf("request: %w", err)})
	}
	if rt.refuse != nil {
		return *rt.refuse
	}
	return rt.work(request{r, body})
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
	body []byte  // a line of JSON
	list listing // in place of the body; nil for none
}

func encode(answer any, err error) reply {
	code := http.StatusOK
	var body []byte
	if all, ok := answer.(listing); ok && err == nil {
		return reply{code: code, list: all}
	}
	if err == nil {
		body, err = json.Marshal(answer)
	}
	if err != nil {
		code = http.StatusUnprocessableEntity
		var wrong *RequestError
		if errors.As(err, &wrong) {
			code = http.StatusBadRequest
		}
		return reply{code: code, body: Problem{err.Error()}.encode()}
	}
	return reply{code: code, body: append(body, '\n')}
}

func (p Problem) encode() []byte {
	body, _ := json.Marshal(p) // a string always can be
	return append(body, '\n')
}

func send(w http.ResponseWriter, r reply) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(r.code)
	if r.list == nil {
		_, _ = w.Write(r.body) // the client may have gone
		return
	}
	if err := r.list.writeTo(w); err != nil {
		panic(http.ErrAbortHandler) // nobody is to take a part for all
	}
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
	return listing(live), nil
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
