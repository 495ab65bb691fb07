package main

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// text writes a report as plain text.
func (v reportView) text(w io.Writer) error {
	var b strings.Builder
	title := "nftsentry report"
	if v.Host != "" {
		title += " of " + v.Host
	}
	fmt.Fprintf(&b, "%s\n%s\n\n%s\n", title, v.Period, strings.Join(wrap(v.Headline, 78), "\n"))
	for _, note := range v.Notes {
		fmt.Fprintf(&b, "%s\n", strings.Join(wrap("Note: "+note, 78), "\n"))
	}
	v.textFacts(&b)
	v.textCharts(&b)
	for _, l := range v.Lists {
		l.text(&b)
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write to standard output: %w", err)
	}
	return nil
}

// textFacts writes the totals, without those that are and were zero.
func (v reportView) textFacts(b *strings.Builder) {
	head := []string{"TOTALS", "NOW"}
	if v.Before != "" {
		head = append(head, "BEFORE", "CHANGE")
	}
	rows := [][]string{head}
	for _, f := range v.Facts {
		if isZero(f.Now) && (f.Before == "" || isZero(f.Before)) {
			continue
		}
		name := f.Name
		if f.Sub {
			name = "  " + name
		}
		row := []string{name, f.Now}
		if v.Before != "" {
			row = append(row, f.Before, f.Change)
		}
		rows = append(rows, row)
	}
	if len(rows) > 1 {
		b.WriteByte('\n')
		columns(b, rows)
	}
}

func isZero(text string) bool { return text == "0" || text == "0 bytes" }

// textCharts writes a line of bars for each chart.
func (v reportView) textCharts(b *strings.Builder) {
	width := 0
	for _, c := range v.Charts {
		width = max(width, len(c.Title))
	}
	began := false
	for _, c := range v.Charts {
		if len(c.Series) == 0 {
			continue
		}
		if !began {
			fmt.Fprintf(b, "\nOVER TIME, a bar for each %s\n", v.Step)
			began = true
		}
		most, _ := c.most()
		fmt.Fprintf(b, "%-*s  %s  most %s\n", width, c.Title, c.sparkline(), grouped(most))
	}
}

// sparkline draws the bars with characters of eight heights.
func (c *chart) sparkline() string {
	const heights = "▁▂▃▄▅▆▇█"
	bars := []rune(heights)
	most, _ := c.most()
	var b strings.Builder
	for i := range c.Parts {
		n := c.sum(i)
		if n == 0 {
			b.WriteRune('·')
			continue
		}
		b.WriteRune(bars[int(float64(n)/float64(most)*float64(len(bars)-1)+0.5)])
	}
	return b.String()
}

// text writes a list, if it has rows.
func (l list) text(b *strings.Builder) {
	if len(l.Rows) == 0 {
		return
	}
	var rows [][]string
	for i, head := range l.Heads {
		if i == 0 {
			head = l.Title
		}
		if i == 0 {
			rows = append(rows, nil)
		}
		rows[0] = append(rows[0], strings.ToUpper(head))
	}
	for _, r := range l.Rows {
		rows = append(rows, append([]string{r.Name}, r.Cells...))
	}
	b.WriteByte('\n')
	columns(b, rows)
	if l.Note != "" {
		fmt.Fprintf(b, "%s\n", l.Note)
	}
}

// columns writes rows with numbers to the right, as a column is that has none
// but such below its head.
func columns(b *strings.Builder, rows [][]string) {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i > 0 {
				line.WriteString("  ")
			}
			if i > 0 && isNumeric(rows[1:], i) {
				line.WriteString(pad + cell)
			} else {
				line.WriteString(cell + pad)
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
}

// isNumeric tells whether all cells of a column begin as numbers do.
func isNumeric(rows [][]string, column int) bool {
	for _, row := range rows {
		cell := strings.TrimLeft(row[column], "+\u2212\u00d7")
		if cell != "=" && cell != "new" && (cell == "" || cell[0] < '0' || cell[0] > '9' || strings.Contains(cell, ":") || strings.Contains(cell, "/")) {
			return false
		}
	}
	return true
}
