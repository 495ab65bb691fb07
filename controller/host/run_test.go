package host

import (
	"context"
	"errors"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// fakeKernel is a kernel with one gateway and no addresses.
type fakeKernel struct {
	mu        sync.Mutex // guards what follows
	gateway   netip.Addr
	took      time.Duration // how long a reading takes
	reads     int
	subs      []*fakeSub
	noAddrs   error
	noSub     error
	noWait    error
	cancelled int // readings that ended early
}

var _ kernel = (*fakeKernel)(nil)

func (k *fakeKernel) addresses(context.Context) ([]netip.Addr, []netip.Prefix, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return nil, onLink6(nil), k.noAddrs
}

func (k *fakeKernel) gateways(ctx context.Context) ([]netip.Addr, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.reads++
	took := k.took
	k.mu.Unlock()
	sleep(ctx, took)
	k.mu.Lock()
	if ctx.Err() != nil {
		k.cancelled++
		return nil, ctx.Err()
	}
	return []netip.Addr{k.gateway}, nil
}

func (k *fakeKernel) sockets(context.Context, []byte, func([]byte) error) error { return nil }

func (k *fakeKernel) subscribe() (subscription, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.noSub != nil {
		return nil, k.noSub
	}
	sub := &fakeSub{k: k, events: make(chan struct{}, 1), err: k.noWait}
	k.subs = append(k.subs, sub)
	return sub, nil
}

// change sets the gateway and tells the open subscription, if there is one.
func (k *fakeKernel) change(gateway string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.gateway = netip.MustParseAddr(gateway)
	for _, sub := range k.subs {
		if !sub.closed {
			select {
			case sub.events <- struct{}{}:
			default:
			}
		}
	}
}

// fakeSub is a subscription to a fakeKernel.
type fakeSub struct {
	k      *fakeKernel
	events chan struct{}
	err    error
	closed bool // guarded by k.mu
}

var _ subscription = (*fakeSub)(nil)

func (s *fakeSub) wait(ctx context.Context, d time.Duration) (bool, error) {
	if s.err != nil {
		return false, s.err
	}
	select {
	case <-s.events:
		return true, nil
	case <-ctx.Done():
	case <-time.After(d):
	}
	return false, nil
}

func (s *fakeSub) Close() error {
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	s.closed = true
	return nil
}

// bench is a Watcher of a fakeKernel, running in the bubble of a test.
type bench struct {
	*fakeKernel
	dir  string
	told []Facts // guarded by mu
	logs *observer.ObservedLogs
}

// inBubble runs fn with a Watcher whose Run has begun and is blocked, and ends it afterwards.
func inBubble(t *testing.T, k *fakeKernel, fn func(t *testing.T, b *bench)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zapcore.InfoLevel)
		k.gateway = netip.MustParseAddr("192.0.2.1")
		b := &bench{fakeKernel: k, dir: dir, logs: logs}
		w := New(zap.New(core), WithResolv(filepath.Join(dir, "resolv.conf")))
		w.kernel = k
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			done <- w.Run(ctx, func(f Facts) {
				k.mu.Lock()
				defer k.mu.Unlock()
				b.told = append(b.told, f)
			})
		}()
		synctest.Wait()
		fn(t, b)
		before := time.Now()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: want nil, got %v", err)
		}
		if took := time.Since(before); took != 0 {
			t.Errorf("Run ended %s after its context", took)
		}
		for i, sub := range k.subs {
			if !sub.closed {
				t.Errorf("subscription %d is still open", i)
			}
		}
	})
}

// pass lets time pass.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// calls returns what changed was told.
func (b *bench) calls() []Facts {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.told
}

// readings returns how often everything was read.
func (b *bench) readings() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.reads
}

// want compares what changed was told last, and how often.
func (b *bench) want(t *testing.T, calls int, gateway string) {
	t.Helper()
	told := b.calls()
	if calls != len(told) {
		t.Fatalf("want %d calls, got %d", calls, len(told))
	}
	if diff := cmp.Diff(addrs(gateway), told[calls-1].Gateways, exact); diff != "" {
		t.Errorf("gateways of call %d: (-want +got)\n%s", calls, diff)
	}
}

func TestRunTellsAtOnceAndOnChange(t *testing.T) {
	inBubble(t, &fakeKernel{}, func(t *testing.T, b *bench) {
		b.want(t, 1, "192.0.2.1")
		pass(10 * time.Second)
		b.change("192.0.2.2")
		pass(settle - time.Millisecond)
		b.want(t, 1, "192.0.2.1")
		pass(time.Millisecond)
		b.want(t, 2, "192.0.2.2")
		pass(10 * time.Second)
		b.change("192.0.2.2") // something else changed
		pass(10 * time.Second)
		b.want(t, 2, "192.0.2.2")
		if want, got := 3, b.readings(); want != got {
			t.Errorf("readings: want %d, got %d", want, got)
		}
	})
}

func TestRunSettles(t *testing.T) {
	inBubble(t, &fakeKernel{}, func(t *testing.T, b *bench) {
		pass(10 * time.Second)
		for _, gateway := range []string{"192.0.2.2", "192.0.2.3", "192.0.2.4"} {
			b.change(gateway)
			pass(settle / 4)
		}
		pass(settle)
		b.want(t, 2, "192.0.2.4")
	})
}

func TestRunIdle(t *testing.T) {
	inBubble(t, &fakeKernel{}, func(t *testing.T, b *bench) {
		pass(time.Hour)
		if want, got := 1, b.readings(); want != got {
			t.Errorf("readings in an idle hour: want %d, got %d", want, got)
		}
	})
}

func TestRunFlood(t *testing.T) {
	tests := []struct {
		name  string
		took  time.Duration
		reads int // in a minute of changes every millisecond
	}{
		{"quick", 0, 60},
		{"full table", time.Second, 3},
		{"slower still", 10 * time.Second, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, &fakeKernel{took: tt.took}, func(t *testing.T, b *bench) {
				for i := range 60_000 - 1 {
					b.change([]string{"192.0.2.1", "192.0.2.2"}[i%2])
					pass(time.Millisecond)
				}
				if got := b.readings(); tt.reads != got {
					t.Errorf("readings: want %d, got %d", tt.reads, got)
				}
				b.change("192.0.2.3")
				pass(2 * maxInterval)
				b.want(t, len(b.calls()), "192.0.2.3")
			})
		})
	}
}

func TestRunNoticesResolvers(t *testing.T) {
	inBubble(t, &fakeKernel{}, func(t *testing.T, b *bench) {
		pass(time.Minute)
		write(t, filepath.Join(b.dir, "resolv.conf"), "nameserver 192.0.2.53\n")
		pass(statInterval + settle)
		b.want(t, 2, "192.0.2.1")
		if diff := cmp.Diff(addrs("192.0.2.53"), b.calls()[1].Resolvers, exact); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	})
}

// messages are the log lines so far.
func (b *bench) messages() []string {
	var all []string
	for _, e := range b.logs.All() {
		all = append(all, e.Level.String()+" "+e.Message)
	}
	return all
}

const (
	degraded = "warn host facts are incomplete"
	restored = "info host facts are complete again"
)

func TestRunErrors(t *testing.T) {
	broken := errors.New("broken")
	tests := []struct {
		name string
		set  func(*fakeKernel, error)
	}{
		{"addresses", func(k *fakeKernel, err error) { k.noAddrs = err }},
		{"subscription", func(k *fakeKernel, err error) { k.noSub = err }},
		{"waiting", func(k *fakeKernel, err error) { k.noWait = err }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k := &fakeKernel{}
			tt.set(k, broken)
			inBubble(t, k, func(t *testing.T, b *bench) {
				b.want(t, 1, "192.0.2.1") // what can be read counts at once
				if diff := cmp.Diff(prefixes("fe80::/10"), b.calls()[0].OnLink6, exact); diff != "" {
					t.Errorf("prefixes: (-want +got)\n%s", diff)
				}
				pass(5 * time.Minute)
				if got := b.readings(); got < 10 || got > 20 {
					t.Errorf("readings in five minutes: want 10 to 20, got %d", got)
				}
				if diff := cmp.Diff([]string{degraded}, b.messages()); diff != "" {
					t.Errorf("log: (-want +got)\n%s", diff)
				}
				b.change("192.0.2.2")
				pass(maxBackoff + settle)
				b.want(t, 2, "192.0.2.2")
				k.mu.Lock()
				tt.set(k, nil)
				k.mu.Unlock()
				pass(maxBackoff + statInterval + settle)
				b.change("192.0.2.3")
				pass(settle)
				b.want(t, 3, "192.0.2.3")
				if diff := cmp.Diff([]string{degraded, restored}, b.messages()); diff != "" {
					t.Errorf("log: (-want +got)\n%s", diff)
				}
			})
		})
	}
}

func TestRunEndsInAReading(t *testing.T) {
	k := &fakeKernel{took: time.Minute}
	inBubble(t, k, func(t *testing.T, b *bench) { pass(time.Second) })
	if k.cancelled != 1 {
		t.Errorf("readings that ended early: want 1, got %d", k.cancelled)
	}
}

func TestReadKeepsWhatItCannotRead(t *testing.T) {
	dir := t.TempDir()
	conf := filepath.Join(dir, "resolv.conf")
	write(t, conf, "nameserver 192.0.2.53\n")
	k := &fakeKernel{gateway: netip.MustParseAddr("192.0.2.1")}
	w := New(zap.NewNop(), WithResolv(conf))
	w.kernel = k
	if _, err := w.Read(); err != nil {
		t.Fatal(err)
	}
	k.noAddrs, k.gateway = errors.New("broken"), netip.MustParseAddr("192.0.2.2")
	w.files.conf = dir // not a file
	got, err := w.Read()
	if !errors.Is(err, k.noAddrs) {
		t.Errorf("want %v, got %v", k.noAddrs, err)
	}
	want := Facts{Gateways: addrs("192.0.2.2"), Resolvers: addrs("192.0.2.53"), OnLink6: prefixes("fe80::/10")}
	if diff := cmp.Diff(want, got, exact); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
