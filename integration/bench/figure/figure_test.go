package figure

import (
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestReadBack(t *testing.T) {
	want := []Row{
		{"nmap -sS, IPv4", "nftsentry", "ports learnt", "", 3},
		{`a "quoted" case`, "portsentry tcp", "time to block", "ms", 0.1},
		{"two\nlines", "none", "rate", "packets/s", 1.5e9},
	}
	text := Header + "\n"
	for _, r := range want {
		text += r.CSV() + "\n"
	}
	got, err := Read(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestReadErrors(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"empty", "", "EOF"},
		{"other columns", "case,tool,measure,value,unit\n", `line 1: columns "case,tool,measure,value,unit" instead of "case,tool,measure,unit,value"`},
		{"a column short", Header + "\na,b,c,d,1\na,b,c,1\n", "record on line 3: wrong number of fields"},
		{"no number", Header + "\na,b,c,d,1\n\na,b,c,d,x\n", `line 4: strconv.ParseFloat: parsing "x": invalid syntax`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rows, err := Read(strings.NewReader(tt.text))
			if err == nil || err.Error() != tt.want {
				t.Errorf("want %q, got %v, %v", tt.want, rows, err)
			}
		})
	}
}

func TestSummarize(t *testing.T) {
	row := func(kase, tool string, v float64) Row { return Row{kase, tool, "time", "ms", v} }
	rows := []Row{
		row("b", "none", 1), row("b", "ours", 4), row("b", "none", 3), row("b", "ours", 2), row("b", "theirs", 9),
		row("a", "theirs", 7),
		row("c", "ours", 0), row("c", "theirs", 5),
	}
	got := Summarize(rows, "ours")
	want := []Summary{
		{Row: row("b", "none", 2), N: 2, P95: 3, Ratio: 2. / 3},
		{Row: row("b", "ours", 3), N: 2, P95: 4, Ratio: 1, Against: true},
		{Row: row("b", "theirs", 9), N: 1, P95: 9, Ratio: 3},
		{Row: row("a", "theirs", 7), N: 1, P95: 7, Ratio: math.NaN()},
		{Row: row("c", "ours", 0), N: 1, P95: 0, Ratio: math.NaN(), Against: true},
		{Row: row("c", "theirs", 5), N: 1, P95: 5, Ratio: math.NaN()},
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateNaNs()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestQuantile(t *testing.T) {
	hundred := make([]float64, 100)
	for i := range hundred {
		hundred[i] = float64(100 - i) // 100 to 1
	}
	tests := []struct {
		name   string
		values []float64
		q      float64
		want   float64
	}{
		{"none", nil, 0.5, math.NaN()},
		{"one", []float64{7}, 0.95, 7},
		{"median of three", []float64{9, 1, 5}, 0.5, 5},
		{"median of four", []float64{9, 1, 5, 6}, 0.5, 5.5},
		{"95 of a hundred", hundred, 0.95, 95},
		{"99 of a hundred", hundred, 0.99, 99},
		{"95 of five", []float64{1, 2, 3, 4, 5}, 0.95, 5},
		{"least", hundred, 0, 1},
		{"most", hundred, 1, 100},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := Quantile(tt.values, tt.q); !cmp.Equal(tt.want, got, cmpopts.EquateNaNs()) {
				t.Errorf("want %v, got %v", tt.want, got)
			}
		})
	}
	if want, got := 100., hundred[0]; want != got {
		t.Errorf("the values were sorted in place: want %v first, got %v", want, got)
	}
}

func TestNumber(t *testing.T) {
	tests := []struct {
		value float64
		want  string
	}{
		{math.NaN(), ""}, {math.Inf(1), "∞"}, {0, "0"}, {3, "3"}, {0.12345, "0.123"}, {9.876, "9.88"}, {12.345, "12.3"}, {99.94, "99.9"}, {99.96, "100"},
		{100, "100"}, {999.4, "999"}, {999.6, "1,000"}, {65536, "65,536"}, {1234567.8, "1,234,568"}, {-1234, "-1,234"}, {-123, "-123"},
	}
	for _, tt := range tests {
		if got := Number(tt.value); got != tt.want {
			t.Errorf("%v: want %q, got %q", tt.value, tt.want, got)
		}
	}
}

func TestTable(t *testing.T) {
	rows := []Row{{"a", "ours", "time", "ms", 2}, {"a", "theirs", "time", "ms", 3000}, {"a", "theirs", "blocks", "", 1}}
	want := `case  measure   tool    n  median  95 %   ratio
a     time, ms  ours    1  2       2      
a     time, ms  theirs  1  3,000   3,000  1,500
a     blocks    theirs  1  1       1      
`
	if diff := cmp.Diff(want, Table(Summarize(rows, "ours"))); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
