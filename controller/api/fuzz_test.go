package api

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
)

// FuzzRequest takes what a client sends to the answer, which is one line of
// JSON and says what is wrong.
func FuzzRequest(f *testing.F) {
	h := handler(fakeGuard{}, fakeDaemon{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(raw)))
		if err != nil {
			return // net/http closes the connection
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		body := w.Body.Bytes()
		if got := w.Header().Get("Content-Type"); got != "application/json" || !json.Valid(body) || bytes.IndexByte(body, '\n') != len(body)-1 {
			t.Errorf("%q is answered %q, %q", raw, got, body)
		}
		var p Problem
		switch w.Code {
		case http.StatusOK:
			checkAnswer(t, r, body)
		case http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusUnprocessableEntity:
			if err := json.Unmarshal(body, &p); err != nil || p.Error == "" {
				t.Errorf("%q is answered %d, %q, which is no problem", raw, w.Code, body)
			}
		default:
			t.Errorf("%q is answered %d, %q", raw, w.Code, body)
		}
	})
}

// checkAnswer checks that a block is one that may be asked for.
func checkAnswer(t *testing.T, r *http.Request, body []byte) {
	t.Helper()
	if r.Method != http.MethodPost || r.URL.Path != "/v1/blocks" {
		return
	}
	var b Block
	if err := json.Unmarshal(body, &b); err != nil {
		t.Fatal(err)
	}
	source, err := ParseSource(b.Source)
	if timeout := b.Until.Sub(b.Since); err != nil || Display(source) != b.Source || timeout < 0 || timeout > MaxTimeout {
		t.Errorf("blocked %+v, %v", b, err)
	}
	if text, err := ParseComment(b.Comment); err != nil || text != b.Comment || len(text) > MaxComment {
		t.Errorf("comment %q, %v", b.Comment, err)
	}
}

// TestRequestRaw sends what is not HTTP, or ends too early, over the socket:
// every answer there is an error, and the connection is closed.
func TestRequestRaw(t *testing.T) {
	s := serveAs(t, zap.NewNop(), fakeGuard{}, func(g *gate) { g.patience = 100 * time.Millisecond })
	for _, raw := range []string{
		"", "\r\n\r\n", "GET", "GET /v1/status\r\n\r\n", "GET /v1/status HTTP/3.0\r\nHost: x\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"GET /v1/status HTTP/1.1\r\n\r\n", "GET /v1/status HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
		"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", "POST /v1/blocks HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
		"POST /v1/blocks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", "POST /v1/blocks HTTP/1.1\r\nHost: x\r\nExpect: cake\r\n\r\n",
		"POST /v1/blocks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "GET /v1/status HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 20000) + "\r\n\r\n",
	} {
		conn, err := net.Dial("unix", s.path)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(time.Minute))
		_, _ = io.WriteString(conn, raw) // it may be closed already
		answer, err := io.ReadAll(conn)
		if os.IsTimeout(err) || len(answer) > 0 && !bytes.HasPrefix(answer, []byte("HTTP/1.1 4")) && !bytes.HasPrefix(answer, []byte("HTTP/1.1 5")) {
			t.Errorf("%.80q is answered %q, %v", raw, answer, err)
		}
		_ = conn.Close()
	}
	ask(t, NewClient(s.path))
}
