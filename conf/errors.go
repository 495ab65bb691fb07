package conf

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// An Error is one mistake in a configuration file.
type Error struct {
	File    string
	Line    int    // from 1
	Column  int    // from 1, in bytes; where the value begins
	Key     string // such as "block.timeout"; "" for an error of syntax
	Value   string // as TOML would write it, cut to 64 bytes; "" for a table
	Problem string // what is wrong, and what is allowed
}

// Error is "file:line:column: key = value: problem".
func (e *Error) Error() string {
	text := fmt.Sprintf("%s:%d:%d: ", e.File, e.Line, e.Column)
	if e.Key != "" {
		text += e.Key
		if e.Value != "" {
			text += " = " + e.Value
		}
		text += ": "
	}
	return text + e.Problem
}

// Errors are all mistakes of a file, in the order of their lines.
type Errors []*Error

// Error has a line for each mistake.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, one := range e {
		lines[i] = one.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives the single mistakes.
func (e Errors) Unwrap() []error {
	out := make([]error, len(e))
	for i, one := range e {
		out[i] = one
	}
	return out
}

func (e Errors) sort() {
	slices.SortStableFunc(e, func(a, b *Error) int { return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column)) })
}

// maxShown is how many bytes of a value a message has.
const maxShown = 64

// show writes a value as TOML would.
func show(v any) string {
	var text string
	switch v := v.(type) {
	case string:
		text = fmt.Sprintf("%q", v)
	case []any:
		items := make([]string, 0, len(v))
		for _, item := range v {
			items = append(items, show(item))
		}
		text = "[" + strings.Join(items, ", ") + "]"
	case map[string]any, []map[string]any:
		return ""
	default:
		text = fmt.Sprint(v)
	}
	if len(text) <= maxShown {
		return text
	}
	cut := maxShown
	for !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + "..."
}
