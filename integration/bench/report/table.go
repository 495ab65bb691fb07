package main

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"nftsentry/integration/bench/figure"
)

// against is the tool that others are compared with.
const against = "nftsentry"

// A point is one measure of one case.
type point struct{ kase, measure, unit string }

// A pivot has what several tools have come to, side by side.
type pivot struct {
	tools  []string                            // the one that others are compared with comes first
	points []point                             // those of a case stand together
	sums   map[point]map[string]figure.Summary // by tool
}

// pivotOf takes the summaries that want chooses, in their order.
func pivotOf(sums []figure.Summary, want func(figure.Summary) bool) pivot {
	p := pivot{sums: make(map[point]map[string]figure.Summary)}
	var cases []string
	for _, s := range sums {
		if !want(s) {
			continue
		}
		at := point{s.Case, s.Measure, s.Unit}
		if p.sums[at] == nil {
			p.sums[at] = make(map[string]figure.Summary)
			p.points = append(p.points, at)
		}
		p.sums[at][s.Tool] = s
		if !slices.Contains(cases, s.Case) {
			cases = append(cases, s.Case)
		}
		if !slices.Contains(p.tools, s.Tool) {
			p.tools = append(p.tools, s.Tool)
		}
	}
	slices.SortStableFunc(p.points, func(a, b point) int { return slices.Index(cases, a.kase) - slices.Index(cases, b.kase) })
	if i := slices.Index(p.tools, against); i > 0 {
		p.tools = slices.Insert(slices.Delete(p.tools, i, i+1), 0, against)
	}
	return p
}

// markdown is the pivot as a table, with a column a tool.
func (p pivot) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "| case | measure | %s |\n|---|---|%s\n", cells(p.tools), strings.Repeat("--:|", len(p.tools)))
	last := ""
	for _, at := range p.points {
		kase := at.kase
		if kase == last {
			kase = ""
		}
		last = at.kase
		var values []string
		for _, tool := range p.tools {
			s, ok := p.sums[at][tool]
			values = append(values, cell(s, ok))
		}
		fmt.Fprintf(&b, "| %s | %s |\n", cells([]string{kase, withUnit(at.measure, at.unit)}), cells(values))
	}
	return b.String()
}

// cell is a median, the 95th percentile if it is another, and the ratio, which
// would mislead where values are shares.
func cell(s figure.Summary, measured bool) string {
	if !measured {
		return "–"
	}
	text := figure.Number(s.Value)
	if p95 := figure.Number(s.P95); p95 != text {
		text += " (" + p95 + ")"
	}
	if !s.Against && !math.IsNaN(s.Ratio) && !strings.HasPrefix(s.Unit, "%") {
		text += " ×" + figure.Number(s.Ratio)
	}
	return text
}

func withUnit(measure, unit string) string {
	if unit == "" {
		return measure
	}
	return measure + ", " + unit
}

// cells are texts with what parts them.
func cells(texts []string) string {
	escaped := make([]string, len(texts))
	for i, text := range texts {
		escaped[i] = strings.ReplaceAll(text, "|", `\|`)
	}
	return strings.Join(escaped, " | ")
}
