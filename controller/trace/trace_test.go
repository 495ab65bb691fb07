package trace

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
)

var (
	source = netip.MustParsePrefix("203.0.113.7/32")
	began  = time.Date(2026, 11, 24, 4, 47, 10, 0, time.UTC)
)

// probe is the nth touch, of port n, a second after the one before.
func probe(n int, outcome string) Probe {
	return Probe{
		Time: began.Add(time.Duration(n) * time.Second), Address: source.Addr(), Port: uint16(n),
		Protocol: "tcp", Kind: "syn", Outcome: outcome,
	}
}

func TestProbes(t *testing.T) {
	for name, tt := range map[string]struct {
		added   []Probe
		total   uint64
		first   int
		want    []int // ports
		outcome string
	}{
		"one":            {[]Probe{probe(1, "probe")}, 1, 1, []int{1}, "probe"},
		"another answer": {[]Probe{probe(1, "sentence"), probe(1, "block")}, 1, 1, []int{1}, "block"},
		"a late answer":  {[]Probe{probe(1, "sentence"), probe(2, "block"), probe(1, "block")}, 2, 1, []int{1, 2}, "block"},
		"out of order":   {[]Probe{probe(2, "probe"), probe(1, "probe"), probe(3, "probe")}, 3, 2, []int{1, 2, 3}, "probe"},
		"as many as fit": {probes(1, 16), 16, 1, ports(1, 16), "probe"},
		"one too many":   {probes(1, 17), 17, 1, ports(2, 17), "probe"},
		"many":           {probes(1, 100), 100, 1, ports(85, 100), "probe"},
	} {
		t.Run(name, func(t *testing.T) {
			l := New()
			for _, p := range tt.added {
				l.Add(source, p)
			}
			h, ok := l.Probes(source)
			if want := probe(tt.first, "").Time; !ok || h.Total != tt.total || !h.First.Equal(want) {
				t.Errorf("total %d since %v, %t, want %d since %v", h.Total, h.First, ok, tt.total, want)
			}
			var got []int
			for _, p := range h.Probes {
				got = append(got, int(p.Port))
				if p.Outcome != tt.outcome {
					t.Errorf("port %d: outcome %q, want %q", p.Port, p.Outcome, tt.outcome)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("ports (-want +got):\n%s", diff)
			}
		})
	}
}

func ports(first, last int) (all []int) {
	for n := first; n <= last; n++ {
		all = append(all, n)
	}
	return all
}

func probes(first, last int) (all []Probe) {
	for _, n := range ports(first, last) {
		all = append(all, probe(n, "probe"))
	}
	return all
}

// nth is the nth of many sources.
func nth(n int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}), 32)
}

// TestForgotten shows who makes room: not who was asked for, but who was not
// heard of for the longest time.
func TestForgotten(t *testing.T) {
	l := New()
	for n := range MaxSources {
		l.Add(nth(n), probe(1, "probe"))
		l.End(nth(n), Ending{began, "expired"})
	}
	l.Add(nth(0), probe(2, "probe"))
	l.Probes(nth(1))
	l.Ended(nth(0))
	l.Add(nth(MaxSources), probe(1, "probe"))
	l.End(nth(MaxSources), Ending{began, "expired"})
	for n, want := range map[int]bool{0: true, 1: false, 2: true, MaxSources: true} {
		if _, got := l.Probes(nth(n)); got != want {
			t.Errorf("the probes of the %dth source are remembered: %t, want %t", n, got, want)
		}
	}
	for n, want := range map[int]bool{0: false, 1: true, MaxSources: true} {
		if _, got := l.Ended(nth(n)); got != want {
			t.Errorf("the block of the %dth source is remembered: %t, want %t", n, got, want)
		}
	}
}

func TestEnded(t *testing.T) {
	l := New()
	if got, ok := l.Ended(source); ok {
		t.Errorf("%+v of an unknown source", got)
	}
	l.End(source, Ending{began, "expired"})
	want := Ending{began.Add(time.Hour), "operator"}
	l.End(source, want)
	if got, ok := l.Ended(source); !ok || got != want {
		t.Errorf("%+v, %t, want %+v", got, ok, want)
	}
}

// TestOwned shows that what was told does not change any more.
func TestOwned(t *testing.T) {
	l := New()
	l.Add(source, probe(1, "sentence"))
	before, _ := l.Probes(source)
	l.Add(source, probe(1, "block"))
	if got := before.Probes[0].Outcome; got != "sentence" {
		t.Errorf("outcome %q, want %q", got, "sentence")
	}
}

func TestTogether(t *testing.T) {
	l := New()
	var g errgroup.Group
	for range 4 {
		g.Go(func() error {
			for n := range 1000 {
				l.Add(nth(n%7), probe(n, "probe"))
				l.End(nth(n%7), Ending{began, "expired"})
				l.Probes(nth(n % 7))
				l.Ended(nth(n % 7))
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	for n := range 7 {
		if h, _ := l.Probes(nth(n)); len(h.Probes) != MaxProbes {
			t.Errorf("%d probes of the %dth source", len(h.Probes), n)
		}
	}
}

// BenchmarkAdd is a flood: each source has a probe or two and is forgotten.
func BenchmarkAdd(b *testing.B) {
	l := New()
	b.ReportAllocs()
	for n := range b.N {
		l.Add(nth(n%1000000), probe(n%60000, "probe"))
	}
}

// BenchmarkAddKnown is a source that goes on and on.
func BenchmarkAddKnown(b *testing.B) {
	l := New()
	b.ReportAllocs()
	for n := range b.N {
		l.Add(nth(n%1000), probe(n%60000, "probe"))
	}
}
