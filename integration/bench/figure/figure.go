// Package figure reads what benchmarks have measured, a value a line, and makes
// tables of it.
package figure

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// Header is the first line of a file: the names of the columns.
const Header = "case,tool,measure,unit,value"

// A Row is one measured value.
type Row struct {
	Case    string // what was done
	Tool    string // that did it
	Measure string // what was measured
	Unit    string // of the value; may be empty
	Value   float64
}

// CSV is the row as a line of RFC 4180, without its end.
func (r Row) CSV() string {
	var b strings.Builder
	w := csv.NewWriter(&b)
	_ = w.Write([]string{r.Case, r.Tool, r.Measure, r.Unit, strconv.FormatFloat(r.Value, 'g', -1, 64)})
	w.Flush()
	return strings.TrimSuffix(b.String(), "\n")
}

// Read reads a file: Header and the rows after it. The error names the line.
func Read(in io.Reader) (rows []Row, err error) {
	r := csv.NewReader(in)
	r.FieldsPerRecord = strings.Count(Header, ",") + 1
	head, err := r.Read()
	if err != nil {
		return nil, err
	}
	if got := strings.Join(head, ","); got != Header {
		return nil, fmt.Errorf("line 1: columns %q instead of %q", got, Header)
	}
	for {
		fields, err := r.Read()
		if errors.Is(err, io.EOF) {
			return rows, nil
		}
		if err != nil {
			return nil, err
		}
		value, err := strconv.ParseFloat(fields[4], 64)
		if err != nil {
			line, _ := r.FieldPos(4)
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
		rows = append(rows, Row{fields[0], fields[1], fields[2], fields[3], value})
	}
}

// A Summary is what a tool has come to in one measure of one case.
type Summary struct {
	Row             // its Value is the median
	N       int     // values
	P95     float64 // the 95th percentile, by nearest rank
	Ratio   float64 // of the median to that of the tool that others are compared with; NaN without one or if that is 0
	Against bool    // it is that tool
}

// Summarize makes a summary of each case, measure and tool, in the order in
// which they first come; against is the tool that others are compared with.
func Summarize(rows []Row, against string) []Summary {
	values := make(map[Row][]float64)
	var order []Row
	for _, r := range rows {
		key := r
		key.Value = 0
		if values[key] == nil {
			order = append(order, key)
		}
		values[key] = append(values[key], r.Value)
	}
	out := make([]Summary, 0, len(order))
	for _, key := range order {
		base := key
		base.Tool = against
		s := Summary{Row: key, N: len(values[key]), Ratio: math.NaN(), Against: key.Tool == against}
		s.Value, s.P95 = Quantile(values[key], 0.5), Quantile(values[key], 0.95)
		if b := Quantile(values[base], 0.5); b != 0 {
			s.Ratio = s.Value / b
		}
		out = append(out, s)
	}
	return out
}

// Quantile is the value below which, by nearest rank, the share q of values
// are; the middle of the two middle ones for a median. NaN for no values.
func Quantile(values []float64, q float64) float64 {
	n := len(values)
	if n == 0 {
		return math.NaN()
	}
	v := slices.Sorted(slices.Values(values))
	if q == 0.5 {
		return (v[(n-1)/2] + v[n/2]) / 2
	}
	return v[min(n-1, max(0, int(math.Ceil(q*float64(n)))-1))]
}

// Table is summaries as text.
func Table(summaries []Summary) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "case\tmeasure\ttool\tn\tmedian\t95 %\tratio")
	for _, s := range summaries {
		measure := s.Measure
		if s.Unit != "" {
			measure += ", " + s.Unit
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\t%s\n", s.Case, measure, s.Tool, s.N, Number(s.Value), Number(s.P95), s.ratio())
	}
	_ = w.Flush()
	return b.String()
}

func (s Summary) ratio() string {
	if s.Against || math.IsNaN(s.Ratio) {
		return ""
	}
	return Number(s.Ratio)
}

// Number is a value with three significant digits; from a hundred on it
// is whole, with a comma at each thousand. It is empty for NaN, and "∞" for
// what never ends.
func Number(v float64) string {
	switch a := math.Abs(v); {
	case math.IsNaN(v):
		return ""
	case math.IsInf(v, 1):
		return "∞"
	case a >= 99.95:
		return thousands(strconv.FormatFloat(v, 'f', 0, 64))
	case a >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}

// thousands puts commas into a whole number.
func thousands(digits string) string {
	digits, negative := strings.CutPrefix(digits, "-")
	for at := len(digits) - 3; at > 0; at -= 3 {
		digits = digits[:at] + "," + digits[at:]
	}
	if negative {
		return "-" + digits
	}
	return digits
}
