package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"nftsentry/controller/api"
	"nftsentry/controller/tally"
)

// A reportView is a report as people read it, in text or in HTML.
type reportView struct {
	Host     string
	Period   string // such as "Mon 23 Nov 2026 16:00 to Tue 24 Nov 2026 15:20 CET"
	Headline string
	Notes    []string // what the reader should know of the figures
	Step     string   // what a bar of the charts stands for, such as "hour"
	Before   string   // name of the period that it is compared with; "" if it is not
	Facts    []fact
	Charts   []chart
	Lists    []list
	Made     string // when, and of what version
}

// A fact is one figure, and what it was in the period before.
type fact struct {
	Name, Now, Before, Change string
	Sub                       bool // it is a part of the one above
}

// A list is a table of the most frequent of something.
type list struct {
	ID, Title string
	Heads     []string // the first one names the rows
	Rows      []listRow
	Note      string
	Empty     string // what to say if there are no rows
}

// A listRow is one of them. Bar is its share of the largest, in percent.
type listRow struct {
	Name  string
	Cells []string
	Bar   float64
}

// newReportView words a report. The times are shown in the zone.
func newReportView(r api.Report, p period, zone *time.Location, rows int) reportView {
	r = cleaned(r)
	v := reportView{
		Host: r.Host, Period: spanText(r.From.In(zone), r.To.In(zone)),
		Step: p.step.String(),
		Made: fmt.Sprintf("%s by nftsentry %s", r.Generated.In(zone).Format("Mon 2 Jan 2006 15:04 MST"), version),
	}
	if oldest := r.Generated.Add(-tally.KeepDays); !r.Since.IsZero() && r.Since.Before(oldest) {
		r.Since = oldest
	}
	compared := !r.Since.IsZero() && !r.Since.After(r.Before.From)
	if compared {
		v.Before = p.before
	}
	v.Headline = headline(r, v.Before)
	v.Notes = reportNotes(r, compared, zone)
	v.Facts = facts(r, compared)
	v.Charts = charts(r, p.step, zone)
	v.Lists = lists(r, rows, zone)
	return v
}

// cleaned is a report in which what others have named can do nothing to a
// terminal, and is shown in the order in which it is written.
func cleaned(r api.Report) api.Report {
	r.Host, r.Mode = printable(r.Host), printable(r.Mode)
	for _, l := range []*api.ReportList{&r.Ports, &r.Sources, &r.Networks, &r.Offenders} {
		l.Rows = slices.Clone(l.Rows)
		for i := range l.Rows {
			l.Rows[i].Name, l.Rows[i].Comment = printable(l.Rows[i].Name), printable(l.Rows[i].Comment)
		}
	}
	r.Kinds, r.Origins = slices.Clone(r.Kinds), slices.Clone(r.Origins)
	for i := range r.Kinds {
		r.Kinds[i].Kind = printable(r.Kinds[i].Kind)
	}
	for i := range r.Origins {
		r.Origins[i].Origin = printable(r.Origins[i].Origin)
	}
	return r
}

// printable replaces what is not to be seen, or is not UTF-8.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}

// spanText says from when to when.
func spanText(from, to time.Time) string {
	const layout = "Mon 2 Jan 2006 15:04"
	if _, a := from.Zone(); a != offset(to) {
		return from.Format(layout+" MST") + " to " + to.Format(layout+" MST")
	}
	return from.Format(layout) + " to " + to.Format(layout+" MST")
}

func offset(t time.Time) int {
	_, seconds := t.Zone()
	return seconds
}

// headline is the report in a sentence or two.
func headline(r api.Report, before string) string {
	t := r.Totals
	if t.Probes+t.Blocks+t.Would+t.Run == 0 {
		return strings.TrimSpace("Quiet: no tripwire was touched, and nobody was blocked." + droppedText(t))
	}
	what, now, then := "block was made", t.Blocks, r.Before.Totals.Blocks
	if now == 0 && t.Would+t.Run > 0 {
		what, now, then = "block would have been made", t.Would+t.Run, r.Before.Totals.Would+r.Before.Totals.Run
	}
	if now != 1 {
		what = strings.Replace(strings.Replace(what, "block", "blocks", 1), " was ", " were ", 1)
	}
	number := grouped(now)
	if now == 0 {
		number = "No"
	}
	text := number + " " + what
	if before != "" {
		text += ", " + comparison(now, then) + before
	}
	text += "."
	if len(r.Ports.Rows) > 0 {
		text += fmt.Sprintf(" %s was touched most, by %s of %s%s.", r.Ports.Rows[0].Name, grouped(r.Ports.Rows[0].Probes),
			count1(t.Probes, "probe"), sourcesText(r.Sources))
	}
	return text + droppedText(t)
}

// sourcesText says from how many sources.
func sourcesText(l api.ReportList) string {
	n := uint64(len(l.Rows) + l.Others)
	switch {
	case n == 0:
		return ""
	case l.More:
		return " from more than " + count1(n, "source")
	}
	return " from " + count1(n, "source")
}

func droppedText(t api.ReportCounts) string {
	if t.Packets == 0 {
		return ""
	}
	return fmt.Sprintf(" The kernel dropped %s (%s) from blocked sources.", count1(t.Packets, "packet"), sizeText(t.Bytes))
}

// manyTimes is from where on a growth is told in times and not in percent.
const manyTimes = 10

// comparison is how a sentence goes on before "the day before".
func comparison(now, then uint64) string {
	switch {
	case now == 0 && then == 0:
		return "as in "
	case now == then:
		return "as many as in "
	case then == 0:
		return "after none in "
	case now == 0:
		return fmt.Sprintf("after %s in ", grouped(then))
	case now/then >= manyTimes:
		return fmt.Sprintf("%s times as many as in ", grouped(now/then))
	case now > then:
		return fmt.Sprintf("%s more than in ", share(now-then, then))
	}
	return fmt.Sprintf("%s less than in ", share(then-now, then))
}

// share is a part of a whole in percent.
func share(part, whole uint64) string {
	percent := 100 * float64(part) / float64(whole)
	if percent < 1 {
		return fmt.Sprintf("%.1f %%", max(percent, 0.1))
	}
	if percent < 100 {
		percent = min(percent, 99) // what is not all does not look like it
	}
	return grouped(uint64(percent+0.5)) + " %"
}

// changeOf is the difference to the period before.
func changeOf(now, then uint64) string {
	switch {
	case now == then:
		return "="
	case then == 0:
		return "new"
	case now/then >= manyTimes:
		return "\u00d7" + grouped(now/then)
	case now > then:
		return "+" + share(now-then, then)
	}
	return "\u2212" + share(then-now, then)
}

// count1 is plural for large numbers.
func count1(n uint64, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return grouped(n) + " " + thing + "s"
}

// grouped is a number as in 12,345.
func grouped(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// sizeText is a number of bytes as in "2.9 MiB".
func sizeText(n uint64) string {
	if n < 1024 {
		return count1(n, "byte")
	}
	value, unit := float64(n), ""
	for _, unit = range []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"} {
		if value /= 1024; value < 1024 {
			break
		}
	}
	if value < 10 {
		return fmt.Sprintf("%.1f %s", value, unit)
	}
	return fmt.Sprintf("%.0f %s", value, unit)
}

// reportNotes say what is odd about the figures.
func reportNotes(r api.Report, compared bool, zone *time.Location) (notes []string) {
	switch {
	case r.Mode == "":
		notes = append(notes, "nftsentry is not running: what was counted before it stopped is shown.")
	case r.Mode != "enforce":
		notes = append(notes, fmt.Sprintf("The mode is %s: nobody is blocked at present.", r.Mode))
	}
	if r.Since.IsZero() {
		notes = append(notes, "Nothing has been counted yet.")
	} else if !compared {
		notes = append(notes, fmt.Sprintf("Counts go back to %s, so that there is nothing to compare with.", r.Since.In(zone).Format("Mon 2 Jan 2006 15:04")))
	}
	if r.Ports.More || r.Sources.More || r.Networks.More || r.Offenders.More {
		notes = append(notes, "There were more ports, sources or networks than are counted one by one; the numbers in their lists may be a little low. All totals are exact.")
	}
	if r.Unread > 0 {
		notes = append(notes, fmt.Sprintf("The records of %s could not be read, and are left out.", plural(r.Unread, "hour")))
	}
	return notes
}

// facts are all totals.
func facts(r api.Report, compared bool) []fact {
	now, then := r.Totals, r.Before.Totals
	var out []fact
	add := func(sub bool, name string, now, then uint64, text func(uint64) string) {
		f := fact{Name: name, Now: text(now), Sub: sub}
		if compared {
			f.Before, f.Change = text(then), changeOf(now, then)
		}
		out = append(out, f)
	}
	add(false, "Blocks", now.Blocks, then.Blocks, grouped)
	add(true, "on proven evidence", now.Proven, then.Proven, grouped)
	add(true, "on unproven evidence", now.Unproven, then.Unproven, grouped)
	add(true, "of repeat offenders", now.Again, then.Again, grouped)
	add(false, "Would have been blocked", now.Would+now.Run, then.Would+then.Run, grouped)
	add(false, "Blocks extended", now.Extended, then.Extended, grouped)
	add(false, "Blocks ended", now.Ended, then.Ended, grouped)
	add(false, "Probes", now.Probes, then.Probes, grouped)
	add(true, "of blocked sources", now.Repeated, then.Repeated, grouped)
	add(false, "Probes of ignored sources", now.Ignored, then.Ignored, grouped)
	add(false, "Probes of peers", now.Peers, then.Peers, grouped)
	add(false, "Packets dropped", now.Packets, then.Packets, grouped)
	add(false, "Bytes dropped", now.Bytes, then.Bytes, sizeText)
	add(false, "Table put right", now.Heals, then.Heals, grouped)
	add(false, "Evidence doubted", now.Doubts, then.Doubts, grouped)
	return out
}
