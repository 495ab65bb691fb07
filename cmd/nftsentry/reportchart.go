package main

import (
	"fmt"
	"math"
	"strings"
	"time"

	"nftsentry/controller/api"
)

// A chart shows numbers over time, as bars.
type chart struct {
	ID, Title string
	Summary   string // what it shows, in words
	Series    []series
	Parts     []string // what each part is called
	Labels    []label  // some of them, for the axis
	Top       uint64   // what the height stands for
}

// A series are the numbers of one colour; those of a chart are stacked.
type series struct {
	Name, Class string
	Values      []uint64 // of each part
}

// A label is below the axis, at so many percent of its length, or as far as it has room.
type label struct {
	At    float64 // where its part begins
	Text  string
	Minor bool // may be left out where there is no room
}

// charts are all charts of a report.
func charts(r api.Report, s step, zone *time.Location) []chart {
	names, labels := axis(r.Parts, s, zone)
	pick := func(f func(api.ReportCounts) uint64) (out []uint64) {
		for _, p := range r.Parts {
			out = append(out, f(p.Totals))
		}
		return out
	}
	blocks := []series{
		{"proven", "a", pick(func(c api.ReportCounts) uint64 { return c.Proven })},
		{"unproven", "b", pick(func(c api.ReportCounts) uint64 { return c.Unproven })},
		{"other", "c", pick(func(c api.ReportCounts) uint64 { return c.Blocks - min(c.Blocks, c.Proven+c.Unproven) })},
		{"would have been made", "d", pick(func(c api.ReportCounts) uint64 { return c.Would + c.Run })},
	}
	out := []chart{
		{ID: "blocks", Title: "Blocks", Series: blocks},
		{ID: "probes", Title: "Probes", Series: []series{
			{"counted", "a", pick(func(c api.ReportCounts) uint64 { return c.Probes })},
			{"ignored", "c", pick(func(c api.ReportCounts) uint64 { return c.Ignored + c.Peers })},
		}},
		{ID: "dropped", Title: "Packets dropped", Series: []series{{"packets", "a", pick(func(c api.ReportCounts) uint64 { return c.Packets })}}},
	}
	for i := range out {
		out[i].Parts, out[i].Labels = names, labels
		out[i].finish()
	}
	return out
}

// finish leaves out series that are empty, and says what is to be seen.
func (c *chart) finish() {
	var filled []series
	for _, s := range c.Series {
		if total(s.Values) > 0 {
			filled = append(filled, s)
		}
	}
	c.Series = filled
	most, at := c.most()
	c.Top = niceTop(most)
	if most == 0 {
		c.Summary = "None."
		return
	}
	var sums []string
	for _, s := range c.Series {
		sums = append(sums, grouped(total(s.Values))+" "+s.Name)
	}
	c.Summary = fmt.Sprintf("%s. Most, %s: %s.", strings.Join(sums, ", "), grouped(most), c.Parts[at])
}

// most is the highest bar, and where it is.
func (c *chart) most() (most uint64, at int) {
	for i := range c.Parts {
		if n := c.sum(i); n > most {
			most, at = n, i
		}
	}
	return most, at
}

// sum is the height of a bar.
func (c *chart) sum(part int) (n uint64) {
	for _, s := range c.Series {
		n += s.Values[part]
	}
	return n
}

func total(values []uint64) (n uint64) {
	for _, v := range values {
		n += v
	}
	return n
}

// niceTop is a round number that is not below n, such as 1, 2, 4, 6, 8, 10, 12 or 16.
func niceTop(n uint64) uint64 {
	if n <= 2 {
		return max(n, 1)
	}
	power := uint64(math.Pow(10, math.Floor(math.Log10(float64(n)))))
	for _, factor := range []float64{1, 1.2, 1.6, 2, 2.4, 3, 4, 5, 6, 8, 10} {
		if top := uint64(factor * float64(power)); top >= n && top%2 == 0 {
			return top
		}
	}
	return 10*power + n%2 // beyond what a float can say
}

// axis names the parts, and labels some of them.
func axis(parts []api.ReportPart, s step, zone *time.Location) (names []string, labels []label) {
	nth := 0
	for i, p := range parts {
		from := p.From.In(zone)
		names = append(names, s.name(from, p.To.In(zone)))
		text, ok := s.label(from, i, len(parts))
		if !ok {
			continue
		}
		labels = append(labels, label{At: 100 * float64(i) / float64(len(parts)), Text: text, Minor: nth%2 == 1})
		nth++
	}
	return names, labels
}

// label is what the axis says of a part, if it has room.
func (s step) label(from time.Time, i, parts int) (string, bool) {
	switch s {
	case hourly:
		every := 3 * max(1, (parts+23)/24)
		if from.Hour() == 0 {
			return from.Format("Mon 2"), true
		}
		return from.Format("15:04"), from.Hour()%every == 0
	case quarterly:
		every := max(1, parts/4/7)
		return from.Format("Mon 2"), from.Hour() == 0 && (i/4)%every == 0
	case daily:
		return from.Format("2 Jan"), i%max(1, parts/7) == 0
	}
	return from.Format("2 Jan"), i%max(1, parts/7) == 0
}
