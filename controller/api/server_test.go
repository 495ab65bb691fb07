package api

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	"golang.org/x/sync/errgroup"

	"nftsentry/state"
)

// fakeGuard blocks nobody but says so.
type fakeGuard struct{}

var (
	since     = time.Date(2026, 11, 24, 4, 47, 10, 123456789, time.FixedZone("CET", 3600))
	errRefuse = errors.New("192.0.2.1 is the gateway")
)

func (fakeGuard) Block(_ context.Context, source netip.Prefix, timeout time.Duration, comment string) (state.Block, error) {
	if source.Addr() == netip.MustParseAddr("192.0.2.1") {
		return state.Block{}, errRefuse
	}
	return state.Block{Source: source, Since: since, Until: since.Add(timeout), Origin: state.OriginOperator, Comment: comment}, nil
}

func (fakeGuard) Unblock(_ context.Context, source netip.Prefix) (state.Block, error) {
	return state.Block{Source: source, Since: since, Until: since}, nil
}

func (fakeGuard) BlockMany(_ context.Context, sources []netip.Prefix, timeout time.Duration, comment string) (iter.Seq[state.Block], error) {
	return func(yield func(state.Block) bool) {
		for _, p := range sources {
			if !yield(state.Block{Source: p, Since: since, Until: since.Add(timeout), Comment: comment}) {
				return
			}
		}
	}, nil
}

func (fakeGuard) UnblockMany(_ context.Context, sources []netip.Prefix) (ended []netip.Prefix, missing, err error) {
	return sources[1:], errors.New(Display(sources[0]) + " is not blocked"), nil
}

func (fakeGuard) UnblockAll(context.Context) (int, error) { return 7, nil }

func (fakeGuard) List(context.Context) (iter.Seq[state.Block], error) {
	return slices.Values([]state.Block{{Source: netip.MustParsePrefix("2001:db8::/64"), Since: since, Until: since.Add(time.Hour), Port: 23,
		Protocol: "tcp", Kind: "connect", Evidence: "proven", Strikes: 1, Origin: state.OriginDecoy, Comment: "tcp/23 connect x2"}}), nil
}

// serve runs a server and returns the path of its socket.
func serve(t testing.TB) string {
	t.Helper()
	return serveAs(t, zaptest.NewLogger(t), fakeGuard{}, nil).path
}

// A served is a server that runs.
type served struct {
	path string
	gate *gate
	feed *Feed
	end  func() // ends it, once
}

// serveAs runs a server that guard answers for, and that change has changed.
func serveAs(t testing.TB, log *zap.Logger, guard Guard, change func(*gate)) served {
	t.Helper()
	path := filepath.Join(t.TempDir(), "run", "sock")
	s, err := Listen(path, "", log)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(s.listener)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var g errgroup.Group
	g.Go(func() error { return s.Run(ctx, guard, fakeDaemon{}) })
	end := sync.OnceFunc(func() {
		cancel()
		if err := g.Wait(); err != nil {
			t.Errorf("Run: %v", err)
		}
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the socket is still there: %v", err)
		}
	})
	t.Cleanup(end)
	return served{path, s.listener, s.Feed(), end}
}

func TestClient(t *testing.T) {
	client, ctx := NewClient(serve(t)), t.Context()
	list, err := client.List(ctx)
	want := []Block{{
		Source: "2001:db8::/64", Since: time.Date(2026, 11, 24, 3, 47, 10, 0, time.UTC), Until: time.Date(2026, 11, 24, 4, 47, 10, 0, time.UTC),
		Port: 23, Protocol: "tcp", Kind: "connect", Evidence: "proven", Strikes: 1, Origin: "decoy", Comment: "tcp/23 connect x2",
	}}
	if diff := cmp.Diff(want, list); diff != "" || err != nil {
		t.Errorf("List (-want +got):\n%s%v", diff, err)
	}
	status, err := client.Status(ctx)
	if diff := cmp.Diff([]string{"no disk", "one; two; three"}, status.Problems); diff != "" || status.PID != 42 || err != nil {
		t.Errorf("Status = %+v, %v, its problems (-want +got):\n%s", status, err, diff)
	}
	b, err := client.Block(ctx, BlockRequest{Source: "192.0.2.7", Seconds: 60, Comment: "why not"})
	if err != nil || b.Source != "192.0.2.7" || b.Until.Sub(b.Since) != time.Minute || b.Comment != "why not" {
		t.Errorf("Block = %+v, %v", b, err)
	}
	if _, err := client.Block(ctx, BlockRequest{Source: "192.0.2.1"}); err == nil || err.Error() != errRefuse.Error() {
		t.Errorf("Block that is refused: %v, want %q", err, errRefuse)
	}
	var wrong *RequestError
	if _, err := client.Block(ctx, BlockRequest{Source: "here"}); !errors.As(err, &wrong) {
		t.Errorf("Block of nonsense: %v, want a RequestError", err)
	}
	if _, err := client.Block(ctx, BlockRequest{Source: "192.0.2.1"}); errors.As(err, &wrong) {
		t.Errorf("Block that is refused: %v, a RequestError", err)
	}
	if b, err := client.Unblock(ctx, "2001:db8::/64"); err != nil || b.Source != "2001:db8::/64" {
		t.Errorf("Unblock = %+v, %v", b, err)
	}
	if n, err := client.UnblockAll(ctx); n != 7 || err != nil {
		t.Errorf("UnblockAll = %d, %v", n, err)
	}
}

// TestRequests sends what no client of ours would.
func TestRequests(t *testing.T) {
	client := NewClient(serve(t)).http
	for _, tt := range []struct {
		method, path, body string
		code               int
		want               string
	}{
		{"POST", "/v1/blocks", "", 400, `{"error":"request: EOF"}`},
		{"POST", "/v1/blocks", "nonsense", 400, `"request: invalid character`},
		{"POST", "/v1/blocks", `{"source":"192.0.2.7","sekonds":5}`, 400, `unknown field`},
		{"POST", "/v1/blocks", `{"source":"here"}`, 400, `\"here\" is not a source`},
		{"POST", "/v1/blocks", `{"source":"192.0.2.7","seconds":-1}`, 400, `seconds -1: out of range`},
		{"POST", "/v1/blocks", `{"source":"192.0.2.7","seconds":9223372036854775807}`, 400, `out of range`},
		{"POST", "/v1/blocks", `{"source":"192.0.2.7","seconds":315360001}`, 400, `seconds 315360001: out of range, from 1 to 315360000`},
		{"POST", "/v1/blocks", `{"source":"192.0.2.7","seconds":315360000}`, 200, `"192.0.2.7"`},
		{"POST", "/v1/blocks", `{"source":"192.0.2.7","comment":"two\nlines"}`, 400, `comment: '\\n' is not allowed`},
		{"POST", "/v1/blocks", "{\"source\":\"192.0.2.7\",\"comment\":\"\xff\"}", 400, `request: not UTF-8`},
		{"POST", "/v1/blocks", `{"source":"192.0.2.7","comment":" abuse desk "}`, 200, `"comment":"abuse desk"`},
		{"POST", "/v1/blocks", `{"source":"` + strings.Repeat("x", 5000) + `"}`, 400, `too large`},
		{"DELETE", "/v1/blocks", "", 400, `is not a source`},
		{"DELETE", "/v1/blocks?all=yes", "", 400, `is not a source`},
		{"POST", "/v1/blocks", `{"source":"192.0.2.7"} {}`, 400, `more than one value`},
		{"PUT", "/v1/blocks", "", 405, `{"error":"no such method for this request"}`},
		{"GET", "/v2/blocks", "", 404, `{"error":"no such request: `},
		{"GET", "/v2/blocks", strings.Repeat("x", 5000), 400, `too large`},
		{"GET", "//v1/blocks", "", 404, `{"error":"no such request: `},
	} {
		req, err := http.NewRequestWithContext(t.Context(), tt.method, "http://nftsentry"+tt.path, strings.NewReader(tt.body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Errorf("%s %s: %v", tt.method, tt.path, err)
			continue
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != tt.code || !strings.Contains(string(body), tt.want) {
			t.Errorf("%s %s %q: %d %q, %v, want %d with %q", tt.method, tt.path, tt.body, resp.StatusCode, body, err, tt.code, tt.want)
		}
	}
}

// fakeDaemon answers as a daemon does whose disk is full.
type fakeDaemon struct{}

func (fakeDaemon) Status(context.Context) (Status, error) {
	return Status{PID: 42, Problems: []string{"no disk", "one\ntwo\r\n three\n"}}, nil
}

func (fakeDaemon) Explain(_ context.Context, addr netip.Addr) (Explanation, error) {
	if addr == netip.MustParseAddr("192.0.2.66") {
		return Explanation{}, errRefuse
	}
	return Explanation{Address: addr.String(), Notes: []string{"one\ntwo"}}, nil
}

func (fakeDaemon) Reload(context.Context) (Reloaded, error) {
	return Reloaded{Config: "/etc/f.toml", Restart: []string{"state.dir"}}, nil
}

func (fakeDaemon) Panic(context.Context) (Panicked, error)  { return Panicked{Blocks: 3}, nil }
func (fakeDaemon) Resume(context.Context) (Panicked, error) { return Panicked{Blocks: 2}, nil }
