package hook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// A script is a sink that does what a test says.
type script struct {
	act func(ctx context.Context, j *job) error

	mu   sync.Mutex
	jobs []*job
	now  int
	most int
}

func (s *script) do(ctx context.Context, j *job) error {
	s.mu.Lock()
	s.jobs = append(s.jobs, j)
	s.now++
	s.most = max(s.most, s.now)
	act := s.act
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.now--
		s.mu.Unlock()
	}()
	if act == nil {
		return nil
	}
	return act(ctx, j)
}

// set changes what a script does.
func (s *script) set(act func(context.Context, *job) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.act = act
}

// workers are how many jobs there are now, and were at once.
func (s *script) workers() (now, most int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now, s.most
}

func (s *script) runs() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.jobs)
}

// hang waits for the end of its time.
func hang(ctx context.Context, _ *job) error {
	<-ctx.Done()
	return ctx.Err()
}

// scripted is a spec of a hook of one event at a time, with limits that do not matter.
func scripted(name string, s sink) spec {
	return spec{
		name: name, id: name, sink: s, on: map[On]bool{Block: true}, timeout: 10 * time.Second, limit: Rate{1 << 20, time.Second}, most: 2,
	}
}

// start runs a Runner with some hooks until the test's end of it is called.
func start(t *testing.T, specs ...spec) (r *Runner, stop func()) {
	t.Helper()
	return startLogged(t, zap.NewNop(), specs...)
}

func startLogged(t *testing.T, log *zap.Logger, specs ...spec) (r *Runner, stop func()) {
	t.Helper()
	r = &Runner{log: log, wake: make(chan struct{}, workers), modeTCP: "stcp", modeUDP: "sudp"}
	for _, sp := range specs {
		s := new(slot)
		s.set(sp)
		r.slots = append(r.slots, s)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := r.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	return r, func() {
		cancel()
		wg.Wait()
	}
}

// pass lets time pass, until nothing more happens.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// block is the event of the nth source.
func block(n int) Event {
	a := netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
	return Event{On: Block, Source: netip.PrefixFrom(a, 32), Address: a, Port: 23, Protocol: "tcp", Kind: "connect"}
}

func unblock(n int) Event {
	e := block(n)
	e.On = Unblock
	return e
}

// TestHang shows that hooks that hang leave workers to the others, and that a hook hangs with one worker only once it is
// known to.
func TestHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hanging, well := &script{act: hang}, &script{}
		r, stop := start(t, scripted("hanging", hanging), scripted("well", well))
		for n := range 200 {
			r.Tell(block(n))
		}
		synctest.Wait()
		if n := well.runs(); n != 200 {
			t.Errorf("the other hook ran %d times, want 200", n)
		}
		if now, _ := hanging.workers(); now != 2 {
			t.Errorf("the hanging hook has %d workers, want 2", now)
		}
		pass(15 * time.Second)
		if now, most := hanging.workers(); now != 1 || most != 2 {
			t.Errorf("after a timeout it has %d workers, want 1; at most %d, want 2", now, most)
		}
		if s := r.Stats()[0]; s.TimedOut != 2 || s.Failed != 2 || s.Waiting != 197 || s.Running != 1 {
			t.Errorf("counts %+v", s)
		}
		began := time.Now()
		stop()
		if took := time.Since(began); took > grace {
			t.Errorf("it took %v to end", took)
		}
	})
}

// TestFull shows that Tell drops and counts what does not fit.
func TestFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{act: hang}
		r, stop := start(t, scripted("a", s))
		for n := range 2 {
			r.Tell(block(n))
		}
		synctest.Wait() // both are at work
		for n := range 1000 {
			r.Tell(block(n + 2))
		}
		if s := r.Stats()[0]; s.Waiting != maxQueue || s.Dropped != 1000-maxQueue {
			t.Errorf("%d wait and %d were dropped, want %d and %d", s.Waiting, s.Dropped, maxQueue, 1000-maxQueue)
		}
		stop()
	})
}

func TestLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{}
		sp := scripted("a", s)
		sp.limit, sp.on[Unblock] = Rate{5, time.Minute}, true
		r, stop := start(t, sp)
		want := func(runs, limited int) {
			t.Helper()
			synctest.Wait()
			if got := r.Stats()[0]; s.runs() != runs || got.Limited != uint64(limited) {
				t.Errorf("ran %d times and limited %d, want %d and %d", s.runs(), got.Limited, runs, limited)
			}
		}
		r.Tell(block(1))
		r.Tell(block(1))
		want(1, 1)
		r.Tell(unblock(1)) // another event of the source
		want(2, 1)
		pass(perSource)
		r.Tell(block(1))
		want(3, 1)
		for n := range 10 {
			r.Tell(block(n + 2))
		}
		want(7, 7)
		pass(12 * time.Second) // one more
		r.Tell(block(20))
		r.Tell(block(21))
		want(8, 8)
		stop()
	})
}

// TestRecent bounds what is kept in mind.
func TestRecent(t *testing.T) {
	var r recent
	now := time.Now()
	for n := range 5 * maxSources {
		key := block(n).key()
		if r.told(key, now) {
			t.Fatalf("%v was never told", key)
		}
		r.tell(key, now)
		if !r.told(key, now.Add(perSource-1)) || r.told(key, now.Add(perSource)) {
			t.Fatalf("%v is not kept for a minute", key)
		}
	}
	if n := len(r.new) + len(r.old); n > 2*maxSources {
		t.Errorf("%d sources are kept", n)
	}
}

func TestRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var at []time.Duration
		s := &script{act: func(context.Context, *job) error {
			at = append(at, time.Since(began))
			return errors.New("no")
		}}
		sp := scripted("a", s)
		sp.retries = []time.Duration{time.Second, 5 * time.Second}
		r, stop := start(t, sp)
		r.Tell(block(1))
		pass(time.Hour)
		if diff := cmp.Diff([]time.Duration{0, time.Second, 6 * time.Second}, at); diff != "" {
			t.Errorf("attempts (-want +got):\n%s", diff)
		}
		s.set(func(context.Context, *job) error { return &permanentError{errors.New("never")} })
		r.Tell(block(2))
		pass(time.Hour)
		if got := r.Stats()[0]; s.runs() != 4 || got.Failed != 2 || got.Done != 0 {
			t.Errorf("%d attempts: %+v", s.runs(), got)
		}
		s.set(func(_ context.Context, j *job) error {
			if j.attempt == 0 {
				return fmt.Errorf("wrapped: %w", &laterError{errors.New("busy"), time.Minute})
			}
			return nil
		})
		r.Tell(block(3))
		pass(time.Minute - time.Second)
		if n := s.runs(); n != 5 {
			t.Errorf("%d attempts before the time that the other side has named", n-4)
		}
		pass(2 * time.Second)
		if got := r.Stats()[0]; s.runs() != 6 || got.Done != 1 {
			t.Errorf("%d attempts: %+v", s.runs()-4, got)
		}
		stop()
	})
}

// mailSpecOf is a spec of a digest.
func mailSpecOf(s sink, wait time.Duration, limit Rate) spec {
	sp := scripted("mail", s)
	sp.digest, sp.limit, sp.most, sp.final, sp.retries = &wait, limit, 1, true, mailRetries
	return sp
}

// TestDigest sends ten thousand events by two mails, and no more mails than the limit allows.
func TestDigest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{}
		r, stop := start(t, mailSpecOf(s, time.Minute, Rate{10, time.Hour}))
		for n := range 10000 {
			r.Tell(block(n))
			pass(6 * time.Millisecond)
		}
		if n := s.runs(); n > 2 {
			t.Errorf("%d mails in a minute", n)
		}
		pass(time.Minute)
		if n := s.runs(); n > 2 {
			t.Errorf("%d mails", n)
		}
		told := 0
		for _, j := range s.jobs {
			told += len(j.events) + j.more
		}
		if told != 10000 || len(s.jobs[0].events) != maxQueue {
			t.Errorf("%d events are told of, %d in the first mail, want 10000 and %d", told, len(s.jobs[0].events), maxQueue)
		}
		for n := range 600 { // one every 10 s for 100 minutes
			r.Tell(block(20000 + n))
			pass(10 * time.Second)
		}
		if n := s.runs(); n > 10+17+1 || n < 20 {
			t.Errorf("%d mails, want the 10 of the beginning and one every 6 minutes", n)
		}
		stop()
		if s := r.Stats()[0]; s.Waiting > 0 && s.Dropped == 0 {
			t.Errorf("%+v", s)
		}
	})
}

// TestDigestFailing shows that mails do not pile up while none can be sent.
func TestDigestFailing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{act: func(context.Context, *job) error { return errors.New("refused") }}
		r, stop := start(t, mailSpecOf(s, 0, Rate{10, time.Hour}))
		for n := range 100 {
			r.Tell(block(n))
			pass(time.Second)
		}
		if s.most != 1 || s.runs() > 10 {
			t.Errorf("%d attempts, %d at once", s.runs(), s.most)
		}
		stop()
	})
}

// TestFinal shows what is still done at the end.
func TestFinal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mail, exec := &script{}, &script{act: hang}
		deny := scripted("deny", &script{})
		deny.free, deny.most, deny.final, deny.retries = true, 1, true, denyRetries
		r, stop := start(t, scripted("exec", exec), mailSpecOf(mail, time.Hour, Rate{1, time.Hour}), deny)
		for n := range 5 {
			r.Tell(block(n))
		}
		synctest.Wait()
		began := time.Now()
		stop()
		if took := time.Since(began); took != grace {
			t.Errorf("the end took %v, want %v", took, grace)
		}
		if mail.runs() != 1 || len(mail.jobs[0].events) != 5 || exec.runs() != 2 || deny.sink.(*script).runs() != 1 {
			t.Errorf("%d mails, %d runs, %d rewritings", mail.runs(), exec.runs(), deny.sink.(*script).runs())
		}
		if s := r.Stats()[0]; s.Dropped != 3 || s.Failed != 2 {
			t.Errorf("of the runs: %+v", s)
		}
	})
}

// TestChanges shows that changes come together, that none is lost by a failure, and that the later one stands.
func TestChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{act: func(context.Context, *job) error { return errors.New("no space left on device") }}
		sp := scripted("deny", s)
		sp.free, sp.most, sp.retries, sp.on[Unblock] = true, 1, denyRetries, true
		r, stop := start(t, sp)
		for n := range 10000 {
			r.Tell(block(n))
		}
		pass(settle)
		if s.runs() != 1 || len(s.jobs[0].changes) != 10000 {
			t.Fatalf("%d rewritings, the first of %d lines", s.runs(), len(s.jobs[0].changes))
		}
		r.Tell(unblock(3))
		s.set(nil)
		pass(time.Minute)
		if s.runs() != 2 || len(s.jobs[1].changes) != 10000 || s.jobs[1].changes[block(3).Source] || !s.jobs[1].changes[block(4).Source] {
			t.Errorf("%d rewritings, the second of %d lines", s.runs(), len(s.jobs[1].changes))
		}
		r.Tell(block(5))
		r.Sync([]Event{block(1), block(2)})
		r.Tell(block(7))
		pass(time.Minute)
		want := map[netip.Prefix]bool{block(1).Source: true, block(2).Source: true, block(7).Source: true}
		if diff := cmp.Diff(want, s.jobs[2].changes, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" || !s.jobs[2].only {
			t.Errorf("after Sync (-want +got):\n%s", diff)
		}
		stop()
	})
}

// TestSaid shows that losses are told once a minute, and the last ones too.
func TestSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.WarnLevel)
		sp := scripted("a", &script{})
		sp.limit = Rate{1, time.Hour}
		r, stop := startLogged(t, zap.New(core), sp)
		for n := range 100 {
			r.Tell(block(n))
			pass(time.Second)
		}
		pass(2 * time.Minute)
		stop()
		var limited int64
		all := logs.FilterMessage("hook was not told of all events").All()
		for _, one := range all {
			limited += int64(one.ContextMap()["limited"].(uint64))
		}
		if limited != 99 || len(all) != 3 {
			t.Errorf("%d lost events are told in %d messages, want 99 in 3", limited, len(all))
		}
	})
}

func TestEventJSON(t *testing.T) {
	want := block(7)
	want.Until = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, want := range []Event{want, {On: Unblock, Source: netip.MustParsePrefix("2001:db8::/32")}, {}} {
		data, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		var got Event
		if err := json.Unmarshal(data, &got); err != nil {
			t.Fatalf("%s: %v", data, err)
		}
		if got != want {
			t.Errorf("%s is read as %+v, want %+v", data, got, want)
		}
	}
}

func TestClean(t *testing.T) {
	e := Event{Protocol: "tcp;rm -rf /", Kind: "--help", Mode: "\x00st\ncp", Comment: "a\r\nBcc: b\x1b[2J\u202e\xff", Evidence: string(make([]byte, 1000))}
	want := Event{Protocol: "tcprm-rf", Kind: "help", Mode: "stcp", Comment: "a  Bcc: b [2J  "}
	if got := e.Clean(); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	for in, want := range map[netip.Addr]string{
		netip.MustParseAddr("::ffff:192.0.2.7"):    "192.0.2.7",
		netip.MustParseAddr("fe80::1%eth0;reboot"): "fe80::1",
	} {
		if got := (Event{Address: in}).Target(); got != want {
			t.Errorf("target %q, want %q", got, want)
		}
	}
	if got := (Event{Source: netip.MustParsePrefix("2001:db8::/32")}).Target(); got != "2001:db8::/32" {
		t.Errorf("target %q", got)
	}
}

func TestMode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{}
		r, stop := start(t, scripted("a", s))
		for n, protocol := range []string{"tcp", "udp", "", "tcp"} {
			e := block(n)
			if e.Protocol = protocol; n == 3 {
				e.Mode = "own"
			}
			r.Tell(e)
			synctest.Wait()
		}
		stop()
		var got []string
		for _, j := range s.jobs {
			got = append(got, j.events[0].Mode)
		}
		if diff := cmp.Diff([]string{"stcp", "sudp", "", "own"}, got); diff != "" {
			t.Errorf("modes (-want +got):\n%s", diff)
		}
	})
}

// BenchmarkTell tells four hooks whose queues are full, as in a flood.
func BenchmarkTell(b *testing.B) {
	r := &Runner{log: zap.NewNop(), wake: make(chan struct{}, workers)}
	for n := range 4 {
		s := new(slot)
		s.set(scripted(fmt.Sprint(n), &script{}))
		r.slots = append(r.slots, s)
	}
	for n := 0; b.Loop(); n++ {
		r.Tell(block(n))
	}
}

// TestPrepare holds what waits while a configuration is looked at and given up, and while another is taken over.
func TestPrepare(t *testing.T) {
	webhook := func(urls ...string) (cfg Config) {
		for _, url := range urls {
			cfg.Webhook = append(cfg.Webhook, Webhook{
				Common: Common{On: []On{Block}, Timeout: time.Second, Limit: Rate{100, time.Second}}, URL: url, Method: "POST",
			})
		}
		return cfg
	}
	r, err := New(webhook("http://127.0.0.1:9/a", "http://127.0.0.1:9/b"), zap.NewNop()) // does not run: all waits
	if err != nil {
		t.Fatal(err)
	}
	r.Tell(block(1))
	waiting := func() (n []int) {
		for _, s := range r.Stats() {
			n = append(n, s.Waiting)
		}
		return n
	}
	if p, err := r.Prepare(t.Context(), webhook("")); err == nil {
		t.Errorf("a wrong configuration is prepared: %v", p)
	}
	p, err := r.Prepare(t.Context(), webhook("http://127.0.0.1:9/c"))
	if err != nil {
		t.Fatal(err)
	}
	p.Abort()
	if diff := cmp.Diff([]int{1, 1}, waiting()); diff != "" {
		t.Errorf("what waits after a configuration is given up (-want +got):\n%s", diff)
	}
	p, err = r.Prepare(t.Context(), webhook("http://127.0.0.1:9/b", "http://127.0.0.1:9/c"))
	if err != nil {
		t.Fatal(err)
	}
	r.Tell(block(2))
	if err := p.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int{2, 0}, waiting()); diff != "" {
		t.Errorf("what waits after another is taken over (-want +got):\n%s", diff)
	}
}
