package remote

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"nftsentry/controller/hook"
)

// post sends a body to a server, and returns the code and the body of the answer.
func post(t *testing.T, path, method, to, body string) (int, string) {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(slow))
	r, err := http.NewRequest(method, "http://hook"+to, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = r.Write(conn) }() // the server may answer before it has read all
	resp, err := http.ReadResponse(bufio.NewReader(conn), r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(data)
}

// TestBadInput refuses what is wrong, with what is wrong, and tells the hooks none of it.
func TestBadInput(t *testing.T) {
	path, f := socket(t), new(fake)
	serve(t, path, f)
	many := strings.TrimSuffix(strings.Repeat(`{"on":"block","source":"192.0.2.7/32"},`, maxBatch+1), ",")
	for name, tt := range map[string]struct {
		method, to, body string
		code             int
		want             string
	}{
		"no JSON":         {"POST", eventsPath, "x", 400, "invalid character"},
		"nothing":         {"POST", eventsPath, "", 400, "EOF"},
		"two values":      {"POST", eventsPath, "{}{}", 400, "more than one value"},
		"no such event":   {"POST", eventsPath, `{"events":[{"on":"reboot","source":"192.0.2.7/32"}]}`, 400, `events[0]: on \"reboot\"`},
		"nobody":          {"POST", eventsPath, `{"events":[{"on":"block"}]}`, 400, "no source and no address"},
		"no address":      {"POST", eventsPath, `{"events":[{"on":"block","address":"; id"}]}`, 400, "ParseAddr"},
		"a zone":          {"POST", eventsPath, `{"events":[{"on":"block","address":"fe80::1%x; id"}]}`, 400, "zone"},
		"no port":         {"POST", eventsPath, `{"events":[{"on":"block","source":"192.0.2.7/32","port":65536}]}`, 400, "65536"},
		"negative":        {"POST", eventsPath, `{"events":[{"on":"block","source":"192.0.2.7/32","strikes":-1}]}`, 400, "negative"},
		"one of two":      {"POST", eventsPath, `{"events":[{"on":"block","source":"192.0.2.7/32"},{"on":"block"}]}`, 400, "events[1]"},
		"too many":        {"POST", eventsPath, `{"events":[` + many + `]}`, 400, "257 events: at most 256"},
		"too long":        {"POST", eventsPath, strings.Repeat(" ", maxRequest) + "{}", 400, "too large"},
		"bad source":      {"POST", sourcesPath, `{"sources":["192.0.2.7"]}`, 400, "ParsePrefix"},
		"empty source":    {"POST", sourcesPath, `{"sources":[""]}`, 400, "sources[0] is no prefix"},
		"no such draft":   {"POST", commitPath, `{"id":"x"}`, 409, "no such configuration waits"},
		"no such request": {"POST", "/v1/exec", `{}`, 404, ""},
		"wrong method":    {"GET", eventsPath, ``, 405, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if code, got := post(t, path, tt.method, tt.to, tt.body); code != tt.code || !strings.Contains(got, tt.want) {
				t.Errorf("%d %s, want %d %s", code, got, tt.code, tt.want)
			}
		})
	}
	if events, synced := f.told(); events+synced > 0 {
		t.Errorf("%d events and %d sources were told", events, synced)
	}
	if code, got := post(t, path, "POST", eventsPath, `{"events":[{"on":"block","source":"192.0.2.7/32","newer":1}]}`); code != 200 {
		t.Errorf("an event of a newer daemon: %d %s", code, got)
	}
}

// TestLargest has a batch of the longest events there can be fit into a request, and all sources there can be.
func TestLargest(t *testing.T) {
	long := strings.Repeat("<", 1000) // six bytes each in JSON
	e := hook.Event{
		On: hook.Unblock, Source: netip.MustParsePrefix("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff/128"),
		Address: netip.MustParseAddr("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"), Port: 65535,
		Protocol: strings.Repeat("p", 100), Kind: strings.Repeat("k", 100), Evidence: strings.Repeat("e", 100), Mode: strings.Repeat("m", 100),
		Origin: strings.Repeat("o", 100), Comment: long, Reason: long, Strikes: 1 << 60, Since: time.Now(), Until: time.Now(),
	}.Clean()
	b := batch{}
	for range maxBatch {
		b.Events = append(b.Events, e)
	}
	all := blocked{}
	for range maxSources {
		all.Sources = append(all.Sources, e.Source)
	}
	for _, tt := range []struct {
		body any
		most int
	}{{b, maxRequest}, {all, maxSync}} {
		if data, err := json.Marshal(tt.body); err != nil || len(data) > tt.most {
			t.Errorf("%d bytes, at most %d are read: %v", len(data), tt.most, err)
		}
	}
}

// TestStranger shows that neither we nor anybody else but root and the peer are heard, and are told why.
func TestStranger(t *testing.T) {
	path, f := socket(t), new(fake)
	s, err := Listen(path, 1, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	s.door.users = []uint32{uint32(os.Getuid()) + 1} // root may be who tests
	runServer(t, s, f)
	var idle []net.Conn
	for range 3 * maxConns { // who come and say nothing keep out nobody
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		idle = append(idle, conn)
	}
	_ = idle[0].SetReadDeadline(time.Now().Add(slow))
	if n, err := idle[0].Read(make([]byte, 1)); n > 0 || err == nil || os.IsTimeout(err) {
		t.Errorf("the first stranger of many: %d, %v, want an end", n, err)
	}
	for range 3 * maxRefused {
		if code, got := post(t, path, "POST", eventsPath, `{"events":[{"on":"block","source":"192.0.2.7/32"}]}`); code != 403 || !strings.Contains(got, "--peer") {
			t.Fatalf("%d %s, want 403", code, got)
		}
	}
	c := New(Config{Socket: path}, zap.NewNop())
	c.Tell(event(1))
	if _, err := c.tellNext(t.Context()); err == nil || !strings.Contains(err.Error(), "--peer names") || c.Health().Waiting != 1 {
		t.Errorf("%v, %+v, want that the event waits", err, c.Health())
	}
	if events, _ := f.told(); events > 0 {
		t.Errorf("%d events of a stranger", events)
	}
}

// TestIdle has clients that send nothing take no more than the places that there are, and let others in when their time is up.
func TestIdle(t *testing.T) {
	path, f := socket(t), new(fake)
	s, err := Listen(path, uint32(os.Getuid()), zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	s.patience = 100 * time.Millisecond
	runServer(t, s, f)
	for range 2 * maxConns {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	if code, got := post(t, path, "POST", eventsPath, `{"events":[{"on":"block","source":"192.0.2.7/32"}]}`); code != 200 {
		t.Errorf("%d %s", code, got)
	}
}

// TestListen replaces a socket that nobody answers on, and nothing else.
func TestListen(t *testing.T) {
	path := socket(t)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if _, err := Listen(path, 0, zap.NewNop()); err == nil || !strings.Contains(err.Error(), "another hook service") {
		t.Errorf("a socket in use: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := Listen(path, 0, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the socket is left")
	}
	file := filepath.Join(filepath.Dir(path), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(file, 0, zap.NewNop()); err == nil || !strings.Contains(err.Error(), "is not a socket") {
		t.Errorf("a file: %v", err)
	}
}

// TestInherit takes a socket of the service manager, whose file stays.
func TestInherit(t *testing.T) {
	path, f := socket(t), new(fake)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	s, err := Inherit(l, 0, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	s.door.users = append(s.door.users, uint32(os.Getuid()))
	stop := runServer(t, s, f)
	if code, got := post(t, path, "GET", statsPath, ""); code != 200 || !strings.Contains(got, `"exec[0]"`) {
		t.Errorf("%d %s", code, got)
	}
	stop()
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the socket of the service manager: %v", err)
	}
}

func TestKnows(t *testing.T) {
	file := filepath.Join(t.TempDir(), "map")
	for _, tt := range []struct {
		text string
		user uint32
		want bool
		bad  bool
	}{
		{"         0          0 4294967295\n", 990, true, false},
		{"0 0 1\n991 991 1\n", 991, true, false},
		{"0 0 1\n991 991 1\n", 990, false, false},
		{"", 990, false, false},
		{"x\n", 990, false, true},
	} {
		if err := os.WriteFile(file, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := knows(file, tt.user); got != tt.want || (err != nil) != tt.bad {
			t.Errorf("%q knows %d: %v, %v, want %v", tt.text, tt.user, got, err, tt.want)
		}
	}
}

// FuzzEvents looks for a body that ends the service, or an event that is told and is none.
func FuzzEvents(f *testing.F) {
	f.Add([]byte(`{"events":[{"on":"block","source":"192.0.2.7/32","address":"192.0.2.7","port":23,"protocol":"tcp"}]}`))
	f.Add([]byte(`{"events":[{"on":"unblock","address":"fe80::1%eth0"}]}`))
	f.Add([]byte(`{"events":null}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var s fake
		if _, err := hear(&s, body); err != nil && len(s.events) > 0 {
			t.Fatalf("%v, and %v is told", err, s.events)
		}
		for _, e := range s.events {
			if checkEvent(e) != nil || e.Target() == "" {
				t.Errorf("%+v is told", e)
			}
		}
	})
}
