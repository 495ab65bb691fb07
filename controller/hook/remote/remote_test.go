package remote

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"nftsentry/controller/hook"
)

// slow is how long anything may take on a slow machine.
const slow = time.Minute

// until waits for something that other goroutines do.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(slow); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// A fake is a Service that remembers what it was told.
type fake struct {
	mu      sync.Mutex
	events  []hook.Event
	synced  [][]hook.Event
	wrong   error // of Prepare
	changes []string
}

func (f *fake) Tell(e hook.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.events = append(f.events, e)
}

func (f *fake) Sync(live []hook.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.synced = append(f.synced, live)
}

func (f *fake) Stats() []hook.Stat {
	f.mu.Lock()
	defer f.mu.Unlock()
	return []hook.Stat{{Name: "exec[0]", What: "/bin/true", Done: uint64(len(f.events))}}
}

func (f *fake) Prepare(context.Context) (string, hook.Prepared, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.changes = append(f.changes, "prepare")
	return "/etc/f.toml", fakeChange{f}, f.wrong
}

type fakeChange struct{ f *fake }

func (c fakeChange) Commit(context.Context) error { return c.note("commit") }
func (c fakeChange) Abort()                       { _ = c.note("abort") }

func (c fakeChange) note(what string) error {
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	c.f.changes = append(c.f.changes, what)
	return nil
}

// told is how many events there are, and how many times sources.
func (f *fake) told() (events, synced int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.events), len(f.synced)
}

func (f *fake) steps() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string{}, f.changes...)
}

// event is the nth, told by its port.
func event(n int) hook.Event {
	a := netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
	return hook.Event{On: hook.Block, Source: netip.PrefixFrom(a, 32), Address: a, Port: uint16(n), Protocol: "tcp", Kind: "connect"}
}

// socket is a path that is short enough.
func socket(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "hook")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "s")
}

// serve runs a server until stop, or the end of the test.
func serve(t *testing.T, path string, f *fake) (stop func()) {
	t.Helper()
	s, err := Listen(path, uint32(os.Getuid()), zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	return runServer(t, s, f)
}

func runServer(t *testing.T, s *Server, f *fake) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Run(ctx, f); err != nil {
			t.Error(err)
		}
	})
	stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
	})
	t.Cleanup(stop)
	return stop
}

// connect runs a client until stop, or the end of the test.
func connect(t *testing.T, cfg Config) (c *Client, logs *observer.ObservedLogs, stop func()) {
	t.Helper()
	core, logs := observer.New(zapcore.DebugLevel)
	c = New(cfg, zap.New(core))
	c.ping = 50 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := c.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
	})
	t.Cleanup(stop)
	return c, logs, stop
}

// TestTold has events arrive as they were, in their order, with the sources among them.
func TestTold(t *testing.T) {
	path, f := socket(t), new(fake)
	serve(t, path, f)
	c := New(Config{Socket: path}, zap.NewNop())
	var want []hook.Event
	for n := range 3 * maxBatch {
		want = append(want, event(n))
		c.Tell(event(n))
	}
	full := hook.Event{
		On: hook.Unblock, Source: netip.MustParsePrefix("2001:db8::/64"), Port: 65535, Protocol: "udp", Kind: "udp", Evidence: "unproven",
		Mode: "sudp", Origin: "fleet", Comment: "<&> \"\x00 ü", Reason: "expired", Strikes: 3,
		Since: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC), Until: time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC),
	}
	c.Tell(full)
	want = append(want, full.Clean())
	c.Sync([]hook.Event{event(7), event(8)})
	for c.pending() {
		if _, err := c.tellNext(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	compare := cmp.Options{cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{})}
	if diff := cmp.Diff(want, f.events, compare); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	live := [][]hook.Event{{{On: hook.Block, Source: event(7).Source}, {On: hook.Block, Source: event(8).Source}}}
	if diff := cmp.Diff(live, f.synced, compare); diff != "" {
		t.Errorf("sources (-want +got):\n%s", diff)
	}
	if h := c.Health(); h.Away != nil || h.Waiting > 0 || h.Dropped > 0 {
		t.Errorf("%+v", h)
	}
}

// TestQueue keeps sources in their place among events.
func TestQueue(t *testing.T) {
	var q queue
	sources := []netip.Prefix{event(1).Source}
	q.push(event(1))
	q.sync([]netip.Prefix{event(9).Source, event(8).Source}) // overtaken
	q.push(event(2))
	q.sync(sources)
	q.push(event(3))
	if live, events := q.next(); live != nil || len(events) != 2 {
		t.Fatalf("first %v, %v, want the two events before the sources", live, events)
	}
	q.drop(2)
	live, events := q.next()
	if len(events) > 0 || len(live) != 1 || live[0] != sources[0] {
		t.Fatalf("then %v, %v, want the sources", live, events)
	}
	q.sync(nil) // other ones meanwhile, which are told later
	q.synced(live)
	if live, events := q.next(); live != nil || len(events) != 1 || events[0].Port != 3 {
		t.Fatalf("then %v, %v, want the last event", live, events)
	}
	q.drop(1)
	live, _ = q.next()
	if live == nil || len(live) != 0 {
		t.Fatalf("then %v, want that there are no sources", live)
	}
	q.synced(live)
	if live, events := q.next(); live != nil || len(events) > 0 {
		t.Errorf("in the end %v, %v", live, events)
	}
}

// TestAway has a service that is not there hold up nobody, and hear of what waited once it is back: with one warning, one line
// when it is back, and a Resync.
func TestAway(t *testing.T) {
	path, f := socket(t), new(fake)
	resyncs := make(chan struct{}, 8)
	c, logs, _ := connect(t, Config{Socket: path, Resync: func(context.Context) { resyncs <- struct{}{} }})
	until(t, "the client notices", func() bool { return c.Health().Away != nil })
	const extra = 10
	began := time.Now()
	for n := range maxQueue + extra {
		c.Tell(event(n))
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("Tell has waited: %v", took)
	}
	h := c.Health()
	if h.Waiting != maxQueue || h.Dropped != extra || h.Socket != path || h.Since.IsZero() {
		t.Errorf("%+v, want %d waiting and %d dropped", h, maxQueue, extra)
	}
	var away *AwayError
	if !errors.As(h.Away, &away) || !strings.Contains(away.Error(), path) || !strings.Contains(away.Error(), "systemctl status nftsentry-hook.service") {
		t.Errorf("%v names no socket, or nothing to do", h.Away)
	}
	serve(t, path, f)
	until(t, "all that had room is told", func() bool { n, _ := f.told(); return n == maxQueue })
	until(t, "the client knows", func() bool { h := c.Health(); return h.Away == nil && h.Waiting == 0 })
	<-resyncs
	until(t, "the stats are those of the service", func() bool {
		stats := c.Stats()
		return len(stats) == 1 && stats[0].Done == maxQueue
	})
	if warned, back := logs.FilterMessageSnippet("hooks are not told").Len(), logs.FilterMessage("hooks are told again").Len(); warned != 1 || back != 1 {
		t.Errorf("%d warnings and %d lines that it is back:\n%v", warned, back, logs.All())
	}
}

// TestMissed has a service looked after when it is reached first, after a restart, and when events were dropped.
func TestMissed(t *testing.T) {
	path, f := socket(t), new(fake)
	stop := serve(t, path, f)
	c := New(Config{Socket: path}, zap.NewNop()) // does not run
	next := func(what string, want bool) {
		t.Helper()
		if _, err := c.tellNext(t.Context()); err != nil {
			t.Fatal(err)
		}
		got := false
		select {
		case <-c.back:
			got = true
		default:
		}
		if got != want {
			t.Errorf("%s: looked after: %v, want %v", what, got, want)
		}
	}
	next("first", true)
	next("again", false)
	stop()
	serve(t, path, f)
	next("after a restart", true)
	next("again", false)
	for n := range maxQueue + 1 {
		c.Tell(event(n))
	}
	for range maxQueue / maxBatch / 2 {
		next("while many wait", false)
	}
	next("while few wait", true)
	for c.pending() {
		next("the rest", false)
	}
	if n, _ := f.told(); c.Health().Dropped != 1 || n != maxQueue {
		t.Errorf("%+v, and %d events are told", c.Health(), n)
	}
}

// TestNoAnswer has a service that accepts and never answers count as one that is away.
func TestNoAnswer(t *testing.T) {
	path := socket(t)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := New(Config{Socket: path}, zap.NewNop())
	if stats := c.Stats(); stats != nil || c.Health().Away != nil { // which waits too short to know
		t.Errorf("stats %v of nobody, %+v", stats, c.Health())
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err = c.tellNext(ctx)
	if err == nil || !strings.Contains(err.Error(), "no answer in time") || c.Health().Away == nil {
		t.Errorf("%v, %+v", err, c.Health())
	}
}

// TestRefusedBatch drops what the service does not want, says so, and goes on.
func TestRefusedBatch(t *testing.T) {
	path, f := socket(t), new(fake)
	serve(t, path, f)
	c, logs, _ := connect(t, Config{Socket: path})
	c.Tell(hook.Event{On: "nonsense", Source: event(1).Source})
	until(t, "it is refused", func() bool { return c.Health().Dropped == 1 })
	c.Tell(event(2))
	until(t, "the next is told", func() bool { n, _ := f.told(); return n == 1 })
	if n := logs.FilterMessageSnippet("refuses events").Len(); n != 1 {
		t.Errorf("%d lines, want 1: %v", n, logs.All())
	}
}

// TestReload prepares, commits and aborts, and says what is wrong.
func TestReload(t *testing.T) {
	path, f := socket(t), new(fake)
	serve(t, path, f)
	c := New(Config{Socket: path}, zap.NewNop())
	prepare := func() hook.Prepared {
		t.Helper()
		p, err := c.Prepare(t.Context(), hook.Config{})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	if err := prepare().Commit(t.Context()); err != nil {
		t.Error(err)
	}
	prepare().Abort()
	stale := prepare()
	last := prepare() // takes the place of the one before
	if err := stale.Commit(t.Context()); err == nil || !strings.Contains(err.Error(), errStale.Error()) {
		t.Errorf("a configuration that was given up: %v", err)
	}
	if err := last.Commit(t.Context()); err != nil {
		t.Error(err)
	}
	want := []string{"prepare", "commit", "prepare", "abort", "prepare", "abort", "prepare", "commit"}
	if diff := cmp.Diff(want, f.steps()); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
	wrong := errors.Join(errors.New("f.toml:1: a"), errors.New("f.toml:2: b"))
	f.mu.Lock()
	f.wrong = wrong
	f.mu.Unlock()
	if _, err := c.Prepare(t.Context(), hook.Config{}); err == nil || err.Error() != wrong.Error() {
		t.Errorf("wrong configuration: %v, want %v", err, wrong)
	}
}

// TestReloadAway is owed, and redeemed when the service is back.
func TestReloadAway(t *testing.T) {
	path, f := socket(t), new(fake)
	c, logs, _ := connect(t, Config{Socket: path})
	p, err := c.Prepare(t.Context(), hook.Config{})
	if err != nil {
		t.Fatal(err)
	}
	var away *AwayError
	if err := p.Commit(t.Context()); !errors.As(err, &away) || !strings.Contains(err.Error(), "hooks keep their old configuration") {
		t.Errorf("commit: %v", err)
	}
	p.Abort() // no harm
	serve(t, path, f)
	until(t, "it is redeemed", func() bool { return cmp.Equal([]string{"prepare", "commit"}, f.steps()) })
	until(t, "it is told", func() bool { return logs.FilterMessage("hooks have read their configuration").Len() == 1 })
}

// TestStop tells what waits before it ends, and counts what it could not tell.
func TestStop(t *testing.T) {
	c, logs, stop := connect(t, Config{Socket: socket(t)})
	for n := range 5 {
		c.Tell(event(n))
	}
	stop()
	lost := logs.FilterMessage("hooks were not told of all events").All()
	if len(lost) != 1 || fmt.Sprint(lost[0].ContextMap()["events"]) != "5" {
		t.Errorf("%v", lost)
	}
}
