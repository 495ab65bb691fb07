package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNoDaemon means that nobody answers on the control socket.
var ErrNoDaemon = errors.New("nftsentry is not running")

const (
	longest       = time.Minute // that an answer may take
	maxSocketPath = 107         // bytes; sun_path, unix(7)
)

// A SocketError is a path where no daemon can ever answer.
type SocketError struct {
	Path    string
	Problem string // what is wrong and what to do
}

// Error is one line.
func (e *SocketError) Error() string { return e.Path + ": " + e.Problem }

// A Client asks the daemon. It may be used by many at once.
type Client struct {
	path string
	http http.Client
}

// NewClient makes a client for the control socket at path. It connects when it is used.
func NewClient(path string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, path) }
	return &Client{path: path, http: http.Client{
		Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true},
		Timeout:   longest,
	}}
}

// Status asks what the daemon is doing.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	err := c.do(ctx, http.MethodGet, "/v1/status", nil, &s)
	return s, err
}

// List asks who is blocked, the oldest first.
func (c *Client) List(ctx context.Context) ([]Block, error) {
	all := []Block{}
	err := c.EachBlock(ctx, func(b Block) error {
		all = append(all, b)
		return nil
	})
	return all, err
}

// EachBlock calls f with each of who is blocked, the oldest first, as it
// arrives. An error of f ends it. After an error some may be missing.
func (c *Client) EachBlock(ctx context.Context, f func(Block) error) error {
	return c.list(ctx, http.MethodGet, "/v1/blocks", nil, f)
}

// list asks for something that is answered by a list of blocks.
func (c *Client) list(ctx context.Context, method, path string, question any, f func(Block) error) error {
	resp, err := c.ask(ctx, method, path, question)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var own error
	err = readList(resp.Body, func(b Block) error {
		own = f(b)
		return own
	})
	if err != nil && own == nil {
		return fmt.Errorf("read answer from %s: %w", c.path, err)
	}
	return err
}

// Block asks for a block and returns it once it is in the kernel and on disk.
func (c *Client) Block(ctx context.Context, r BlockRequest) (Block, error) {
	var b Block
	err := c.do(ctx, http.MethodPost, "/v1/blocks", r, &b)
	return b, err
}

// BlockMany asks for blocks, all of them or none, and calls f with each once
// they are in the kernel and on disk.
func (c *Client) BlockMany(ctx context.Context, r BulkRequest, f func(Block) error) error {
	return c.list(ctx, http.MethodPost, "/v1/bulk/block", r, f)
}

// UnblockMany asks for the end of blocks.
func (c *Client) UnblockMany(ctx context.Context, sources []string) (BulkUnblocked, error) {
	var u BulkUnblocked
	err := c.do(ctx, http.MethodPost, "/v1/bulk/unblock", BulkRequest{Sources: sources}, &u)
	return u, err
}

// Unblock asks for the end of a block and returns it as it was.
func (c *Client) Unblock(ctx context.Context, source string) (Block, error) {
	var b Block
	err := c.do(ctx, http.MethodDelete, "/v1/blocks?source="+url.QueryEscape(source), nil, &b)
	return b, err
}

// UnblockAll asks for the end of all blocks and returns how many there were.
func (c *Client) UnblockAll(ctx context.Context) (int, error) {
	var n UnblockedAll
	err := c.do(ctx, http.MethodDelete, "/v1/blocks?all=true", nil, &n)
	return n.Unblocked, err
}

// Reload has the daemon read its configuration again.
func (c *Client) Reload(ctx context.Context) (Reloaded, error) {
	var r Reloaded
	err := c.do(ctx, http.MethodPost, "/v1/reload", nil, &r)
	return r, err
}

// Panic has the daemon suspend all blocks.
func (c *Client) Panic(ctx context.Context) (Panicked, error) {
	var p Panicked
	err := c.do(ctx, http.MethodPost, "/v1/panic", nil, &p)
	return p, err
}

// Resume ends what Panic began.
func (c *Client) Resume(ctx context.Context) (Panicked, error) {
	var p Panicked
	err := c.do(ctx, http.MethodPost, "/v1/resume", nil, &p)
	return p, err
}

// Watch hands events to f as they come, until ctx or the daemon ends; ctx's end
// is no error, and f's error is the one it returns.
//
// Errors: as of the other requests; ErrNoDaemon too when the daemon ends.
func (c *Client) Watch(ctx context.Context, filter EventFilter, f func(Event) error) error {
	resp, err := c.open(ctx, eventsPath+"?"+filter.query().Encode())
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	defer resp.Body.Close()
	for dec := json.NewDecoder(resp.Body); ; {
		var e Event
		if err := dec.Decode(&e); ctx.Err() != nil {
			return nil
		} else if err != nil {
			return fmt.Errorf("%w any more, or this reader was too slow for it", ErrNoDaemon)
		}
		if err := f(e); err != nil {
			return err
		}
	}
}

func (c *Client) checkPath() error {
	if len(c.path) > maxSocketPath {
		return &SocketError{c.path, fmt.Sprintf("too long for a socket: at most %d bytes", maxSocketPath)}
	}
	return nil
}

// open asks for an answer that has no end. The caller closes its body.
func (c *Client) open(ctx context.Context, path string) (*http.Response, error) {
	if err := c.checkPath(); err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://nftsentry"+path, nil)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	endless := http.Client{Transport: c.http.Transport}
	resp, err := endless.Do(req)
	if err != nil {
		return nil, c.explain(err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("read answer from %s: %w", c.path, err)
	}
	return nil, c.problem(resp, data)
}

// do asks, and reads the answer. Errors: ErrNoDaemon; a SocketError; a
// RequestError if the daemon could make nothing of the request.
func (c *Client) do(ctx context.Context, method, path string, question, answer any) error {
	resp, err := c.ask(ctx, method, path, question)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err == nil {
		err = json.Unmarshal(data, answer)
	}
	if err != nil {
		return fmt.Errorf("read answer from %s: %w", c.path, err)
	}
	return nil
}

// ask sends a request and returns an answer that is no problem. Its body is
// the caller's to read and close.
func (c *Client) ask(ctx context.Context, method, path string, question any) (*http.Response, error) {
	if err := c.checkPath(); err != nil {
		return nil, err
	}
	body, err := json.Marshal(question)
	if err != nil {
		return nil, fmt.Errorf("encode request: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://nftsentry"+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.explain(err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("read answer from %s: %w", c.path, err)
	}
	return nil, c.problem(resp, data)
}

// explain says what to do about a socket that does not answer.
func (c *Client) explain(err error) error {
	var outer *url.Error
	if errors.As(err, &outer) {
		err = outer.Err // without an address that is of no use to anybody
	}
	switch {
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ECONNREFUSED) && !isSocket(c.path):
		return &SocketError{c.path, "not a socket: name the control socket of the daemon, such as /run/nftsentry/control.sock"}
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ECONNREFUSED):
		return fmt.Errorf("%w (nobody answers on %s): start it with \"nftsentry run\"", ErrNoDaemon, c.path)
	case errors.Is(err, fs.ErrPermission):
		return c.noRight()
	case errors.Is(err, io.EOF), errors.Is(err, unix.ECONNRESET):
		return fmt.Errorf("%s: the daemon went away before it answered, and may or may not have done it: ask for its status, or for \"nftsentry list\", when it runs again", c.path)
	case outer != nil && outer.Timeout():
		return fmt.Errorf("no answer on %s in time: is the daemon stopped, or this host overloaded?", c.path)
	}
	var dial *net.OpError
	if errors.As(err, &dial) {
		err = dial.Err // the path is named already
	}
	return fmt.Errorf("ask %s: %w", c.path, err)
}

// isSocket tells whether there is a socket at path, as far as can be seen.
func isSocket(path string) bool {
	info, err := os.Stat(path)
	return err != nil || info.Mode().Type() == fs.ModeSocket
}

func (c *Client) noRight() error {
	return fmt.Errorf("no right to use %s: run as root, or as a member of control.group: %w", c.path, fs.ErrPermission)
}

func (c *Client) problem(resp *http.Response, data []byte) error {
	var p Problem
	if json.Unmarshal(data, &p) != nil || p.Error == "" {
		return fmt.Errorf("the daemon answers %s", resp.Status)
	}
	switch resp.StatusCode {
	case http.StatusBadRequest:
		return &RequestError{errors.New(p.Error)}
	case http.StatusForbidden:
		return c.noRight()
	}
	return errors.New(p.Error)
}

func dial(ctx context.Context, path string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	return &patientConn{Conn: conn, asked: make(chan struct{})}, nil
}

// A patientConn hears a daemon out that answers, and closes, before it has
// read the request: net/http takes the first for a mistake and gives up on
// the second.
type patientConn struct {
	net.Conn
	once  sync.Once
	asked chan struct{} // closed by once, at the end of the first Write or by Close
}

func (c *patientConn) Read(b []byte) (int, error) {
	<-c.asked
	return c.Conn.Read(b)
}

func (c *patientConn) Write(b []byte) (int, error) {
	defer c.once.Do(func() { close(c.asked) })
	n, err := c.Conn.Write(b)
	if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
		return len(b), nil // the answer says why, or that there is none
	}
	return n, err
}

func (c *patientConn) Close() error {
	defer c.once.Do(func() { close(c.asked) })
	return c.Conn.Close()
}
