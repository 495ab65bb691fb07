package main

import (
	"fmt"
	"slices"
	"time"

	"nftsentry/controller/api"
)

// lists are all tables, with so many rows at the most.
func lists(r api.Report, rows int, zone *time.Location) []list {
	return []list{
		frequent("ports", "Ports", "Port", "No port was touched.", r.Ports, rows),
		kindList(r),
		frequent("sources", "Sources", "Source", "No source was noticed.", r.Sources, rows),
		frequent("networks", "Networks", "Network", "No network was noticed.", r.Networks, rows),
		offenderList(r.Offenders, rows, zone),
		strikeList(r),
		originList(r),
	}
}

// frequent is a list of what was touched by most probes, or has touched.
func frequent(id, title, head, empty string, l api.ReportList, rows int) list {
	would := slices.ContainsFunc(l.Rows, func(r api.ReportRow) bool { return r.Would > 0 })
	out := list{ID: id, Title: title, Heads: []string{head, "probes", "blocks"}, Empty: empty}
	if would {
		out.Heads = append(out.Heads, "would be")
	}
	var most uint64
	for _, row := range first(l.Rows, rows) {
		most = max(most, row.Probes)
		cells := []string{grouped(row.Probes), grouped(row.Blocks)}
		if would {
			cells = append(cells, grouped(row.Would))
		}
		out.Rows = append(out.Rows, listRow{Name: row.Name, Cells: cells, Bar: percent(row.Probes, most)})
	}
	out.Note = restNote(l, rows)
	return out
}

func first(rows []api.ReportRow, most int) []api.ReportRow { return rows[:min(len(rows), most)] }

// restNote says how many others there were.
func restNote(l api.ReportList, rows int) string {
	rest := l.Others + max(0, len(l.Rows)-rows)
	switch {
	case l.More:
		return fmt.Sprintf("and more than %s others", grouped(uint64(rest)))
	case rest == 1:
		return "and 1 other"
	case rest > 0:
		return fmt.Sprintf("and %s others", grouped(uint64(rest)))
	}
	return ""
}

// percent is a part of the largest, and never so small that it cannot be seen.
func percent(part, largest uint64) float64 {
	if part == 0 || largest == 0 {
		return 0
	}
	return max(1, 100*float64(part)/float64(largest))
}

func kindList(r api.Report) list {
	out := list{ID: "kinds", Title: "Scan kinds", Heads: []string{"Kind", "probes", "blocks"}, Empty: "There were no probes."}
	kinds := slices.Clone(r.Kinds)
	slices.SortStableFunc(kinds, func(a, b api.ReportKind) int { return int(min(b.Probes, 1<<40)) - int(min(a.Probes, 1<<40)) })
	for _, k := range kinds {
		if k.Probes+k.Blocks > 0 {
			out.Rows = append(out.Rows, listRow{Name: k.Kind, Cells: []string{grouped(k.Probes), grouped(k.Blocks)}, Bar: percent(k.Probes, kinds[0].Probes)})
		}
	}
	return out
}

// offenderList is about who came back.
func offenderList(l api.ReportList, rows int, zone *time.Location) list {
	out := list{ID: "offenders", Title: "Blocked most often", Heads: []string{"Source", "strikes", "blocks", "last", "why"}, Empty: "Nobody was blocked."}
	for _, row := range first(l.Rows, rows) {
		out.Rows = append(out.Rows, listRow{Name: row.Name, Cells: []string{
			fmt.Sprint(row.Strikes), grouped(row.Blocks + row.Would), row.Last.In(zone).Format("2 Jan 15:04"), row.Comment,
		}})
	}
	out.Note = restNote(l, rows)
	return out
}

func strikeList(r api.Report) list {
	out := list{ID: "strikes", Title: "Strikes", Heads: []string{"The block was", "blocks"}, Empty: "Nobody was blocked."}
	names := []string{"the first", "the second", "the third", "a later one"}
	var rows []named
	for i, s := range r.Strikes {
		rows = append(rows, named{names[min(i, len(names)-1)], s.Blocks})
	}
	out.Rows = shares(rows)
	return out
}

func originList(r api.Report) list {
	out := list{ID: "origins", Title: "Evidence and origin", Heads: []string{"Block", "blocks"}, Empty: "Nobody was blocked."}
	rows := []named{{"proven evidence", r.Totals.Proven}, {"unproven evidence", r.Totals.Unproven}}
	for _, o := range r.Origins {
		rows = append(rows, named{"by " + o.Origin, o.Blocks})
	}
	out.Rows = shares(rows)
	return out
}

// named is a number with a name.
type named struct {
	name string
	n    uint64
}

// shares are rows of those that are not zero.
func shares(all []named) (rows []listRow) {
	var most uint64
	for _, a := range all {
		most = max(most, a.n)
	}
	for _, a := range all {
		if a.n > 0 {
			rows = append(rows, listRow{Name: a.name, Cells: []string{grouped(a.n)}, Bar: percent(a.n, most)})
		}
	}
	return rows
}
