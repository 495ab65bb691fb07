package tally

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var start = time.Date(2026, 11, 24, 15, 20, 0, 0, time.UTC)

var equal = gocmp.Options{cmpopts.EquateComparable(netip.Prefix{}), gocmp.AllowUnexported(Row[Port]{}, Row[netip.Prefix]{}), cmpopts.EquateEmpty()}

// TestHourCounts shows what each event counts as.
func TestHourCounts(t *testing.T) {
	probes := func(n uint64) [len(Kinds)]uint64 { return [len(Kinds)]uint64{0: n} }
	operator := Event{Time: start, What: Block, Blocked: netip.MustParsePrefix("203.0.113.0/24"), Origin: "operator", Comment: "operator: abuse desk"}
	strike := touched(Block, start, "192.0.2.7", 23)
	strike.Strikes, strike.Evidence, strike.Kind, strike.Origin = 5, "unproven", "syn", "kernel"
	odd := touched(Probe, start, "192.0.2.7", 23)
	odd.Kind = "unknown"
	for name, tt := range map[string]struct {
		event Event
		want  Counts
	}{
		"probe":    {touched(Probe, start, "192.0.2.7", 23), Counts{Probes: 1, KindProbes: probes(1)}},
		"repeat":   {touched(Repeat, start, "192.0.2.7", 23), Counts{Probes: 1, Repeated: 1, KindProbes: probes(1)}},
		"extend":   {touched(Extend, start, "192.0.2.7", 23), Counts{Probes: 1, Extended: 1, KindProbes: probes(1)}},
		"would":    {touched(Would, start, "192.0.2.7", 23), Counts{Probes: 1, Would: 1, KindProbes: probes(1)}},
		"run":      {touched(Run, start, "192.0.2.7", 23), Counts{Probes: 1, Run: 1, KindProbes: probes(1)}},
		"ignored":  {touched(Ignore, start, "192.0.2.7", 23), Counts{Ignored: 1}},
		"peer":     {touched(Exempt, start, "192.0.2.7", 23), Counts{Exempted: 1}},
		"ended":    {touched(Unblock, start, "192.0.2.7", 23), Counts{Ended: 1}},
		"doubt":    {Event{Time: start, What: Doubt}, Counts{Doubts: 1}},
		"heal":     {Event{Time: start, What: Heal}, Counts{Heals: 1}},
		"odd kind": {odd, Counts{Probes: 1, KindProbes: [len(Kinds)]uint64{7: 1}}},
		"block": {touched(Block, start, "192.0.2.7", 23), Counts{Probes: 1, Blocks: 1, Proven: 1, KindProbes: probes(1), KindBlocks: probes(1),
			Origins: [len(Origins)]uint64{0: 1}, Strikes: [4]uint64{0: 1}}},
		"fifth strike": {strike, Counts{Probes: 1, Blocks: 1, Unproven: 1, Again: 1, KindProbes: [len(Kinds)]uint64{1: 1}, KindBlocks: [len(Kinds)]uint64{1: 1},
			Origins: [len(Origins)]uint64{1: 1}, Strikes: [4]uint64{3: 1}}},
		"operator": {operator, Counts{Blocks: 1, Origins: [len(Origins)]uint64{2: 1}, Strikes: [4]uint64{0: 1}}},
		"nothing":  {Event{Time: start}, Counts{}},
	} {
		var h hour
		h.add(&tt.event)
		if diff := gocmp.Diff(tt.want, h.counts); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// TestRecord shows what is kept, and that it is read as it was written.
func TestRecord(t *testing.T) {
	var h hour
	for _, e := range []Event{
		touched(Probe, start, "192.0.2.7", 23), touched(Block, start.Add(time.Second), "192.0.2.7", 24),
		touched(Would, start.Add(2*time.Second), "2001:db8:1:2:3::9", 23),
	} {
		h.add(&e)
	}
	var total Total
	total.Add(h.record())
	value, err := total.encode()
	if err != nil {
		t.Fatal(err)
	}
	var again Total
	if err := again.addEncoded(value); err != nil {
		t.Fatal(err)
	}
	at, p := start.Unix(), netip.MustParsePrefix
	want := Record{
		Counts: h.counts,
		Ports: List[Port]{Rows: []Row[Port]{
			{Key: Port{"tcp", 23}, Weight: 2, Would: 1, Last: at + 2}, {Key: Port{"tcp", 24}, Weight: 1, Blocks: 1, Last: at + 1},
		}},
		Sources: List[netip.Prefix]{Rows: []Row[netip.Prefix]{
			{Key: p("192.0.2.7/32"), Weight: 2, Blocks: 1, Last: at + 1}, {Key: p("2001:db8:1:2::/64"), Weight: 1, Would: 1, Last: at + 2},
		}},
		Networks: List[netip.Prefix]{Rows: []Row[netip.Prefix]{
			{Key: p("192.0.2.0/24"), Weight: 2, Blocks: 1, Last: at + 1}, {Key: p("2001:db8:1::/48"), Weight: 1, Would: 1, Last: at + 2},
		}},
		Offenders: List[netip.Prefix]{Rows: []Row[netip.Prefix]{
			{Key: p("192.0.2.7/32"), Weight: 1, Blocks: 1, Last: at + 1, Why: "tcp/23 connect"},
			{Key: p("2001:db8:1:2::/64"), Weight: 1, Would: 1, Last: at + 2, Why: "tcp/23 connect"},
		}},
	}
	if diff := gocmp.Diff(want, again.Record(100), equal); diff != "" {
		t.Errorf("record (-want +got):\n%s", diff)
	}
	if err := again.addEncoded([]byte("{")); err == nil {
		t.Error("half a record is read")
	}
	if err := again.addEncoded([]byte(`{"ports":{"rows":[{"k":"tcp"}]}}`)); err == nil {
		t.Error("a record with half a port is read")
	}
}

// TestSketchBound shows that any number of keys are counted in bounded memory,
// that those which come often are found among them, and that no number is too high.
func TestSketchBound(t *testing.T) {
	var s sketch[int]
	truth := make(map[int]uint64)
	random := rand.New(rand.NewPCG(1, 2))
	for n := range 100_000 {
		key := 1000 + n
		if n%5 == 0 { // a thousand times each, where any that comes 391 times is counted for certain
			key = random.IntN(20)
		}
		truth[key]++
		s.add(key, 1)
	}
	l := s.list()
	if len(l.Rows) != counted || len(s.rows) != counted || !l.Cut {
		t.Errorf("%d rows and %d keys, cut %v, want %d", len(l.Rows), len(s.rows), l.Cut, counted)
	}
	often := 0
	for _, r := range l.Rows {
		if r.Weight > truth[r.Key] || r.Weight == 0 {
			t.Errorf("key %d has weight %d, and came %d times", r.Key, r.Weight, truth[r.Key])
		}
		often += int(one(r.Key < 20))
	}
	if often != 20 {
		t.Errorf("%d of 20 keys that come often are found", often)
	}
}

// TestSumCut shows that rows which are left out are told of.
func TestSumCut(t *testing.T) {
	var s sum[int]
	s.add(List[int]{Rows: []Row[int]{{Key: 1, Weight: 5}, {Key: 2, Weight: 7}}}, cmp.Compare)
	if l := s.top(2, cmp.Compare); l.Rest != 0 || len(l.Rows) != 2 || l.Rows[0].Key != 2 {
		t.Errorf("top 2 = %+v", l)
	}
	if l := s.top(1, cmp.Compare); l.Rest != 1 || l.Cut || len(l.Rows) != 1 {
		t.Errorf("top 1 = %+v", l)
	}
}

// TestSumBound shows that a sum of any number of keys takes little room, and keeps those that come most often.
func TestSumBound(t *testing.T) {
	var s sum[int]
	most := 0
	for n := range 1000 {
		l := List[int]{Rows: []Row[int]{{Key: -1, Weight: 2}}}
		for i := range kept {
			l.Rows = append(l.Rows, Row[int]{Key: n*kept + i, Weight: 1})
		}
		s.add(l, cmp.Compare)
		most = max(most, len(s.rows))
	}
	if most > 2*summed {
		t.Errorf("%d keys are summed up at once, want %d at most", most, 2*summed)
	}
	l := s.top(1, cmp.Compare)
	if !l.Cut || l.Rest < summed-1 || l.Rows[0].Key != -1 || l.Rows[0].Weight != 2000 {
		t.Errorf("top 1 = %+v", l)
	}
}

// TestKept shows that rows which are not kept are told of.
func TestKept(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var h hour
	for range kept + 1 {
		e := worst(random, start)
		h.add(&e)
	}
	var total, again Total
	total.Add(h.record())
	value, err := total.encode()
	if err == nil {
		err = again.addEncoded(value)
	}
	if err != nil {
		t.Fatal(err)
	}
	r := again.Record(10)
	if !r.Sources.Cut || !r.Networks.Cut || !r.Offenders.Cut || r.Sources.Rest != kept-10 || r.Counts.Blocks != kept+1 {
		t.Errorf("%+v", r)
	}
}

func TestCutText(t *testing.T) {
	for text, want := range map[string]string{
		"": "", strings.Repeat("x", 120): strings.Repeat("x", 120), strings.Repeat("x", 121): strings.Repeat("x", 120),
		strings.Repeat("x", 119) + "üü": strings.Repeat("x", 119), strings.Repeat("\x80", 130): "",
	} {
		if got := cutText(text); got != want {
			t.Errorf("cutText(%q) = %q, want %q", text, got, want)
		}
	}
}

// worst is an event of a source that was never seen before, on a port likewise.
func worst(random *rand.Rand, at time.Time) Event {
	var a [16]byte
	a[0] = 0x2a
	for i := 1; i < len(a); i++ {
		a[i] = byte(random.Uint32())
	}
	source := netip.AddrFrom16(a)
	port := Port{"tcp", uint16(10000 + random.IntN(50000))}
	return Event{
		Time: at, What: Block, Source: source, Port: port, Kind: "connect", Blocked: within(source, 32, 64),
		Evidence: "proven", Origin: "decoy", Strikes: 100, Comment: fmt.Sprintf("%s connect x101", port),
	}
}

// BenchmarkAdd is what an event costs when each source, port and network is a new one.
func BenchmarkAdd(b *testing.B) {
	random := rand.New(rand.NewPCG(1, 2))
	events := make([]Event, 65536)
	for i := range events {
		events[i] = worst(random, start)
	}
	for name, what := range map[string]What{"block": Block, "probe": Probe} {
		b.Run(name, func(b *testing.B) {
			k := New(newFakeStore(), noDrops, nil)
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				e := events[n&0xFFFF]
				e.What = what
				k.Add(e)
				n++
			}
		})
	}
}
