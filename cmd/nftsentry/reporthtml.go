package main

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"slices"
	"strings"
)

//go:embed report.html
var reportPage string

//go:embed report.css
var reportStyle string

// reportTemplate escapes whatever it is given by where it stands.
var reportTemplate = template.Must(template.New("report").Parse(reportPage))

// html writes a report as one page.
func (v reportView) html(w io.Writer) error {
	page := struct {
		reportView
		Style     template.CSS
		Tiles     []fact
		Lists     []list // all but that of the offenders, which is wide
		Offenders list
	}{reportView: v, Style: template.CSS(reportStyle), Tiles: v.tiles()}
	for _, l := range v.Lists {
		if l.ID == "offenders" {
			page.Offenders = l
		} else {
			page.Lists = append(page.Lists, l)
		}
	}
	if err := reportTemplate.Execute(w, page); err != nil {
		return fmt.Errorf("write the page: %w", err)
	}
	return nil
}

// tiles are the facts that are shown large.
func (v reportView) tiles() (out []fact) {
	for _, f := range v.Facts {
		switch f.Name {
		case "Would have been blocked":
			if !isZero(f.Now) {
				out = append(out, f)
			}
		case "Blocks", "Probes", "Packets dropped", "Bytes dropped":
			out = append(out, f)
		}
	}
	return out
}

// A bar is a rectangle of a chart. The height of the chart is 100, and each
// part is 10 wide.
type bar struct {
	X, Y, H int
	Class   string
	Title   string
}

// Width is that of the drawing.
func (c chart) Width() int { return 10 * len(c.Parts) }

// Half is what the line in the middle stands for; "" if that is no whole number.
func (c chart) Half() string {
	if c.Top%2 == 1 {
		return ""
	}
	return short(c.Top / 2)
}

// High is what the uppermost line stands for.
func (c chart) High() string { return short(c.Top) }

// Bars are the rectangles, each series on those before it, in a drawing 1000 high.
func (c chart) Bars() (out []bar) {
	for i, name := range c.Parts {
		y := 1000
		for _, s := range c.Series {
			n := s.Values[i]
			if n == 0 {
				continue
			}
			h := max(4, int(1000*float64(n)/float64(c.Top)+0.5))
			y = max(0, y-h)
			out = append(out, bar{X: 10*i + 1, Y: y, H: h, Class: s.Class, Title: fmt.Sprintf("%s: %s %s", name, grouped(n), s.Name)})
		}
	}
	return out
}

// Rows is the chart as a table, without the parts in which nothing happened.
func (c chart) Rows() (rows [][]string) {
	for i, name := range c.Parts {
		if c.sum(i) == 0 {
			continue
		}
		row := []string{name}
		for _, s := range c.Series {
			row = append(row, grouped(s.Values[i]))
		}
		rows = append(rows, row)
	}
	return rows
}

// Direction is a class for the change.
func (f fact) Direction() string {
	switch {
	case f.Change == "new", strings.HasPrefix(f.Change, "+"), strings.HasPrefix(f.Change, "\u00d7"):
		return "up"
	case f.Change == "=":
		return "same"
	}
	return "down"
}

// Scaled is the bar of a row in a drawing 1000 wide.
func (r listRow) Scaled() float64 { return 10 * r.Bar }

// Bars tells whether the rows have bars.
func (l list) Bars() bool {
	return slices.ContainsFunc(l.Rows, func(r listRow) bool { return r.Bar > 0 })
}

// Legend tells whether the colours need names.
func (c chart) Legend() bool { return len(c.Series) > 1 }

// short is a number for where there is little room, as in "1.2 M".
func short(n uint64) string {
	if n < 100_000 {
		return grouped(n)
	}
	value, unit := float64(n), ""
	for _, unit = range []string{"k", "M", "G", "T", "P", "E"} {
		if value /= 1000; value < 1000 {
			break
		}
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", value), ".0") + " " + unit
}
