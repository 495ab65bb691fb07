package conf

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// A reader takes values out of a document by key and notes what is wrong with
// them. A target keeps its default where the document has no value or a
// wrong one.
type reader struct {
	doc   *document
	known []string // all keys that were asked for
	errs  Errors
}

// take is the value of a key, if there is one.
func (r *reader) take(key string) (*value, bool) {
	r.known = append(r.known, key)
	v, ok := r.doc.values[key]
	if ok {
		v.taken = true
	}
	return v, ok
}

// fail notes what is wrong with the value of a key.
func (r *reader) fail(key, problem string) {
	v := r.doc.values[key]
	if v == nil {
		v = &value{key: key, line: 1, column: 1} // a default that does not fit the other values
	}
	r.report(v, key, v.data, problem)
}

// failItem notes what is wrong with one item of an array.
func (r *reader) failItem(key string, i int, problem string) {
	v := r.doc.values[key]
	if v == nil {
		r.fail(key, problem)
		return
	}
	items, _ := v.data.([]any)
	if i < len(items) {
		r.report(v, fmt.Sprintf("%s[%d]", key, i), items[i], problem)
	}
}

func (r *reader) report(v *value, key string, data any, problem string) {
	shown := ""
	if data != nil {
		shown = show(data)
	}
	r.errs = append(r.errs, &Error{
		File: r.doc.name, Line: v.line, Column: v.column, Key: key, Value: shown, Problem: problem,
	})
}

// plain takes the value of a key that has to be of type T.
func plain[T any](r *reader, key, want string) (T, bool) {
	var none T
	v, ok := r.take(key)
	if !ok {
		return none, false
	}
	data, ok := v.data.(T)
	if !ok {
		r.fail(key, fmt.Sprintf("%s, not %s", want, kind(v.data)))
	}
	return data, ok
}

func choice[T ~string](r *reader, key string, target *T, allowed ...T) {
	quoted := make([]string, len(allowed))
	for i, a := range allowed {
		quoted[i] = fmt.Sprintf("%q", string(a))
	}
	want := "allowed is " + strings.Join(quoted, " or ")
	text, ok := plain[string](r, key, want)
	if !ok {
		return
	}
	if !slices.Contains(allowed, T(text)) {
		r.fail(key, want)
		return
	}
	*target = T(text)
}

func (r *reader) boolean(key string, target *bool) {
	if b, ok := plain[bool](r, key, "allowed is true or false"); ok {
		*target = b
	}
}

// integer reads a whole number from least to most; why says more about it.
func (r *reader) integer(key string, target *int, least, most int, why string) {
	want := fmt.Sprintf("allowed is %d to %d", least, most)
	if why != "" {
		want += ": " + why
	}
	n, ok := plain[int64](r, key, want)
	if !ok {
		return
	}
	if n < int64(least) || n > int64(most) {
		r.fail(key, want)
		return
	}
	*target = int(n)
}

func (r *reader) text(key string, target *string, check func(string) error) {
	text, ok := plain[string](r, key, "a string is needed")
	if !ok {
		return
	}
	if err := check(text); err != nil {
		r.fail(key, err.Error())
		return
	}
	*target = text
}

func (r *reader) ports(key string, target *[]PortRange) {
	text, ok := plain[string](r, key, `a string of ports and ranges is needed, such as "23,4000-4999"`)
	if !ok {
		return
	}
	ports, err := ParsePorts(text)
	if err != nil {
		r.fail(key, err.Error())
		return
	}
	*target = ports
}

func (r *reader) duration(key string, target *time.Duration, least, most time.Duration) {
	v, ok := r.take(key)
	if !ok {
		return
	}
	d, err := durationOf(v.data, least, most)
	if err != nil {
		r.fail(key, err.Error())
		return
	}
	*target = d
}

// durationOf reads a duration out of a TOML value. A bare number has no unit,
// and every program takes another one for it.
func durationOf(data any, least, most time.Duration) (time.Duration, error) {
	if n, ok := data.(int64); ok {
		return 0, fmt.Errorf("a duration needs a unit, such as \"%ds\"", n)
	}
	text, ok := data.(string)
	if !ok {
		return 0, fmt.Errorf("a duration is needed, such as \"10m\", not %s", kind(data))
	}
	d, err := ParseDuration(text)
	if err != nil {
		return 0, err
	}
	if d < least || d > most {
		return 0, fmt.Errorf("allowed is %s to %s", FormatDuration(least), FormatDuration(most))
	}
	return d, nil
}

// items reads an array, each item by itself. All of them have to be right.
func items[T any](r *reader, key, want string, target *[]T, parse func(any) (T, error)) {
	list, ok := plain[[]any](r, key, want)
	if !ok {
		return
	}
	var out []T
	wrong := false
	for i, item := range list {
		parsed, err := parse(item)
		if err != nil {
			r.failItem(key, i, err.Error())
			wrong = true
			continue
		}
		out = append(out, parsed)
	}
	if !wrong {
		*target = out
	}
}

func (r *reader) durations(key string, target *[]time.Duration, least, most time.Duration) {
	items(r, key, `an array of durations is needed, such as ["1h", "1d"]`, target, func(item any) (time.Duration, error) {
		return durationOf(item, least, most)
	})
}

func (r *reader) prefixes(key string, target *[]netip.Prefix) {
	items(r, key, `an array of addresses and prefixes is needed, such as ["192.0.2.0/24"]`, target, func(item any) (netip.Prefix, error) {
		text, ok := item.(string)
		if !ok {
			return netip.Prefix{}, fmt.Errorf("a string is needed, not %s", kind(item))
		}
		return parseSource(text)
	})
}

func (r *reader) texts(key string, target *[]string, check func(string) error) {
	items(r, key, "an array of strings is needed", target, func(item any) (string, error) {
		text, ok := item.(string)
		if !ok {
			return "", fmt.Errorf("a string is needed, not %s", kind(item))
		}
		return text, check(text)
	})
}

// unknown notes the keys and tables that nothing has asked for.
func (r *reader) unknown() {
	for key, v := range r.doc.values {
		if v.taken || v.isTable() && r.knownTable(key) || r.insideUnknown(key) {
			continue
		}
		switch {
		case r.knownTable(key):
			r.fail(key, fmt.Sprintf("%s is a table: write [%s], and its keys below", key, key))
		case v.isTable():
			r.report(v, "["+key+"]", nil, "no such table"+r.suggest(key))
		default:
			r.fail(key, "no such key"+r.suggest(key))
		}
	}
}

// knownTable tells whether a known key lies in the table of that name.
func (r *reader) knownTable(name string) bool {
	return slices.ContainsFunc(r.known, func(key string) bool { return strings.HasPrefix(key, name+".") })
}

// insideUnknown tells whether a key lies in a table that is itself unknown,
// or in what should be a value.
func (r *reader) insideUnknown(key string) bool {
	for i := range key {
		if key[i] != '.' {
			continue
		}
		if outer, ok := r.doc.values[key[:i]]; ok && outer.isTable() && !r.knownTable(key[:i]) {
			return true
		}
	}
	return false
}

// suggest names the key that was perhaps meant, or those that there are in
// the same table.
func (r *reader) suggest(key string) string {
	table := key[:strings.LastIndexByte(key, '.')+1]
	best, distance := "", 3
	var siblings []string
	for _, known := range r.known {
		if d := editDistance(key, known); d < distance {
			best, distance = known, d
		}
		name, inside := strings.CutPrefix(known, table)
		if !inside {
			continue
		}
		if name, _, _ = strings.Cut(name, "."); !slices.Contains(siblings, name) {
			siblings = append(siblings, name)
		}
	}
	if best != "" {
		return ", perhaps " + best
	}
	where := "here"
	if table != "" {
		where = "in [" + strings.TrimSuffix(table, ".") + "]"
	}
	return fmt.Sprintf(", %s there are %s", where, strings.Join(siblings, ", "))
}

// editDistance is how many letters have to be put in, taken out or changed to
// make one word of the other.
func editDistance(a, b string) int {
	if d := len(a) - len(b); d > 2 || d < -2 {
		return math.MaxInt // nobody asks
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
