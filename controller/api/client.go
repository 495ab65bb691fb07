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
	"time"

	"golang.org/x/sys/unix"
)

// ErrNoDaemon means that nobody answers on the control socket.
var ErrNoDaemon = errors.New("nftsentry is not running")

// A Client asks the daemon. It may be used by many at once.
type Client struct {
	path string
	http http.Client
}

// NewClient makes a client for the control socket at path. It connects when it is used.
func NewClient(path string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}
	return &Client{path: path, http: http.Client{
		Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true},
		Timeout:   time.Minute,
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
	var all []Block
	err := c.do(ctx, http.MethodGet, "/v1/blocks", nil, &all)
	return all, err
}

// Block asks for a block and returns it once it is in the kernel and on disk.
func (c *Client) Block(ctx context.Context, r BlockRequest) (Block, error) {
	var b Block
	err := c.do(ctx, http.MethodPost, "/v1/blocks", r, &b)
	return b, err
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

func (c *Client) do(ctx context.Context, method, path string, question, answer any) error {
	body, err := json.Marshal(question)
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://nftsentry"+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return c.explain(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("read answer from %s: %w", c.path, err)
	}
	if resp.StatusCode != http.StatusOK {
		return problem(resp.Status, data)
	}
	if err := json.Unmarshal(data, answer); err != nil {
		return fmt.Errorf("read answer from %s: %w", c.path, err)
	}
	return nil
}

// explain says what to do about a socket that does not answer.
func (c *Client) explain(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ECONNREFUSED):
		return fmt.Errorf("%w (nobody answers on %s): start it with \"nftsentry run\"", ErrNoDaemon, c.path)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("no right to use %s: run as root, or as a member of control.group: %w", c.path, fs.ErrPermission)
	}
	return fmt.Errorf("ask %s: %w", c.path, err)
}

func problem(status string, data []byte) error {
	var p Problem
	if json.Unmarshal(data, &p) != nil || p.Error == "" {
		return fmt.Errorf("the daemon answers %s", status)
	}
	return errors.New(p.Error)
}
