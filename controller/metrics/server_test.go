package metrics

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// run serves metrics on a port of the loopback until the end of the test, and
// returns the address.
func run(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	runOn(t, l)
	return l.Addr().String()
}

func runOn(t *testing.T, l net.Listener) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	var g errgroup.Group
	m := newMetrics(t, Reading{Kernel: &Kernel{}})
	g.Go(func() error { return m.Run(ctx, l) })
	t.Cleanup(func() {
		stop()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
		if err := l.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("the listener is left open: %v", err)
		}
	})
}

// ask sends a request as it is and returns the answer with its body.
func ask(t *testing.T, address, request string) (*http.Response, string) {
	t.Helper()
	conn := dial(t, address)
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	r, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r, string(body)
}

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	network := "tcp"
	if strings.HasPrefix(address, "/") {
		network = "unix"
	}
	conn, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

const scrape = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"

// TestAnswers sends requests of all sorts.
func TestAnswers(t *testing.T) {
	address := run(t)
	for name, tt := range map[string]struct {
		request string
		code    int
		want    string // in the body
	}{
		"a scrape":      {scrape, 200, "\nnftsentry_controller_up 1\n"},
		"one metric":    {"GET /metrics?name[]=nftsentry_blocks HTTP/1.1\r\nHost: x\r\n\r\n", 200, "nftsentry_blocks{family=\"ipv4\"} 0\n"},
		"a native one":  {"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited\r\n\r\n", 200, "nftsentry_blocks"},
		"head":          {"HEAD /metrics HTTP/1.0\r\n\r\n", 200, ""},
		"elsewhere":     {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 404, "the metrics are at /metrics\n"},
		"profiles":      {"GET /debug/pprof/ HTTP/1.1\r\nHost: x\r\n\r\n", 404, "the metrics are at /metrics\n"},
		"variables":     {"GET /debug/vars HTTP/1.1\r\nHost: x\r\n\r\n", 404, "the metrics are at /metrics\n"},
		"post":          {"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 404, "the metrics are at /metrics\n"},
		"a long header": {"GET /metrics HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 3*maxHeader) + "\r\n\r\n", 431, ""},
		"rubbish":       {"\x16\x03\x01\r\n\r\n", 400, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r, body := ask(t, address, tt.request)
			if r.StatusCode != tt.code || !strings.Contains(body, tt.want) {
				t.Errorf("%s, want %d with %q:\n%.300s", r.Status, tt.code, tt.want, body)
			}
			if r.StatusCode == 200 && !r.Close {
				t.Error("the connection is kept")
			}
		})
	}
}

// TestCrowd has many more clients than there is room for, which do nothing, say
// half a request or do not read: none keeps a scrape out.
func TestCrowd(t *testing.T) {
	for name, says := range map[string]string{"idle": "", "half a request": scrape[:20], "do not read": scrape} {
		t.Run(name, func(t *testing.T) {
			address := run(t)
			for range 4 * maxConns {
				conn := dial(t, address)
				_ = conn.(*net.TCPConn).SetReadBuffer(1)
				_, _ = io.WriteString(conn, says) // it may have been closed by then
			}
			for range 3 {
				if r, _ := ask(t, address, scrape); r.StatusCode != 200 {
					t.Errorf("a scrape amid a crowd: %s", r.Status)
				}
			}
		})
	}
}

// TestEndWaits ends while somebody is being answered: it waits for that, and lets nobody else in.
func TestEndWaits(t *testing.T) {
	inside, leave, out := make(chan struct{}), make(chan struct{}), make(chan struct{})
	d := &door{next: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(inside)
		<-leave
		close(out)
	})}
	var g errgroup.Group
	g.Go(func() error { d.ServeHTTP(httptest.NewRecorder(), nil); return nil })
	<-inside
	g.Go(func() error {
		d.shut()
		select {
		case <-out:
			return nil
		default:
			return errors.New("it does not wait")
		}
	})
	code := 0
	for code != http.StatusServiceUnavailable { // as soon as it is being shut
		late := httptest.NewRecorder()
		if !d.mu.TryRLock() {
			d.ServeHTTP(late, nil)
			code = late.Code
			continue
		}
		d.mu.RUnlock()
		runtime.Gosched()
	}
	close(leave)
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

// TestCrowdIsBounded counts how many connections are kept open.
func TestCrowdIsBounded(t *testing.T) {
	address := run(t)
	var conns []net.Conn
	for range 2 * maxConns {
		conns = append(conns, dial(t, address))
	}
	if r, _ := ask(t, address, scrape); r.StatusCode != 200 { // all before it are accepted by then
		t.Error(r.Status)
	}
	open := 0
	for _, conn := range conns[:maxConns] { // the others are at rest
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !errors.Is(err, unix.ECONNRESET) {
			open++
		}
	}
	if open > 0 {
		t.Errorf("%d of the first %d connections are still open", open, maxConns)
	}
}

func TestListen(t *testing.T) {
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for address, want := range map[string]string{
		taken.Addr().String(): "another program has it",
		"203.0.113.1:9478":    "this host has no such address",
		"localhost:9478":      "unable to parse",
	} {
		if _, err := Listen(address); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("listen on %s: %v, want %q", address, err, want)
		}
	}
	any4, err := Listen("0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer any4.Close()
	if conn, err := net.Dial("tcp6", fmt.Sprintf("[::1]:%d", any4.Addr().(*net.TCPAddr).Port)); err == nil {
		_ = conn.Close()
		t.Error("0.0.0.0 answers on ::1")
	}
}

func TestListenUnix(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sock")
	for _, before := range []string{"nothing", "a stale socket"} {
		l, err := Listen(path)
		if err != nil {
			t.Fatalf("in the place of %s: %v", before, err)
		}
		l.(*net.UnixListener).SetUnlinkOnClose(false)
		if info, err := os.Lstat(path); err != nil || info.Mode() != fs.ModeSocket|0o666 {
			t.Errorf("mode %v, %v", info.Mode(), err)
		}
		if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "another program answers on it") {
			t.Errorf("a socket that is in use: %v", err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("scrape", func(t *testing.T) {
		runOn(t, l)
		if r, body := ask(t, path, scrape); r.StatusCode != 200 || !strings.Contains(body, "nftsentry_controller_up 1") {
			t.Errorf("%s\n%.300s", r.Status, body)
		}
	})
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket stays behind: %v", err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("in the place of a file: %v", err)
	}
	if _, err := Listen(filepath.Join(path, "sock")); err == nil {
		t.Error("in a folder that is none: no error")
	}
}
