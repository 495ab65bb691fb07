package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	_ "time/tzdata" // the zone of the tests is one that is set in spring and autumn

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"

	"nftsentry/controller/api"
	"nftsentry/controller/tally"
	"nftsentry/state"
)

// berlin is the zone of the tests.
var berlin = sync1(time.LoadLocation("Europe/Berlin"))

func sync1(l *time.Location, err error) *time.Location {
	if err != nil {
		panic(err)
	}
	return l
}

// now is when the reports of the tests are made: a Tuesday afternoon.
var now = time.Date(2026, 11, 24, 15, 20, 31, 0, berlin)

// A recorder has a store, to which it writes what happens.
type recorder struct {
	t     testing.TB
	store *state.Store
	keep  *tally.Keeper
	drops tally.Drops
}

func newRecorder(t testing.TB, dir string) *recorder {
	t.Helper()
	r := &recorder{t: t}
	var err error
	if r.store, err = state.Open(dir, zap.NewNop()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.store.Close() })
	r.keep = tally.New(r.store, func(context.Context) (tally.Drops, error) { return r.drops, nil }, zap.NewNop())
	r.store.SaveTally(map[string][]byte{"since": []byte("2026-01-01T00:00:00Z")})
	return r
}

// scans are what the sources of a noisy network do, in so many days up to now.
func (r *recorder) scans(days int) {
	random := rand.New(rand.NewPCG(7, 11))
	ports := []uint16{23, 23, 23, 5555, 2323, 8545, 1080, 111, 79, 2000}
	kinds := []string{"connect", "connect", "connect", "syn", "syn", "null", "xmas", "udp"}
	for hour := range days * 24 {
		at := now.Truncate(time.Hour).Add(-time.Duration(hour) * time.Hour)
		for n := range random.IntN(6) + 6*((hour/5)%2) {
			kind := kinds[random.IntN(len(kinds))]
			e := tally.Event{
				Time: at.Add(time.Duration(n) * time.Minute), What: tally.Block, Kind: kind, Evidence: "proven", Origin: "decoy",
				Source: netip.AddrFrom4([4]byte{198, 51, byte(100 + random.IntN(3)), byte(random.IntN(40))}),
				Port:   tally.Port{Protocol: "tcp", Number: ports[random.IntN(len(ports))]}, Strikes: max(0, random.IntN(7)-3),
			}
			if random.IntN(9) == 0 {
				e.Source = netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 0, byte(random.IntN(3)), 0, byte(random.IntN(3)), 15: 1})
			}
			if kind != "connect" {
				e.Evidence, e.Origin = "unproven", "kernel"
			}
			e.Blocked = netip.PrefixFrom(e.Source, e.Source.BitLen())
			e.Comment = fmt.Sprintf("%s %s", e.Port, kind)
			r.keep.Add(e)
			for range random.IntN(4) {
				e.What = tally.Probe
				r.keep.Add(e)
			}
		}
		r.rest(at, hour)
		r.keep.Write(context.Background())
	}
}

// rest is what happens now and then.
func (r *recorder) rest(at time.Time, hour int) {
	a := netip.MustParseAddr("192.0.2.10")
	e := tally.Event{Time: at, What: tally.Ignore, Source: a, Kind: "syn", Port: tally.Port{Protocol: "tcp", Number: 23}}
	switch hour % 7 {
	case 1:
		r.keep.Add(e)
	case 2:
		e.What = tally.Exempt
		r.keep.Add(e)
	case 3:
		r.keep.Add(tally.Event{Time: at, What: tally.Heal})
	case 4:
		r.keep.Add(tally.Event{Time: at, What: tally.Doubt})
	case 5:
		r.keep.Add(tally.Event{Time: at, What: tally.Block, Blocked: netip.MustParsePrefix("203.0.113.0/24"), Origin: "operator",
			Comment: `operator: <script>alert("x")</script> & 'more'`})
	}
}

// report sums up a period, as if it were now.
func (r *recorder) report(p period) api.Report {
	r.t.Helper()
	out, err := readReport(r.store, p.ReportRequest)
	if err != nil {
		r.t.Fatal(err)
	}
	out.Host, out.Mode, out.Live, out.Generated = "www1.example.org", "enforce", 14, now.UTC().Truncate(time.Second)
	return out
}

// dropped adds packets to the hours of a report: the counters are read by the clock, which stands still here.
func dropped(r *api.Report) {
	for i := range r.Parts {
		c := &r.Parts[i].Totals
		c.Packets, c.Bytes = c.Blocks*313, c.Blocks*313*60
		r.Totals.Packets, r.Totals.Bytes = r.Totals.Packets+c.Packets, r.Totals.Bytes+c.Bytes
	}
	r.Before.Totals.Packets, r.Before.Totals.Bytes = 51_200, 3_072_000
}

// last is the period of a flag.
func last(t testing.TB, flag string, at time.Time) period {
	t.Helper()
	p, err := lastPeriod(flag, at)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestReportGolden compares reports of recorded hours in all their forms.
func TestReportGolden(t *testing.T) {
	rec := newRecorder(t, t.TempDir())
	rec.scans(70)
	for _, flag := range []string{"day", "week", "month"} {
		p := last(t, flag, now)
		r := rec.report(p)
		dropped(&r)
		for form, write := range map[string]func(*bytes.Buffer) error{
			"txt":  func(b *bytes.Buffer) error { return newReportView(r, p, berlin, textRows).text(b) },
			"html": func(b *bytes.Buffer) error { return newReportView(r, p, berlin, htmlRows).html(b) },
			"json": func(b *bytes.Buffer) error { return (&output{data: b}).json(r) },
		} {
			if form == "json" && flag != "day" {
				continue
			}
			var b bytes.Buffer
			if err := write(&b); err != nil {
				t.Fatal(err)
			}
			golden(t, filepath.Join("testdata", "report-"+flag+"."+form), b.String())
		}
	}
}

// crowded is a report of the longest names and numbers, while nobody is blocked.
func crowded(p period) api.Report {
	const many = 9_876_543
	host := strings.Repeat("a-rather-long-label.", 5) + "example.org"
	r := api.Report{
		Host: host, Mode: "observe", Generated: now.UTC(), Since: now.Add(-10 * time.Hour).UTC(), From: p.Edges[0].UTC(), To: now.UTC(), Unread: 1,
		Totals: api.ReportCounts{Probes: many, Blocks: many, Proven: many / 2, Unproven: many / 3, Would: many, Packets: many, Bytes: many << 20, Ignored: many, Peers: many},
	}
	for i, edge := range p.Edges[1:] {
		n := uint64(many / (i + 1))
		c := api.ReportCounts{Probes: n, Blocks: n, Proven: n / 2, Unproven: n / 3, Would: n, Packets: n, Ignored: n}
		r.Parts = append(r.Parts, api.ReportPart{From: p.Edges[i].UTC(), To: edge.UTC(), Totals: c})
	}
	row := api.ReportRow{Name: "2001:db8:1234:5678::/64", Probes: many, Blocks: many, Would: many, Strikes: 12345, Last: now.UTC(), Comment: "operator: " + strings.Repeat("Wm", 55)}
	for range 3 {
		for _, l := range []*api.ReportList{&r.Ports, &r.Sources, &r.Networks, &r.Offenders} {
			l.Rows, l.Others, l.More = append(l.Rows, row), 12345, true
		}
	}
	r.Kinds, r.Origins = []api.ReportKind{{Kind: "connect", Probes: many, Blocks: many}}, []api.ReportOrigin{{Origin: "operator", Blocks: many}}
	r.Strikes = []api.ReportStrike{{Strikes: 0, Blocks: many}}
	return r
}

// TestReportCrowded compares the page of a report in which all is long.
func TestReportCrowded(t *testing.T) {
	p := last(t, "day", now)
	var page bytes.Buffer
	if err := newReportView(crowded(p), p, berlin, htmlRows).html(&page); err != nil {
		t.Fatal(err)
	}
	golden(t, filepath.Join("testdata", "report-crowded.html"), page.String())
}

// hostile is a report in which all that others name is meant to break out.
func hostile() api.Report {
	evil := `</title></style></td>"'><script>alert(1)</script><img src=x onerror=alert(1)>` + "\x1b[2J\u202e\n\xff"
	rows := api.ReportList{Rows: []api.ReportRow{{Name: evil, Probes: 1, Blocks: 1, Would: 1, Comment: evil}}}
	return api.Report{
		Host: evil, Mode: evil, Since: now.UTC(), From: now.Add(-time.Hour).UTC(), To: now.UTC(), Generated: now.UTC(),
		Totals: api.ReportCounts{Probes: 1, Blocks: 1, Packets: 1, Bytes: 1},
		Parts:  []api.ReportPart{{From: now.Add(-time.Hour).UTC(), To: now.UTC(), Totals: api.ReportCounts{Probes: 1, Blocks: 1}}},
		Kinds:  []api.ReportKind{{Kind: evil, Probes: 1}}, Origins: []api.ReportOrigin{{Origin: evil, Blocks: 1}},
		Ports: rows, Sources: rows, Networks: rows, Offenders: rows,
	}
}

// TestReportHostile shows that what others name stays text, in a browser and on a terminal.
func TestReportHostile(t *testing.T) {
	v := newReportView(hostile(), last(t, "day", now), berlin, htmlRows)
	var page, text bytes.Buffer
	if err := errors.Join(v.html(&page), v.text(&text)); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"<script", "<img", "</td>\"", "onerror=alert(1)>"} {
		if strings.Contains(page.String(), bad) {
			t.Errorf("the page has %q", bad)
		}
	}
	if n := strings.Count(page.String(), "</title></style>"); n != 0 {
		t.Errorf("the page is broken out of %d times", n)
	}
	if strings.Count(page.String(), "&lt;script&gt;") < 7 {
		t.Error("the names are not on the page")
	}
	for form, b := range map[string]string{"page": page.String(), "text": text.String()} {
		if strings.ContainsAny(b, "\x1b\u202e") || !utf8.ValidString(b) {
			t.Errorf("the %s has what a terminal or a browser obeys: %q", form, b)
		}
	}
	if !strings.Contains(text.String(), "<script>") {
		t.Error("the names are not in the text")
	}
}

// TestReportSelfContained shows that the page needs nothing from outside and runs nothing.
func TestReportSelfContained(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("testdata", "report-day.html"))
	if err != nil {
		t.Fatal(err)
	}
	if found := regexp.MustCompile(`(?i)https?:|<script|<link|@import|url\(|<iframe|<object|<form| on[a-z]+=|\bsrc=|\bhref=`).FindAll(page, -1); len(found) != 0 {
		t.Errorf("the page has %q", found)
	}
}

// TestReportQuiet is about a host where nothing has happened.
func TestReportQuiet(t *testing.T) {
	rec := newRecorder(t, t.TempDir())
	p := last(t, "day", now)
	var text bytes.Buffer
	r := rec.report(p)
	if err := newReportView(r, p, berlin, textRows).text(&text); err != nil {
		t.Fatal(err)
	}
	want := `nftsentry report of www1.example.org
Mon 23 Nov 2026 16:00 to Tue 24 Nov 2026 15:20 CET

Quiet: no tripwire was touched, and nobody was blocked.
`
	if diff := cmp.Diff(want, text.String()); diff != "" {
		t.Errorf("text (-want +got):\n%s", diff)
	}
	var page bytes.Buffer
	if err := newReportView(r, p, berlin, htmlRows).html(&page); err != nil || strings.Contains(page.String(), "<svg") {
		t.Errorf("the page of a quiet day has charts, or %v", err)
	}
}

// TestReportJSON shows that all lists are there when nothing has happened, so that programs need not look.
func TestReportJSON(t *testing.T) {
	rec := newRecorder(t, t.TempDir())
	data, err := json.Marshal(rec.report(last(t, "month", now)))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(data), ":null") {
		t.Errorf("null in %s", data)
	}
}

// TestReportForgotten shows that nothing is compared with a time of which counts are forgotten.
func TestReportForgotten(t *testing.T) {
	for since, want := range map[string]string{"190d": "", "250d": "Counts go back to Mon 20 Oct 2025 16:20, so that there is nothing to compare with."} {
		p, err := spanPeriod(since, "", now)
		if err != nil {
			t.Fatal(err)
		}
		r := hostile()
		r.Mode, r.Since, r.Before.From = "enforce", now.AddDate(-3, 0, 0), p.From
		v := newReportView(r, p, berlin, textRows)
		if got := strings.Join(v.Notes, " "); got != want || (v.Before == "") != (want != "") {
			t.Errorf("since %s: notes %q, compared with %q, want %q", since, got, v.Before, want)
		}
	}
}

// TestPortName shows how a port is called that is not known.
func TestPortName(t *testing.T) {
	for want, p := range map[string]tally.Port{"tcp/23": {Protocol: "tcp", Number: 23}, "hidden port": {}} {
		if got := portName(p); got != want {
			t.Errorf("%+v is %q, want %q", p, got, want)
		}
	}
}

// TestHeadline words the sentence at the top.
func TestHeadline(t *testing.T) {
	report := func(now, then api.ReportCounts) api.Report {
		r := api.Report{Totals: now}
		r.Before.Totals = then
		return r
	}
	blocks := func(n uint64) api.ReportCounts { return api.ReportCounts{Blocks: n, Probes: n} }
	for name, tt := range map[string]struct {
		report api.Report
		before string
		want   string
	}{
		"one":         {report(blocks(1), blocks(1)), "the day before", "1 block was made, as many as in the day before."},
		"more":        {report(blocks(1250), blocks(1000)), "the day before", "1,250 blocks were made, 25 % more than in the day before."},
		"nearly none": {report(blocks(1), blocks(1000)), "the day before", "1 block was made, 99 % less than in the day before."},
		"none twice":  {report(api.ReportCounts{Probes: 3}, blocks(0)), "the day before", "No blocks were made, as in the day before."},
		"less":        {report(blocks(999), blocks(1000)), "the day before", "999 blocks were made, 0.1 % less than in the day before."},
		"many times":  {report(blocks(450), blocks(4)), "the day before", "450 blocks were made, 112 times as many as in the day before."},
		"after none":  {report(blocks(2), blocks(0)), "the day before", "2 blocks were made, after none in the day before."},
		"alone":       {report(blocks(2), blocks(0)), "", "2 blocks were made."},
		"probes":      {report(api.ReportCounts{Probes: 3}, blocks(1)), "the day before", "No blocks were made, after 1 in the day before."},
		"observing":   {report(api.ReportCounts{Probes: 3, Would: 1, Run: 1}, api.ReportCounts{Would: 1}), "the day before", "2 blocks would have been made, 100 % more than in the day before."},
		"dropped": {report(api.ReportCounts{Packets: 1, Bytes: 1023}, blocks(0)), "the day before",
			"Quiet: no tripwire was touched, and nobody was blocked. The kernel dropped 1 packet (1,023 bytes) from blocked sources."},
	} {
		if got := headline(tt.report, tt.before); got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

func TestReportNumbers(t *testing.T) {
	for n, want := range map[uint64]string{0: "0 bytes", 1: "1 byte", 1023: "1,023 bytes", 1024: "1.0 KiB", 3_000_000: "2.9 MiB", 1 << 40: "1.0 TiB", 1<<64 - 1: "16 EiB"} {
		if got := sizeText(n); got != want {
			t.Errorf("sizeText(%d) = %q, want %q", n, got, want)
		}
	}
	for n, want := range map[uint64]string{0: "0", 999: "999", 1000: "1,000", 1<<64 - 1: "18,446,744,073,709,551,615"} {
		if got := grouped(n); got != want {
			t.Errorf("grouped(%d) = %q, want %q", n, got, want)
		}
	}
	for n, want := range map[uint64]string{0: "0", 99_999: "99,999", 100_000: "100 k", 1_200_000: "1.2 M", 1<<64 - 1: "18.4 E"} {
		if got := short(n); got != want {
			t.Errorf("short(%d) = %q, want %q", n, got, want)
		}
	}
	for n, want := range map[uint64]uint64{0: 1, 1: 1, 2: 2, 3: 4, 5: 6, 7: 8, 9: 10, 11: 12, 13: 16, 19: 20, 150: 160, 151: 160, 399: 400, 401: 500, 9999: 10000} {
		if got := niceTop(n); got != want {
			t.Errorf("niceTop(%d) = %d, want %d", n, got, want)
		}
	}
	if top := niceTop(1<<64 - 1); top == 0 {
		t.Error("niceTop of the largest number is 0")
	}
}

// TestWriteWhole shows that a file is replaced all at once, and nothing else is.
func TestWriteWhole(t *testing.T) {
	dir := t.TempDir()
	file, link := filepath.Join(dir, "report.html"), filepath.Join(dir, "link.html")
	if err := os.Symlink("report.html", link); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ path, data string }{{file, "one"}, {file, "two"}, {link, "three"}} {
		if err := writeWhole(tt.path, []byte(tt.data)); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(file); err != nil || string(got) != tt.data {
			t.Errorf("the file has %q, %v, want %q", got, err, tt.data)
		}
	}
	if info, err := os.Lstat(link); err != nil || info.Mode().Type() != fs.ModeSymlink {
		t.Errorf("the link is no link any more: %v, %v", info, err)
	}
	if err := writeWhole(dir, nil); !isUsage(err) {
		t.Errorf("to a folder: %v", err)
	}
	none := filepath.Join(dir, "no", "file")
	if err := writeWhole(none, nil); err == nil || err.Error() != "write "+none+": no such file or directory: make its folder first, or name another file" {
		t.Errorf("to a folder that is not there: %v", err)
	}
	inFile := filepath.Join(file, "x.html")
	if err := writeWhole(inFile, nil); err == nil || err.Error() != "write "+inFile+": not a directory: make its folder first, or name another file" {
		t.Errorf("to a folder that is a file: %v", err)
	}
	long := filepath.Join(dir, strings.Repeat("a", 250)+".html")
	if err := writeWhole(long, nil); err != nil {
		t.Errorf("to a name of 255 bytes: %v", err)
	}
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := writeWhole(file, []byte("four")); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("a file that one alone may read becomes %v, %v", info.Mode(), err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) != 0 {
		t.Errorf("%v are left", left)
	}
}
