package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nftsentry/integration/bench/figure"
)

// TestTablesAreOfTheFigures fails when a page tells other figures than the raw
// values beside it.
func TestTablesAreOfTheFigures(t *testing.T) {
	t.Chdir("../../..")
	have := func(file string) string {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	filled, err := fillPage(have(page), data)
	if err != nil {
		t.Fatalf("%s:%v", page, err)
	}
	all, err := fullTables(data)
	if err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{page: filled, full: all} {
		if diff := cmp.Diff(want, have(file)); diff != "" {
			t.Errorf("%s is not what make bench-report writes (-want +got)\n%s", file, diff)
		}
	}
}

// raw is what the tests make tables of.
const raw = figure.Header + `
scan,none,ports,,1024
scan,nftsentry,ports,,3
scan,nftsentry,ports,,4
scan,nftsentry,ports,,3
scan,nftsentry,time,ms,0.5
"a|b, 1,000 blocks",portsentry tcp,time,ms,8
"a|b, 1,000 blocks",nftsentry,time,ms,2
scan,portsentry tcp,ports,,30
"a|b, 20 blocks",portsentry tcp,time,ms,0
"a|b, 20 blocks",nftsentry,CPU,% of a core,1
"a|b, 20 blocks",none,CPU,% of a core,2
`

func measured(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"leak.csv": raw, "broken.csv": figure.Header + "\na,b,c,d,x\n", "machine.txt": "CPU  fast\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestFillPage(t *testing.T) {
	const before = `# Title

<!-- table leak -->
old
<!-- end -->
between
<!-- table leak: ports -->
<!-- end -->
<!-- file machine.txt -->
<!-- end -->
<!-- table rest -->
<!-- end -->
`
	const want = `# Title

<!-- table leak -->

| case | measure | nftsentry | none | portsentry tcp |
|---|---|--:|--:|--:|
| scan | ports | 3 (4) | 1,024 ×341 | 30.0 ×10.0 |
|  | time, ms | 0.5 | – | – |
| a\|b, 1,000 blocks | time, ms | 2 | – | 8 ×4 |
| a\|b, 20 blocks | time, ms | – | – | 0 |
|  | CPU, % of a core | 1 | 2 | – |

<!-- end -->
between
<!-- table leak: ports -->

| case | measure | nftsentry | none | portsentry tcp |
|---|---|--:|--:|--:|
| scan | ports | 3 (4) | 1,024 ×341 | 30.0 ×10.0 |

<!-- end -->
<!-- file machine.txt -->

` + "```\nCPU  fast\n```" + `

<!-- end -->
<!-- table rest -->

TODO(figures): there is no rest yet.

<!-- end -->
`
	dir := measured(t)
	once, err := fillPage(before, dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, once); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	twice, err := fillPage(once, dir)
	if err != nil || twice != once {
		t.Errorf("filled once more it changes: %v\n%s", err, cmp.Diff(once, twice))
	}
}

func TestFillPageErrors(t *testing.T) {
	dir := measured(t)
	tests := []struct{ name, text, want string }{
		{"no end", "a\n<!-- table leak -->\nb\n", `2: no "<!-- end -->"`},
		{"two beginnings", "<!-- table leak -->\n<!-- table leak -->\n", `1: no "<!-- end -->" before the next beginning`},
		{"no beginning", "a\n\n<!-- end -->\n", `3: "<!-- end -->" without a beginning`},
		{"no such measure", "<!-- table leak: ports; nothing -->\n<!-- end -->\n", `1: leak.csv has no measure "nothing"`},
		{"not a number", "<!-- table broken -->\n<!-- end -->\n", `1: ` + filepath.Join(dir, "broken.csv") + `: line 2: strconv.ParseFloat: parsing "x": invalid syntax`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := fillPage(tt.text, dir); err == nil || err.Error() != tt.want {
				t.Errorf("want %q, got %v\n%s", tt.want, err, got)
			}
		})
	}
}

func summaries(t *testing.T) []figure.Summary {
	t.Helper()
	rows, err := figure.Read(strings.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	return figure.Summarize(rows, against)
}

func TestBars(t *testing.T) {
	const want = `$cases << END
1 "scan"
3.5 "a|b, 1,000 blocks"
6 "a|b, 20 blocks"
END
$data << END
1 1 0.5 0.5 "0.5"
3 1 2 2 "2"
4 2 8 8 "8"
6 2 0 0 "0"
END
rows = 7
tools = '"nftsentry" "portsentry tcp"'
unit = "ms"
least = 0.5
most = 8
`
	var got strings.Builder
	if err := bars(&got, summaries(t), "time", regexp.MustCompile("")); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestLines(t *testing.T) {
	const want = `$data << END
20 ? 0
1000 2 8
END
tools = '"nftsentry" "portsentry tcp"'
unit = "ms"
least = 2
most = 8
`
	var got strings.Builder
	if err := lines(&got, summaries(t), "time", regexp.MustCompile(`([\d,]+) blocks`)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestPlotErrors(t *testing.T) {
	var out strings.Builder
	sums := summaries(t)
	for name, err := range map[string]error{
		`"nothing": there are no values of it in these cases`:  bars(&out, sums, "nothing", regexp.MustCompile("")),
		`"ports": there are no values of it in these cases`:    lines(&out, sums, "ports", regexp.MustCompile(`(\d+) blocks`)),
		`blocks: it takes one group, which matches the number`: lines(&out, sums, "time", regexp.MustCompile("blocks")),
		`"scan": strconv.Atoi: parsing "s": invalid syntax`:    lines(&out, sums, "time", regexp.MustCompile("^(s)")),
	} {
		if err == nil || err.Error() != name {
			t.Errorf("want %q, got %v", name, err)
		}
	}
}
