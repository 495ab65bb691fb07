package conf

import (
	"fmt"
	"slices"
	"strings"
)

// unknown says what may be meant by a key or a table that is none of ours: what is spelled nearly so, else a key of this
// name in another table, else what there is.
func unknown(key string, table bool, all settings) string {
	if table {
		return unknownTable(key, all)
	}
	if near := Nearest(key, all.keys()); near != "" {
		return fmt.Sprintf("unknown key: did you mean %s?", near)
	}
	where, name := split(key)
	for _, other := range all.keys() {
		if _, n := split(other); n == name {
			return fmt.Sprintf("unknown key: did you mean %s?", other)
		}
	}
	here := strings.Join(all.in(where), ", ")
	if where == "" {
		return fmt.Sprintf("unknown key: outside of tables there is %s", here)
	}
	return fmt.Sprintf("unknown key: %s has %s", header(where), here)
}

func unknownTable(name string, all settings) string {
	headers := all.headers()
	var names []string
	for _, one := range headers {
		names = append(names, strings.Trim(one, "[]"))
	}
	if near := Nearest(name, names); near != "" {
		return fmt.Sprintf("unknown table: did you mean %s?", headers[slices.Index(names, near)])
	}
	if where, _ := split(name); strings.HasSuffix(where, "]") {
		return fmt.Sprintf("unknown table: %s has %s", header(where), strings.Join(all.in(where), ", "))
	}
	return fmt.Sprintf("unknown table: there are %s", strings.Join(headers, ", "))
}

// header is how a table begins, of which a key of an array of tables is one.
func header(table string) string {
	name, _, _ := strings.Cut(table, "[")
	if section, ok := sectionHeaders[name]; ok {
		return section
	}
	return "[" + table + "]"
}

// Nearest gives the name that is spelled nearly so, "" if there is none: one slip is forgiven, or two in a long name.
func Nearest(name string, names []string) string {
	_, leaf := split(name)
	slips := 1
	if len(leaf) >= 6 {
		slips = 2
	}
	best := ""
	for _, other := range names {
		if len(name)-len(other) > slips || len(other)-len(name) > slips {
			continue // as many slips at least
		}
		if n := distance(strings.ToLower(name), other); n <= slips {
			best, slips = other, n-1
		}
	}
	return best
}

// distance is how many slips part two words, which are short: a letter more, less, another or swapped with its neighbour
// (optimal string alignment).
func distance(a, b string) int {
	var before, above []int // rows of the matrix, of the letters of a until the last two
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before, above, row = above, row, []int{i + 1}
		for j := range len(b) {
			n := above[j]
			if a[i] != b[j] {
				n = 1 + min(n, above[j+1], row[j])
			}
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				n = min(n, 1+before[j-1])
			}
			row = append(row, n)
		}
	}
	return row[len(b)]
}
