package conf

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestScan shows where keys and values are found. A table has an empty value.
func TestScan(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       map[string]string
	}{
		{"nothing", "# a = 1\n \t\n", map[string]string{}},
		{"keys", "a = 1\n  b=\"2\" # 3\nc = true", map[string]string{"a": "1", "b": `"2"`, "c": "true"}},
		{"table", "[a]\nb = 1\n[ c . 'd' ]\ne = 2\n", map[string]string{"a": "", "a.b": "1", "c": "", "c.d": "", "c.d.e": "2"}},
		{"dotted", "a . \"b\".c = 1\n", map[string]string{"a": "", "a.b": "", "a.b.c": "1"}},
		{"quoted name", "\"a.b\" = 1\n'c d' = 2\n\"\\u0065\" = 3\n\"\" = 4", map[string]string{
			`"a.b"`: "1", `"c d"`: "2", "e": "3", `""`: "4",
		}},
		{"array", "a = [1, \"]\", # ]\n [2],]\nb = 3", map[string]string{
			"a": "[1, \"]\", # ]\n [2],]", "a[0]": "1", "a[1]": `"]"`, "a[2]": "[2]", "a[2][0]": "2", "b": "3",
		}},
		{"inline table", "a = {b = 1, c.d = '}', }\ne = {}", map[string]string{
			"a": "{b = 1, c.d = '}', }", "a.b": "1", "a.c": "", "a.c.d": "'}'", "e": "{}",
		}},
		{"array of tables", "[[a]]\nb = 1\n[[a]]\nb = 2\n[a.c]\nd = 3\n", map[string]string{
			"a": "", "a[0]": "", "a[0].b": "1", "a[1]": "", "a[1].b": "2", "a[1].c": "", "a[1].c.d": "3",
		}},
		{"strings", "a = \"\"\nb = ''\nc = \"\\\"\\\\\"\nd = '\\'\ne = 1", map[string]string{
			"a": `""`, "b": "''", "c": `"\"\\"`, "d": `'\'`, "e": "1",
		}},
		{"long strings", "a = \"\"\"\nb = 1\n\\\"\"\"\"\"\"\nc = '''\n\\'''''\nd = 1", map[string]string{
			"a": "\"\"\"\nb = 1\n\\\"\"\"\"\"\"", "c": "'''\n\\'''''", "d": "1",
		}},
		{"without quotes", "a = 1979-05-27 07:32:00 # b\r\nc = [-1 , nan]\r\n", map[string]string{
			"a": "1979-05-27 07:32:00", "c": "[-1 , nan]", "c[0]": "-1", "c[1]": "nan",
		}},
		{"no TOML", "a\n= 1\nb = \nc = [1 2\nd = \"", map[string]string{
			`""`: "1", "b": "", "c": "[1 2\nd = \"", "c[0]": "1 2", "c[1]": "d = \"",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := make(map[string]string)
			for path, p := range scan(tt.text).places {
				got[path] = tt.text[p.value:p.end]
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("values (-want +got):\n%s", diff)
			}
		})
	}
}

// TestScanLimit shows that a name in full has at most maxKey bytes.
func TestScanLimit(t *testing.T) {
	full := strings.Repeat("a", maxKey)
	for text, want := range map[string]int{
		full + " = 1":                            -1,
		full + "a = 1":                           0,
		"\n[t]\n" + full[2:] + " = 1":            -1,
		"\n[t]\n" + full[1:] + " = 1":            5,
		"[[" + full[3:] + "]]":                   -1,
		"[[" + full[2:] + "]]":                   0,
		"a = " + strings.Repeat("[", maxKey/3):   -1,
		"a = " + strings.Repeat("[", maxKey/3+2): 5 + maxKey/3,
		"a = {" + full + " = 1}":                 5,
	} {
		if got := scan(text).tooLong; got != want {
			t.Errorf("%q: too long at %d, want %d", text, got, want)
		}
	}
}

func TestPosition(t *testing.T) {
	l := linesOf("ab\n\ncd")
	for at, want := range [][2]int{{1, 1}, {1, 2}, {1, 3}, {2, 1}, {3, 1}, {3, 2}, {3, 3}} {
		if row, column := l.position(at); row != want[0] || column != want[1] {
			t.Errorf("offset %d is %d:%d, want %d:%d", at, row, column, want[0], want[1])
		}
	}
}
