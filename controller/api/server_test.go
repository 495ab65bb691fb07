package api

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
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

func (fakeGuard) UnblockAll(context.Context) (int, error) { return 7, nil }

func (fakeGuard) List(context.Context) ([]state.Block, error) {
	return []state.Block{{Source: netip.MustParsePrefix("2001:db8::/64"), Since: since, Until: since.Add(time.Hour), Port: 23,
		Protocol: "tcp", Kind: "connect", Evidence: "proven", Strikes: 1, Origin: state.OriginDecoy, Comment: "tcp/23 connect x2"}}, nil
}

// serve runs a server and returns the path of its socket.
func serve(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "run", "sock")
	s, err := Listen(path, "", zaptest.NewLogger(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var g errgroup.Group
	status := func(context.Context) (Status, error) { return Status{Version: "1", PID: 42}, nil }
	g.Go(func() error { return s.Run(ctx, fakeGuard{}, status) })
	t.Cleanup(func() {
		cancel()
		if err := g.Wait(); err != nil {
			t.Errorf("Run: %v", err)
		}
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the socket is still there: %v", err)
		}
	})
	return path
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
	if s, err := client.Status(ctx); s.PID != 42 || err != nil {
		t.Errorf("Status = %+v, %v", s, err)
	}
	b, err := client.Block(ctx, BlockRequest{Source: "192.0.2.7", Seconds: 60, Comment: "why not"})
	if err != nil || b.Source != "192.0.2.7" || b.Until.Sub(b.Since) != time.Minute || b.Comment != "why not" {
		t.Errorf("Block = %+v, %v", b, err)
	}
	if _, err := client.Block(ctx, BlockRequest{Source: "192.0.2.1"}); err == nil || err.Error() != errRefuse.Error() {
		t.Errorf("Block that is refused: %v, want %q", err, errRefuse)
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
		{"POST", "/v1/blocks", `{"source":"` + strings.Repeat("x", 5000) + `"}`, 400, `too large`},
		{"DELETE", "/v1/blocks", "", 400, `is not a source`},
		{"DELETE", "/v1/blocks?all=yes", "", 400, `is not a source`},
		{"PUT", "/v1/blocks", "", 405, ``},
		{"GET", "/v2/blocks", "", 404, ``},
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

func TestListen(t *testing.T) {
	path := serve(t)
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("mode %v, %v, want 0660", info.Mode(), err)
	}
	if info, err = os.Lstat(filepath.Dir(path)); err != nil || info.Mode().Perm() != 0o750 {
		t.Errorf("mode of the folder %v, %v, want 0750", info.Mode(), err)
	}
	if _, err := Listen(path, "", zaptest.NewLogger(t)); !errors.Is(err, ErrInUse) {
		t.Errorf("Listen on a socket that is answered = %v, want ErrInUse", err)
	}

	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(file, "", zaptest.NewLogger(t)); err == nil || !strings.Contains(err.Error(), "is not a socket: move it away") {
		t.Errorf("Listen on a file = %v", err)
	}
	if data, err := os.ReadFile(file); string(data) != "precious" || err != nil {
		t.Errorf("the file has %q, %v", data, err)
	}
	if _, err := Listen(filepath.Join(dir, "sock"), "no-such-group-here", zaptest.NewLogger(t)); err == nil {
		t.Error("Listen for a group that is not there: no error")
	}

	for _, folder := range []string{"/proc/nowhere", "/proc/nowhere/at/all", file, filepath.Join(file, "below")} {
		if _, err := Listen(filepath.Join(folder, "sock"), "", zaptest.NewLogger(t)); err == nil || !strings.Contains(err.Error(), "control socket: ") {
			t.Errorf("Listen in %s = %v, want an error", folder, err)
		}
	}

	stale := filepath.Join(dir, "stale")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := Listen(stale, "", zaptest.NewLogger(t))
	if err != nil {
		t.Fatalf("Listen on a stale socket: %v", err)
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
}

func TestClientWithoutDaemon(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sock")
	_, err := NewClient(path).Status(t.Context())
	if want := "nftsentry is not running (nobody answers on " + path + `): start it with "nftsentry run"`; !errors.Is(err, ErrNoDaemon) || err.Error() != want {
		t.Errorf("error %v, want %q", err, want)
	}
}

func TestParseSource(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"192.0.2.7", "192.0.2.7"}, {"::ffff:192.0.2.7", "192.0.2.7"}, {"192.0.2.0/24", "192.0.2.0/24"}, {"192.0.2.7/32", "192.0.2.7"},
		{"2001:DB8::7", "2001:db8::7"}, {"2001:db8::/32", "2001:db8::/32"}, {"0.0.0.0/0", "0.0.0.0/0"},
	} {
		got, err := ParseSource(tt.text)
		if err != nil || Display(got) != tt.want {
			t.Errorf("ParseSource(%q) = %v, %v, want %s", tt.text, got, err, tt.want)
		}
	}
	for _, text := range []string{"", "localhost", "192.0.2", "192.0.2.7/33", "192.0.2.7/24", "::ffff:192.0.2.0/120", "fe80::1%eth0", "fe80::%eth0/64", " 192.0.2.7", "192.0.2.7/"} {
		if got, err := ParseSource(text); err == nil {
			t.Errorf("ParseSource(%q) = %v, want an error", text, got)
		}
	}
}

func FuzzParseSource(f *testing.F) {
	for _, s := range []string{"192.0.2.7", "2001:db8::/32", "::ffff:1.2.3.4", "fe80::1%eth0", "10.0.0.1/8", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParseSource(s)
		if err != nil {
			return
		}
		if again, err := ParseSource(Display(p)); again != p || err != nil || p != p.Masked() || p.Addr().Is4In6() {
			t.Errorf("%q is %v, written and read %v, %v", s, p, again, err)
		}
	})
}
