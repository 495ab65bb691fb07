package hook

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
)

// posting is a Webhook to a server.
func posting(s *httptest.Server) Webhook {
	return Webhook{Common: Common{[]On{Block}, 10 * time.Second, Rate{100, time.Minute}}, URL: s.URL + "/scans?a=b", Method: "POST"}
}

// TestWebhook shows what a server gets.
func TestWebhook(t *testing.T) {
	type request struct {
		Method, URI, Type, Agent, Auth, Body string
	}
	var got request
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = request{r.Method, r.RequestURI, r.Header.Get("Content-Type"), r.Header.Get("User-Agent"), r.Header.Get("Authorization"), string(body)}
	}))
	defer s.Close()
	e := probe()
	e.Comment = "a\"b\\c<é>"
	const standard = `{"version":1,"event":"block","target":"2001:db8:1:2::7","source":"2001:db8:1:2::/64","port":23,"protocol":"tcp",` +
		`"kind":"connect","evidence":"proven","mode":"stcp","origin":"decoy","comment":"a\"b\\c\u003cé\u003e","reason":"","host":"h",` +
		`"strikes":2,"since":"2026-01-02T03:04:05Z","until":"2026-01-02T04:04:05Z"}`
	for _, tt := range []struct {
		name   string
		change func(*Webhook)
		want   request
	}{
		{"standard", func(*Webhook) {}, request{"POST", "/scans?a=b", "application/json", "nftsentry", "", standard}},
		{"template", func(w *Webhook) {
			w.Method, w.Body = "PUT", `{"text":{{json .Comment}},"port":{{.Port}}}`
			w.Headers = map[string]string{"authorization": "Bearer x", "Content-Type": "application/vnd.x+json"}
		}, request{"PUT", "/scans?a=b", "application/vnd.x+json", "nftsentry", "Bearer x", `{"text":"a\"b\\c\u003cé\u003e","port":23}`}},
		{"plain", func(w *Webhook) { w.Body = "{{.Target}}" }, request{"POST", "/scans?a=b", "text/plain; charset=utf-8", "nftsentry", "", "2001:db8:1:2::7"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := posting(s)
			tt.change(&c)
			p, err := newPoster(c)
			if err != nil {
				t.Fatal(err)
			}
			p.host = "h"
			if err := p.do(t.Context(), &job{events: []Event{e}}); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("request (-want +got):\n%s", diff)
			}
			if strings.HasPrefix(got.Body, "{") && !json.Valid([]byte(got.Body)) {
				t.Errorf("no JSON: %s", got.Body)
			}
		})
	}
}

// TestWebhookAnswers shows which answers are failures, and of what kind.
func TestWebhookAnswers(t *testing.T) {
	for _, tt := range []struct {
		name      string
		status    int
		after     string
		want      string // "" for success
		permanent bool
		wait      time.Duration
	}{
		{"done", 204, "", "", false, 0},
		{"not found", 404, "", "404 Not Found", true, 0},
		{"forbidden", 403, "10", "403 Forbidden", true, 0},
		{"broken", 500, "", "500", false, 0},
		{"busy", 503, "7", "503", false, 7 * time.Second},
		{"too many", 429, "99999999", "429", false, maxRetryAfter},
		{"nonsense", 429, "-5", "429", false, 0},
		{"a past date", 503, "Mon, 02 Jan 2006 15:04:05 GMT", "503", false, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Retry-After", tt.after)
				w.WriteHeader(tt.status)
			}))
			defer s.Close()
			p, err := newPoster(posting(s))
			if err != nil {
				t.Fatal(err)
			}
			err = p.do(t.Context(), &job{events: []Event{probe()}})
			if tt.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			var permanent *permanentError
			var later *laterError
			if err == nil || !strings.Contains(err.Error(), tt.want) || errors.As(err, &permanent) != tt.permanent {
				t.Errorf("error %v", err)
			}
			if errors.As(err, &later) != (tt.wait > 0) || later != nil && later.after != tt.wait {
				t.Errorf("to be tried again %+v, want after %v", later, tt.wait)
			}
		})
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for s, want := range map[string]time.Duration{
		"": 0, "0": 0, "120": 2 * time.Minute, "1e9": 0, "99999999999999999999": 0, "Fri, 02 Jan 2026 03:05:05 GMT": time.Minute,
		"Fri, 02 Jan 2026 05:05:05 GMT": maxRetryAfter, "Fri, 02 Jan 2026 03:00:05 GMT": 0, "soon": 0,
	} {
		if got := retryAfter(s, now); got != want {
			t.Errorf("%q is %v, want %v", s, got, want)
		}
	}
}

// TestWebhookRedirects goes nowhere but where it was sent.
func TestWebhookRedirects(t *testing.T) {
	var elsewhere atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	defer other.Close()
	var body string
	s := httptest.NewServer(nil)
	defer s.Close()
	s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/end":
			b, _ := io.ReadAll(r.Body)
			body = string(b)
		case "/loop":
			http.Redirect(w, r, "/loop", http.StatusTemporaryRedirect)
		case "/other":
			http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
		case "/secure":
			http.Redirect(w, r, strings.Replace(s.URL, "http:", "https:", 1), http.StatusPermanentRedirect)
		case "/get":
			http.Redirect(w, r, "/end", http.StatusFound)
		default:
			http.Redirect(w, r, "/end", http.StatusTemporaryRedirect)
		}
	})
	for path, want := range map[string]string{
		"/same": "", "/loop": "too many of them", "/other": "it leads to http://127.0.0.1", "/secure": "it leads to https://", "/get": "it would lose the body",
	} {
		c := posting(s)
		c.URL, c.Body = s.URL+path, "{{.Target}}"
		p, err := newPoster(c)
		if err != nil {
			t.Fatal(err)
		}
		err = p.do(t.Context(), &job{events: []Event{probe()}})
		var permanent *permanentError
		if want == "" && err != nil || want != "" && (!errors.As(err, &permanent) || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	if elsewhere.Load() > 0 || body != "2001:db8:1:2::7" {
		t.Errorf("%d requests to another host, body %q", elsewhere.Load(), body)
	}
}

// TestWebhookTLS takes no server that cannot prove who it is, and tells nothing of a URL but its host.
func TestWebhookTLS(t *testing.T) {
	var got atomic.Int32
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { got.Add(1) }))
	s.Config.ErrorLog = zap.NewStdLog(zap.NewNop())
	s.StartTLS()
	defer s.Close()
	c := posting(s)
	c.URL = s.URL + "/secret-token"
	p, err := newPoster(c)
	if err != nil {
		t.Fatal(err)
	}
	err = p.do(t.Context(), &job{events: []Event{probe()}})
	if err == nil || !strings.Contains(err.Error(), "certificate") || strings.Contains(err.Error(), "secret") || got.Load() > 0 {
		t.Errorf("an unknown certificate: %v", err)
	}
	p.client.Transport = s.Client().Transport
	if err := p.do(t.Context(), &job{events: []Event{probe()}}); err != nil || got.Load() != 1 {
		t.Errorf("a known certificate: %v", err)
	}
}

// TestWebhookHangs ends in time whatever the server does, and keeps nothing of what it says.
func TestWebhookHangs(t *testing.T) {
	for name, act := range map[string]func(http.ResponseWriter, *http.Request){
		"silent": func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
		},
		"slow body": func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			for r.Context().Err() == nil {
				_, _ = io.WriteString(w, "x")
				_ = http.NewResponseController(w).Flush()
				select {
				case <-r.Context().Done():
				case <-time.After(20 * time.Millisecond):
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(act))
			defer s.Close()
			p, err := newPoster(posting(s))
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			began := time.Now()
			if err := p.do(ctx, &job{events: []Event{probe()}}); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("error %v", err)
			}
			if took := time.Since(began); took > slow {
				t.Errorf("it took %v", took)
			}
		})
	}
	var sent atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for block := make([]byte, 4096); ; {
			n, err := w.Write(block)
			if sent.Add(int64(n)); err != nil {
				return
			}
		}
	}))
	defer s.Close()
	p, err := newPoster(posting(s))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.do(t.Context(), &job{events: []Event{probe()}}); err != nil {
		t.Errorf("a body without end: %v", err)
	}
}

// TestWebhookRetried tells a server again that was broken.
func TestWebhookRetried(t *testing.T) {
	var n atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if n.Add(1) == 1 {
			w.WriteHeader(http.StatusBadGateway)
		}
	}))
	defer s.Close()
	r, err := New(Config{Webhook: []Webhook{posting(s)}}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	stop := running(t, r)
	r.Tell(probe())
	until(t, "the request has succeeded", func() bool { return r.Stats()[0].Done == 1 })
	stop()
	if got := r.Stats()[0]; n.Load() != 2 || got.Failed != 0 {
		t.Errorf("%d requests, %+v", n.Load(), got)
	}
}

func TestWebhookRefused(t *testing.T) {
	for name, w := range map[string]Webhook{
		"relative": {URL: "/a", Method: "POST"}, "other scheme": {URL: "file:///etc/passwd", Method: "POST"},
		"method": {URL: "http://localhost", Method: "a b"}, "template": {URL: "http://localhost", Method: "POST", Body: "{{.Events}}"},
	} {
		w.Common = Common{[]On{Block}, time.Second, Rate{1, time.Second}}
		if _, err := New(Config{Webhook: []Webhook{w}}, zap.NewNop()); err == nil || !strings.HasPrefix(err.Error(), "hook.webhook[0]: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
