package main

import (
	"strings"
	"testing"
	"time"
)

// TestLastPeriod shows what the last day, week and month are, also where the clock is set.
func TestLastPeriod(t *testing.T) {
	spring := time.Date(2026, 3, 30, 9, 59, 59, 0, berlin)  // the day after the clock was set forward
	autumn := time.Date(2026, 10, 25, 22, 10, 0, 0, berlin) // the day on which it was set back
	india := time.FixedZone("IST", 5*3600+1800)
	for name, tt := range map[string]struct {
		last                  string
		now                   time.Time
		from, to, first, then string
		parts                 int
	}{
		"day":            {"day", now, "23 Nov 16:00", "24 Nov 15:20", "22 Nov 16:00", "23 Nov 16:00", 24},
		"week":           {"week", now, "18 Nov 00:00", "24 Nov 15:20", "11 Nov 00:00", "17 Nov 16:00", 27},
		"month":          {"month", now, "26 Oct 00:00", "24 Nov 15:20", "26 Sep 00:00", "25 Oct 16:00", 30},
		"spring":         {"day", spring, "29 Mar 10:00", "30 Mar 10:00", "28 Mar 09:00", "29 Mar 10:00", 24},
		"week in spring": {"week", spring, "24 Mar 00:00", "30 Mar 10:00", "17 Mar 00:00", "23 Mar 10:00", 26},
		"autumn":         {"day", autumn, "25 Oct 00:00", "25 Oct 22:10", "24 Oct 00:00", "25 Oct 00:00", 24},
		"half an hour":   {"day", now.In(india), "23 Nov 20:30", "24 Nov 19:50", "22 Nov 20:30", "23 Nov 20:30", 24},
		"on the hour":    {"day", now.Truncate(time.Hour), "23 Nov 16:00", "24 Nov 15:00", "22 Nov 16:00", "23 Nov 16:00", 24},
	} {
		p, err := lastPeriod(tt.last, tt.now)
		if err != nil {
			t.Fatal(err)
		}
		const layout = "2 Jan 15:04"
		got := []string{p.Edges[0].Format(layout), p.Edges[len(p.Edges)-1].Format(layout), p.From.Format(layout), p.To.Format(layout)}
		want := []string{tt.from, tt.to, tt.first, tt.then}
		if strings.Join(got, ", ") != strings.Join(want, ", ") || len(p.Edges) != tt.parts+1 {
			t.Errorf("%s: %q in %d parts, want %q in %d", name, got, len(p.Edges)-1, want, tt.parts)
		}
		checkEdges(t, name, p)
	}
	if _, err := lastPeriod("year", now); !isUsage(err) {
		t.Errorf("the last year: %v", err)
	}
}

// checkEdges checks what the daemon would.
func checkEdges(t *testing.T, name string, p period) {
	t.Helper()
	if len(p.Edges) > 120 || p.To.After(p.Edges[0]) || !p.From.Before(p.To) {
		t.Errorf("%s: %d edges, compared with %v to %v", name, len(p.Edges), p.From, p.To)
	}
	for i := range p.Edges[1:] {
		if p.Edges[i+1].Unix() <= p.Edges[i].Unix() {
			t.Errorf("%s: part %d from %v to %v", name, i, p.Edges[i], p.Edges[i+1])
		}
	}
}

// TestDaysOfTheClock shows that a day on which the clock is set has an hour less or more.
func TestDaysOfTheClock(t *testing.T) {
	for _, tt := range []struct {
		from  time.Time
		hours float64
	}{
		{time.Date(2026, 3, 29, 0, 0, 0, 0, berlin), 23}, {time.Date(2026, 10, 25, 0, 0, 0, 0, berlin), 25}, {time.Date(2026, 11, 24, 0, 0, 0, 0, berlin), 24},
	} {
		if got := daily.next(tt.from).Sub(tt.from).Hours(); got != tt.hours {
			t.Errorf("%v has %v hours, want %v", tt.from, got, tt.hours)
		}
		at, parts := tt.from, 0
		for ; at.Before(daily.next(tt.from)); parts++ {
			at = quarterly.next(at)
		}
		if parts != 4 || !at.Equal(daily.next(tt.from)) {
			t.Errorf("%v has %d quarters up to %v", tt.from, parts, at)
		}
	}
}

// TestSpanPeriod reads times as people write them.
func TestSpanPeriod(t *testing.T) {
	for name, tt := range map[string]struct {
		since, until string
		from, to     string
		step         step
	}{
		"a date":      {"2026-11-23", "", "2026-11-23 00:00", "2026-11-24 15:20", hourly},
		"dates":       {"2026-11-09", "2026-11-16", "2026-11-09 00:00", "2026-11-16 00:00", quarterly},
		"times":       {"2026-11-23 10:30", "2026-11-23T12:10", "2026-11-23 10:00", "2026-11-23 13:00", hourly},
		"to come":     {"2026-11-23", "2027-03-01", "2026-11-23 00:00", "2026-11-24 15:20", hourly},
		"RFC 3339":    {"2026-11-23T10:00:00Z", "", "2026-11-23 11:00", "2026-11-24 15:20", hourly},
		"ago":         {"36h", "12h", "2026-11-23 03:00", "2026-11-24 04:00", hourly},
		"months":      {"2026-09-01", "", "2026-09-01 00:00", "2026-11-24 15:20", daily},
		"over a year": {"2025-10-20", "", "2025-10-20 00:00", "2026-11-24 15:20", weekly},
		"two years":   {"2024-11-24", "", "2024-11-24 00:00", "2026-11-24 15:20", weekly},
	} {
		p, err := spanPeriod(tt.since, tt.until, now)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		from, to := p.Edges[0].In(berlin).Format(stamp), p.Edges[len(p.Edges)-1].In(berlin).Format(stamp)
		if from != tt.from || to != tt.to || p.step != tt.step {
			t.Errorf("%s: from %s to %s in steps of %d, want %s, %s and %d", name, from, to, p.step, tt.from, tt.to, tt.step)
		}
		checkEdges(t, name, p)
	}
	for _, tt := range []struct{ since, until, want string }{
		{"yesterday", "", `--since "yesterday": write a date such as "2026-11-24", a time such as "2026-11-24 15:20", or how long ago it is, such as "36h"`},
		{"1d", "tomorrow", `--until "tomorrow": write`},
		{"2026-12-01", "", "--since 2026-12-01 00:00 is not before the end of the report, 2026-11-24 15:20"},
		{"2020-01-01", "", "is too long ago"},
		{"1970-01-01", "1970-01-02", "is too long ago"},
		{"1d", "2d", "--since 2026-11-23 15:00 is not before the end of the report, 2026-11-22 16:00"},
	} {
		if _, err := spanPeriod(tt.since, tt.until, now); !isUsage(err) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("--since %q --until %q: %v, want %q", tt.since, tt.until, err, tt.want)
		}
	}
}

// TestSpanHours shows which hours of UTC, by when they begin, are in the parts of a period, and how many are in the one
// before.
func TestSpanHours(t *testing.T) {
	india := time.FixedZone("IST", 5*3600+1800)
	for name, tt := range map[string]struct {
		zone        *time.Location
		since       string
		first       string // in the zone
		parts, then int
	}{
		"whole hours":           {berlin, "2026-11-24", "00:00", 16, 16},
		"ago":                   {berlin, "5h", "10:00", 6, 6},
		"half an hour off":      {india, "2026-11-24", "00:30", 20, 20},
		"half an hour off, ago": {india, "5h", "14:30", 6, 6},
	} {
		p, err := spanPeriod(tt.since, "", now.In(tt.zone))
		if err != nil {
			t.Fatal(err)
		}
		hour := p.Edges[0].Add(59 * time.Minute).Truncate(time.Hour)
		if got := hour.In(tt.zone).Format("15:04"); got != tt.first || len(p.Edges) != tt.parts+1 || int(p.To.Sub(p.From).Hours()) != tt.then {
			t.Errorf("%s: the first hour is %s of %d, want %s of %d; compared with %v", name, got, len(p.Edges)-1, tt.first, tt.parts, p.To.Sub(p.From))
		}
		for i := range p.Edges[1:] {
			if hour.Before(p.Edges[i]) || !hour.Before(p.Edges[i+1]) {
				t.Errorf("%s: part %d from %v to %v does not have the hour %v", name, i, p.Edges[i], p.Edges[i+1], hour)
			}
			hour = hour.Add(time.Hour)
		}
	}
}

// TestReportFlags shows which flags go together.
func TestReportFlags(t *testing.T) {
	for _, tt := range []struct {
		f    reportFlags
		args []string
		json bool
		want string
		err  string
	}{
		{f: reportFlags{}},
		{f: reportFlags{html: "-"}, want: "-"},
		{f: reportFlags{html: "-"}, args: []string{"a.html"}, want: "a.html"},
		{f: reportFlags{html: "a.html"}, want: "a.html"},
		{f: reportFlags{html: "a.html"}, args: []string{"b.html"}, err: "two files, a.html and b.html: write one of them"},
		{f: reportFlags{html: "-"}, args: []string{""}, err: `--html "": write the name of a file`},
		{f: reportFlags{html: "-"}, json: true, err: "write one of them"},
		{args: []string{"week"}, err: `what is "week" for? write --html week to have the report in that file, or --last week for that time`},
	} {
		got, err := tt.f.file(tt.args, tt.json)
		if got != tt.want || (err != nil) != (tt.err != "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%+v %q: %q, %v, want %q, %q", tt.f, tt.args, got, err, tt.want, tt.err)
		}
	}
	for _, f := range []reportFlags{{until: "1d"}, {since: "1d"}} {
		if _, err := f.period(true, now); !isUsage(err) {
			t.Errorf("%+v with --last: %v", f, err)
		}
	}
	if p, err := (reportFlags{last: "day", since: "1d"}).period(false, now); err != nil || len(p.Edges) != 26 {
		t.Errorf("the last 24 hours: %d edges, %v", len(p.Edges), err)
	}
}
