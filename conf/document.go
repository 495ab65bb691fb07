package conf

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/BurntSushi/toml"
)

// A document is a file on its way to a Config: its text, where everything stands, and what is wrong.
type document struct {
	file   string
	text   string
	lines  lines
	places map[string]place
	errs   Errors
}

// newDocument takes a text with or without a byte order mark.
func newDocument(file string, data []byte) *document {
	text := strings.TrimPrefix(string(data), "\ufeff")
	return &document{file: file, text: text, lines: linesOf(text)}
}

// decode gives what the text means to TOML. If it means nothing, it reports why.
func (d *document) decode() (tree map[string]any, ok bool) {
	if at, problem := unreadable(d.text); problem != "" {
		d.add(at, "", problem)
		return nil, false
	}
	s := scan(d.text)
	d.places = s.places
	if s.tooLong >= 0 {
		d.add(s.tooLong, "", fmt.Sprintf("more than %d bytes of names, or brackets nested as deep: no key needs that", maxKey))
		return nil, false
	}
	if _, err := toml.Decode(d.text, &tree); err != nil {
		d.syntax(err)
		return nil, false
	}
	return tree, true
}

// unreadable finds what no text has.
func unreadable(text string) (at int, problem string) {
	for i, r := range text {
		if r == 0 {
			return i, "a NUL byte: save the file as text in UTF-8"
		}
		if _, width := utf8.DecodeRuneInString(text[i:]); r == utf8.RuneError && width == 1 {
			return i, fmt.Sprintf("the byte 0x%02x is not UTF-8: save the file as text in UTF-8", text[i])
		}
	}
	return 0, ""
}

// syntax reports an error of package toml.
func (d *document) syntax(err error) {
	var parse toml.ParseError
	if !errors.As(err, &parse) {
		d.add(0, "", err.Error())
		return
	}
	at := min(max(parse.Position.Start, 0), len(d.text))
	if key, value, found := d.bare(at); found {
		d.report(key, fmt.Sprintf("text must be in quotes, such as %q; only numbers, true and false go without", cut(value)))
		return
	}
	d.add(at, "", cutTo(line(uncapital(parse.Message)), 4*maxShown))
}

// bare finds the value without quotes that stands at an offset, unless it is meant as an integer.
func (d *document) bare(at int) (key, value string, found bool) {
	for key, p := range d.places {
		value := d.text[p.value:p.end]
		if p.value <= at && at < p.end && !strings.ContainsAny(value[:1], `"'[{`) && strings.Trim(value, "+-_0123456789") != "" {
			return key, value, true
		}
	}
	return "", "", false
}

// uncapital makes a message of package toml, which may be a sentence, one of ours.
func uncapital(s string) string {
	s = strings.TrimSuffix(s, ".")
	if acronym := strings.ToUpper(s[:min(2, len(s))]); strings.HasPrefix(s, acronym) {
		return s
	}
	first, width := utf8.DecodeRuneInString(s)
	return string(unicode.ToLower(first)) + s[width:]
}

// assign hands each value to its setting, and reports what has none.
func (d *document) assign(tree map[string]any, all settings) { d.assignTable("", tree, all) }

// assignTable hands each value of a table to its setting; "" is what stands outside of tables.
func (d *document) assignTable(table string, values map[string]any, all settings) {
	tables := all.tables()
	for _, name := range slices.Sorted(maps.Keys(values)) {
		key := toml.Key{name}.String()
		if table != "" {
			key = table + "." + key
		}
		if !slices.Contains(tables, key) {
			d.assignKey(key, values[name], all)
			continue
		}
		inner, ok := values[name].(map[string]any)
		if !ok {
			d.report(key, fmt.Sprintf("%s, must be a table: its keys follow a line [%s]", kind(values[name]), key))
			continue
		}
		d.assignTable(key, inner, all)
	}
}

func (d *document) assignKey(key string, value any, all settings) {
	s, ok := all.find(key)
	if !ok {
		d.add(d.places[key].key, key, unknown(key, isTable(value), all))
		return
	}
	s.take(field{d, key, value})
}

// isTable says whether a value is a table or an array of tables.
func isTable(value any) bool {
	switch value.(type) {
	case map[string]any, []map[string]any:
		return true
	}
	return false
}

// sound says whether nothing wrong is known of some keys and their items.
func (d *document) sound(keys ...string) bool {
	return !slices.ContainsFunc(d.errs, func(e *Error) bool {
		name, _, _ := strings.Cut(e.Key, "[")
		return slices.Contains(keys, name)
	})
}

// report adds a mistake in the value of a key.
func (d *document) report(key, problem string) { d.add(d.places[key].value, key, problem) }

// add adds a mistake at an offset; the key is "" where the text is no TOML.
func (d *document) add(at int, key, problem string) {
	row, column := d.lines.position(at)
	p := d.places[key]
	d.errs = append(d.errs, &Error{
		File: d.file, Line: row, Column: column,
		Key: line(key), Value: shown(d.text[p.value:p.end]), Problem: problem,
	})
}

// err gives the mistakes, sorted.
func (d *document) err() error {
	if len(d.errs) == 0 {
		return nil
	}
	slices.SortStableFunc(d.errs, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return d.errs
}
