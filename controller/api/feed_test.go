package api

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap/zaptest"
	"golang.org/x/sync/errgroup"

	"nftsentry/state"
)

// watch collects events until there are want of them.
func watch(t *testing.T, s served, filter EventFilter, want int) func() []Event {
	t.Helper()
	before := s.feed.Readers()
	ctx, cancel := context.WithCancel(t.Context())
	var got []Event
	var g errgroup.Group
	g.Go(func() error {
		return NewClient(s.path).Watch(ctx, filter, func(e Event) error {
			if got = append(got, e); len(got) == want {
				cancel()
			}
			return nil
		})
	})
	until(t, "the reader is in", func() bool { return s.feed.Readers() > before })
	return func() []Event {
		if err := g.Wait(); err != nil {
			t.Errorf("Watch: %v", err)
		}
		cancel()
		return got
	}
}

func TestWatch(t *testing.T) {
	s := serveAs(t, zaptest.NewLogger(t), fakeGuard{}, nil)
	if s.feed.Readers() > 0 {
		t.Error("there is a reader before the first")
	}
	block := BlockOf(state.Block{Source: netip.MustParsePrefix("2001:db8::/64"), Since: since, Until: since.Add(time.Hour)})
	probe := Event{
		Time: time.Date(2026, 11, 24, 3, 47, 10, 123456000, time.UTC), Event: "probe", Source: "203.0.113.7", Port: 23,
		Protocol: "tcp", Kind: "syn", Evidence: "unproven",
	}
	blocked := Event{Time: probe.Time, Event: "block", Source: "2001:db8::7", Port: 79, Protocol: "tcp", Kind: "connect", Evidence: "proven", Block: &block, Seconds: 0.00014}
	healed := Event{Time: probe.Time, Event: "heal", Reason: "our table was made again"}
	all := watch(t, s, EventFilter{}, 3)
	some := watch(t, s, EventFilter{Events: []string{"probe", "block"}, Sources: []netip.Prefix{netip.MustParsePrefix("2001:db8::/32")}, Ports: []uint16{79}, Kinds: []string{"connect"}}, 1)
	for _, e := range []Event{probe, blocked, healed} {
		s.feed.Publish(e)
	}
	if diff := cmp.Diff([]Event{probe, blocked, healed}, all()); diff != "" {
		t.Errorf("all (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]Event{blocked}, some()); diff != "" {
		t.Errorf("some (-want +got):\n%s", diff)
	}
	until(t, "the readers are gone", func() bool { return s.feed.Readers() == 0 })
}

// TestWatchSlow has a reader that rests: others lose nothing, and it is told how
// many events it has lost.
func TestWatchSlow(t *testing.T) {
	s := serveAs(t, zaptest.NewLogger(t), fakeGuard{}, nil)
	conn, err := net.Dial("unix", s.path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: nftsentry\r\n\r\n", eventsPath); err != nil {
		t.Fatal(err)
	}
	until(t, "the reader is in", func() bool { return s.feed.Readers() > 0 })
	const many = 20000
	began := time.Now()
	for i := range many {
		s.feed.Publish(Event{Event: "probe", Source: "203.0.113.7", Reason: strings.Repeat("x", 100), Port: uint16(i)})
	}
	if took := time.Since(began); took > patience {
		t.Errorf("Publish waited for a reader: %v", took)
	}
	quick := watch(t, s, EventFilter{}, 1)
	s.feed.Publish(Event{Event: "heal"})
	if got := quick(); len(got) != 1 {
		t.Errorf("the quick reader has got %d events, want 1", len(got))
	}
	told := 0
	for lines := bufio.NewScanner(conn); told == 0 && lines.Scan(); {
		if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		_, _ = fmt.Sscanf(lines.Text()[max(0, strings.Index(lines.Text(), `"lost":`)):], `"lost":%d`, &told)
	}
	if told == 0 || told >= many {
		t.Errorf("told of %d lost events, want some of %d", told, many)
	}
}

// TestWatchMany shows that too many readers are refused, and that they do not
// keep the daemon from ending.
func TestWatchMany(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := serveAs(t, zaptest.NewLogger(t), fakeGuard{}, nil)
	var g errgroup.Group
	for range maxReaders {
		g.Go(func() error { return NewClient(s.path).Watch(ctx, EventFilter{}, func(Event) error { return nil }) })
	}
	until(t, "all are in", func() bool { return s.feed.Readers() == maxReaders })
	err := NewClient(s.path).Watch(ctx, EventFilter{}, func(Event) error { return nil })
	if want := "16 watch already: end one of them first"; err == nil || err.Error() != want {
		t.Errorf("one too many: %v, want %s", err, want)
	}
	ask(t, NewClient(s.path))
	cancel()
	if err := g.Wait(); err != nil {
		t.Errorf("Watch: %v", err)
	}
}

// TestWatchEnd has the daemon end while somebody watches.
func TestWatchEnd(t *testing.T) {
	s := serveAs(t, zaptest.NewLogger(t), fakeGuard{}, nil)
	var g errgroup.Group
	var all, some []string
	g.Go(func() error {
		return NewClient(s.path).Watch(t.Context(), EventFilter{}, func(e Event) error { all = append(all, e.Event); return nil })
	})
	g.Go(func() error {
		filter := EventFilter{Events: []string{"heal"}}
		return NewClient(s.path).Watch(t.Context(), filter, func(e Event) error { some = append(some, e.Event); return nil })
	})
	until(t, "the readers are in", func() bool { return s.feed.Readers() == 2 })
	s.feed.Publish(Event{Event: "heal"})
	began := time.Now()
	s.end()
	if took := time.Since(began); took > patience/2 {
		t.Errorf("the end took %v", took)
	}
	if err := g.Wait(); !errors.Is(err, ErrNoDaemon) {
		t.Errorf("Watch: %v, want %v", err, ErrNoDaemon)
	}
	if diff := cmp.Diff([][]string{{"heal", "stop"}, {"heal"}}, [][]string{all, some}); diff != "" {
		t.Errorf("events until the end (-want +got):\n%s", diff)
	}
}

func TestParseEventFilter(t *testing.T) {
	for _, tt := range []struct {
		events, kinds, sources, ports []string
		want                          string
	}{
		{events: []string{"nope"}, want: `event "nope": must be one of probe, exempted, ignored, repeated, sentence, block, extend, unblock, would-block, run, doubt, trust, heal, reload, panic, resume, stop, lost`},
		{kinds: []string{"SYN"}, want: `kind "SYN": must be one of connect, syn, fin, null, xmas, syn-fin, udp`},
		{sources: []string{"here"}, want: `source: "here" is not a source: write an address such as 192.0.2.7 or a prefix such as 192.0.2.0/24`},
		{ports: []string{"0"}, want: `port "0": must be from 1 to 65535`},
		{ports: []string{"65536"}, want: `port "65536": must be from 1 to 65535`},
		{ports: []string{"ssh"}, want: `port "ssh": must be from 1 to 65535`},
	} {
		_, err := ParseEventFilter(tt.events, tt.kinds, tt.sources, tt.ports)
		if err == nil || err.Error() != tt.want {
			t.Errorf("%+v: %v, want %s", tt, err, tt.want)
		}
	}
	f, err := ParseEventFilter([]string{"probe"}, []string{"udp"}, []string{"192.0.2.0/24"}, []string{"53"})
	if err != nil {
		t.Fatal(err)
	}
	q := f.query()
	again, err := ParseEventFilter(q[eventParam], q[kindParam], q[sourceParam], q[portParam])
	if err != nil || !cmp.Equal(f, again, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })) {
		t.Errorf("%+v on the wire and back: %+v, %v", f, again, err)
	}
}

func TestEventFilterSource(t *testing.T) {
	f := EventFilter{Sources: []netip.Prefix{netip.MustParsePrefix("2001:db8::7/128"), netip.MustParsePrefix("192.0.2.0/24")}}
	for source, want := range map[string]bool{
		"2001:db8::/64": true, "2001:db8::7": true, "2001:db8::8": false, "192.0.2.255": true, "192.0.3.0": false, "": false,
	} {
		if got := f.wants(Event{Event: "block", Source: source}); got != want {
			t.Errorf("%q wanted: %v, want %v", source, got, want)
		}
	}
	if !f.wants(Event{Event: lostName}) {
		t.Error("what is lost is not told")
	}
}
