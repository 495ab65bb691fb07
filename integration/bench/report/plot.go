package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"nftsentry/integration/bench/figure"
)

// bars prints a measure of the cases that match, as gnuplot takes it. $cases
// has a row for each case: where it is, from the top, and its name. $data has a
// row for each bar: where it is, the number of its tool, the median, the 95th
// percentile, and the median as text. Variables follow: see [plot.variables].
func bars(w io.Writer, sums []figure.Summary, measure string, cases *regexp.Regexp) error {
	p, err := plotOf(sums, func(s figure.Summary) bool { return s.Measure == measure && cases.MatchString(s.Case) })
	if err != nil {
		return fmt.Errorf("%q: %w", measure, err)
	}
	var names, data strings.Builder
	y := 0
	for _, at := range p.points {
		y++ // a gap
		top := y
		for i, tool := range p.tools {
			if s, ok := p.sums[at][tool]; ok {
				fmt.Fprintf(&data, "%d %d %g %g %s\n", y, i+1, s.Value, s.P95, quoted(figure.Number(s.Value)))
				y++
			}
		}
		fmt.Fprintf(&names, "%g %s\n", float64(top+y-1)/2, quoted(at.kase))
	}
	_, err = fmt.Fprintf(w, "$cases << END\n%sEND\n$data << END\n%sEND\nrows = %d\n%s", &names, &data, y, p.variables())
	return err
}

// lines prints a measure over the number that each case has, by the group of
// the expression that it matches. $data has a row for each number: it, and the
// median of each tool, which is "?" if it was not measured.
func lines(w io.Writer, sums []figure.Summary, measure string, cases *regexp.Regexp) error {
	if cases.NumSubexp() != 1 {
		return fmt.Errorf("%s: it takes one group, which matches the number", cases)
	}
	p, err := plotOf(sums, func(s figure.Summary) bool { return s.Measure == measure && cases.MatchString(s.Case) })
	if err != nil {
		return fmt.Errorf("%q: %w", measure, err)
	}
	number := make(map[point]int)
	for _, at := range p.points {
		digits := strings.ReplaceAll(cases.FindStringSubmatch(at.kase)[1], ",", "")
		if number[at], err = strconv.Atoi(digits); err != nil {
			return fmt.Errorf("%q: %w", at.kase, err)
		}
	}
	slices.SortStableFunc(p.points, func(a, b point) int { return number[a] - number[b] })
	var data strings.Builder
	for _, at := range p.points {
		fmt.Fprintf(&data, "%d", number[at])
		for _, tool := range p.tools {
			if s, ok := p.sums[at][tool]; ok {
				fmt.Fprintf(&data, " %g", s.Value)
			} else {
				data.WriteString(" ?")
			}
		}
		data.WriteString("\n")
	}
	_, err = fmt.Fprintf(w, "$data << END\n%sEND\n%s", &data, p.variables())
	return err
}

// A plot is a pivot of one measure.
type plot struct{ pivot }

func plotOf(sums []figure.Summary, want func(figure.Summary) bool) (plot, error) {
	p := plot{pivotOf(sums, want)}
	if len(p.points) == 0 {
		return p, errors.New("there are no values of it in these cases")
	}
	return p, nil
}

// variables are tools, the names; unit; least, of the positive medians; and
// most, of all percentiles.
func (p plot) variables() string {
	least, most := math.Inf(1), 0.0
	for _, of := range p.sums {
		for _, s := range of {
			if most = max(most, s.Value, s.P95); s.Value > 0 {
				least = min(least, s.Value)
			}
		}
	}
	if most == 0 {
		least, most = 1, 1
	}
	var tools []string
	for _, tool := range p.tools {
		tools = append(tools, quoted(tool))
	}
	return fmt.Sprintf("tools = '%s'\nunit = %s\nleast = %g\nmost = %g\n",
		strings.Join(tools, " "), quoted(p.points[0].unit), min(least, most), most)
}

// quoted is a text as gnuplot takes it.
func quoted(text string) string {
	return `"` + strings.NewReplacer(`"`, "”", `'`, "’", `\`, "").Replace(text) + `"`
}
