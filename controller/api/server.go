package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
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

const (
	maxRequest = 4096 // bytes, header and body each
	patience   = 5 * time.Second
)

// A Server answers on the control socket.
type Server struct {
	listener net.Listener
	lock     *os.File // held as long as the socket is ours
	log      *zap.Logger
}

// Run answers requests until ctx ends, and then returns nil. It closes and
// removes the socket.
func (s *Server) Run(ctx context.Context, guard Guard, status func(context.Context) (Status, error)) error {
	web := &http.Server{
		Handler:           handler(guard, status),
		ReadHeaderTimeout: patience,
		ReadTimeout:       patience,
		IdleTimeout:       patience,
		MaxHeaderBytes:    maxRequest,
		ErrorLog:          zap.NewStdLog(s.log),
	}
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

func handler(guard Guard, status func(context.Context) (Status, error)) http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, f func(*http.Request) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			r.Body = http.MaxBytesReader(w, r.Body, maxRequest)
			answer, err := f(r)
			reply(w, answer, err)
		})
	}
	handle("GET /v1/status", func(r *http.Request) (any, error) { return tell(r, status) })
	handle("GET /v1/blocks", func(r *http.Request) (any, error) { return list(r, guard) })
	handle("POST /v1/blocks", func(r *http.Request) (any, error) { return block(r, guard) })
	handle("DELETE /v1/blocks", func(r *http.Request) (any, error) { return unblock(r, guard) })
	return mux
}

// A RequestError is a request that is wrong in itself, as the server finds it
// and as the client tells it. Its status is 400.
type RequestError struct{ Err error }

// Error says what is wrong and what to write instead.
func (e *RequestError) Error() string { return e.Err.Error() }

// Unwrap gives the error inside.
func (e *RequestError) Unwrap() error { return e.Err }

func reply(w http.ResponseWriter, answer any, err error) {
	code := http.StatusOK
	if err != nil {
		answer, code = Problem{err.Error()}, http.StatusUnprocessableEntity
		var wrong *RequestError
		if errors.As(err, &wrong) {
			code = http.StatusBadRequest
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(answer) // the client may have gone
}

// tell gives the status, a line for each problem.
func tell(r *http.Request, status func(context.Context) (Status, error)) (any, error) {
	s, err := status(r.Context())
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

func list(r *http.Request, guard Guard) (any, error) {
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

func block(r *http.Request, guard Guard) (any, error) {
	source, timeout, comment, err := readRequest(r.Body)
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
func readRequest(body io.Reader) (source netip.Prefix, timeout time.Duration, comment string, err error) {
	data, err := io.ReadAll(body)
	if err == nil && !utf8.Valid(data) {
		err = errNotUTF8
	}
	var req BlockRequest
	if err == nil {
		dec := json.NewDecoder(bytes.NewReader(data))
		dec.DisallowUnknownFields()
		err = dec.Decode(&req)
	}
	if err != nil {
		return netip.Prefix{}, 0, "", fmt.Errorf("request: %w", err)
	}
	return req.parse()
}

func unblock(r *http.Request, guard Guard) (any, error) {
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
