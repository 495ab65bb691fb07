package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"nftsentry/state"
)

// A Guard does what the requests ask for. *controller.Controller is one.
type Guard interface {
	Block(ctx context.Context, source netip.Prefix, timeout time.Duration, comment string) (state.Block, error)
	Unblock(ctx context.Context, source netip.Prefix) (state.Block, error)
	UnblockAll(ctx context.Context) (int, error)
	List(ctx context.Context) ([]state.Block, error)
}

// ErrInUse means that another daemon answers on the socket.
var ErrInUse = errors.New("another nftsentry is running")

const (
	maxRequest = 4096 // bytes, header and body each
	patience   = 5 * time.Second
)

// A Server answers on the control socket.
type Server struct {
	listener net.Listener
	log      *zap.Logger
}

// Listen opens the control socket at path, for root and for the members of
// group, if one is named. The folder is made if it is missing. A socket that
// nobody answers on any more is replaced; any other file is not.
//
// Errors: ErrInUse, and those of the file system.
func Listen(path, group string, log *zap.Logger) (*Server, error) {
	gid, err := groupID(group)
	if err != nil {
		return nil, err
	}
	if err := makeFolder(filepath.Dir(path), gid); err != nil {
		return nil, fmt.Errorf("control socket: %w: set control.socket to a path in a folder that can be made", err)
	}
	if err := removeStale(path); err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	old := unix.Umask(0o177) // nobody may connect before the owner and mode are right
	l, err := net.Listen("unix", path)
	unix.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	if err := errors.Join(os.Chown(path, -1, gid), os.Chmod(path, 0o660)); err != nil {
		return nil, errors.Join(fmt.Errorf("control socket: %w", err), l.Close())
	}
	return &Server{listener: l, log: log}, nil
}

// groupID is the number of a group, -1 for none.
func groupID(name string) (int, error) {
	if name == "" {
		return -1, nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, fmt.Errorf("control.group: %w", err)
	}
	return strconv.Atoi(g.Gid)
}

// makeFolder makes the folder of the socket if it is missing. One that is
// there is left as it is.
func makeFolder(dir string, gid int) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	err := os.Mkdir(dir, 0o750)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.Chown(dir, -1, gid)
}

func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s is not a socket: move it away, or set control.socket to another path", path)
	}
	conn, err := net.DialTimeout("unix", path, patience)
	if err == nil {
		return errors.Join(fmt.Errorf("%w: it answers on %s; stop it first", ErrInUse, path), conn.Close())
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return err
	}
	return os.Remove(path)
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
	return g.Wait()
}

// Close closes and removes the socket. It is not needed after Run, and no error.
func (s *Server) Close() error {
	if err := s.listener.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
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
	handle("GET /v1/status", func(r *http.Request) (any, error) { return status(r.Context()) })
	handle("GET /v1/blocks", func(r *http.Request) (any, error) { return list(r, guard) })
	handle("POST /v1/blocks", func(r *http.Request) (any, error) { return block(r, guard) })
	handle("DELETE /v1/blocks", func(r *http.Request) (any, error) { return unblock(r, guard) })
	return mux
}

// A requestError is a request that is wrong in itself.
type requestError struct{ err error }

func (e *requestError) Error() string { return e.err.Error() }
func (e *requestError) Unwrap() error { return e.err }

func reply(w http.ResponseWriter, answer any, err error) {
	code := http.StatusOK
	if err != nil {
		answer, code = Problem{err.Error()}, http.StatusUnprocessableEntity
		var wrong *requestError
		if errors.As(err, &wrong) {
			code = http.StatusBadRequest
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(answer) // the client may have gone
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
	var req BlockRequest
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&req); err != nil {
		return nil, &requestError{fmt.Errorf("request: %w", err)}
	}
	source, err := ParseSource(req.Source)
	if err != nil {
		return nil, &requestError{err}
	}
	const most = int64(1<<63-1) / int64(time.Second)
	if req.Seconds < 0 || req.Seconds > most {
		return nil, &requestError{fmt.Errorf("seconds %d: out of range", req.Seconds)}
	}
	b, err := guard.Block(r.Context(), source, time.Duration(req.Seconds)*time.Second, req.Comment)
	if err != nil {
		return nil, err
	}
	return BlockOf(b), nil
}

func unblock(r *http.Request, guard Guard) (any, error) {
	query := r.URL.Query()
	if query.Get("all") == "true" {
		n, err := guard.UnblockAll(r.Context())
		return UnblockedAll{n}, err
	}
	source, err := ParseSource(query.Get("source"))
	if err != nil {
		return nil, &requestError{err}
	}
	b, err := guard.Unblock(r.Context(), source)
	if err != nil {
		return nil, err
	}
	return BlockOf(b), nil
}
