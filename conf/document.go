package conf

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/BurntSushi/toml"
)

// A document is a parsed file: its values and tables by their full keys.
type document struct {
	name   string
	values map[string]*value
}

// A value is what stands for a key: a plain value, an array or a table.
type value struct {
	key          string
	data         any
	line, column int
	taken        bool
}

// isTable tells a table, or an array of tables, from values.
func (v *value) isTable() bool {
	switch v.data.(type) {
	case map[string]any, []map[string]any:
		return true
	}
	return false
}

// parseDocument reads TOML. Its error is one of syntax.
func parseDocument(name string, data []byte) (*document, *Error) {
	if i := bytes.IndexByte(data, 0); i >= 0 {
		return nil, at(name, data, i, "a zero byte: this is not a text file")
	}
	if i := invalidUTF8(data); i >= 0 {
		return nil, at(name, data, i, "this is not UTF-8: save the file in that encoding")
	}
	text := strings.ReplaceAll(string(data), "\r\n", "\n")
	var top map[string]toml.Primitive
	md, err := toml.Decode(text, &top)
	if err != nil {
		return nil, syntaxError(name, text, err)
	}
	d := &document{name: name, values: make(map[string]*value)}
	d.add(&md, text, "", top)
	return d, nil
}

func invalidUTF8(data []byte) int {
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return -1
}

func syntaxError(name, text string, err error) *Error {
	var parse toml.ParseError
	if !errors.As(err, &parse) {
		return &Error{File: name, Line: 1, Column: 1, Problem: err.Error()}
	}
	return at(name, []byte(text), parse.Position.Start, strings.TrimSuffix(parse.Message, "."))
}

// at is an error at a place in the text.
func at(name string, data []byte, offset int, problem string) *Error {
	line, column := position(string(data), offset)
	return &Error{File: name, Line: line, Column: column, Problem: problem}
}

// position is the line and column, from 1, of an offset in bytes.
func position(text string, offset int) (line, column int) {
	before := text[:min(max(offset, 0), len(text))]
	return strings.Count(before, "\n") + 1, len(before) - strings.LastIndexByte(before, '\n')
}

// add takes values and, within tables, theirs into the document.
func (d *document) add(md *toml.MetaData, text, table string, values map[string]toml.Primitive) {
	for name, p := range values {
		key := table + name
		v := locate(md, text, key, p)
		d.values[key] = v
		if _, ok := v.data.(map[string]any); !ok {
			continue
		}
		var inner map[string]toml.Primitive
		if md.PrimitiveDecode(p, &inner) == nil {
			d.add(md, text, key+".", inner)
		}
	}
}

// A locator takes any value and refuses it: the library tells the place of a
// value only with an error.
type locator struct{ data any }

var errLocated = errors.New("located")

func (l *locator) UnmarshalTOML(data any) error {
	l.data = data
	return errLocated
}

func locate(md *toml.MetaData, text, key string, p toml.Primitive) *value {
	var l locator
	v := &value{key: key, line: 1, column: 1}
	var parse toml.ParseError
	if errors.As(md.PrimitiveDecode(p, &l), &parse) {
		start := parse.Position.Start
		for start > 0 && start <= len(text) && strings.IndexByte("\"'[", text[start-1]) >= 0 {
			start-- // the library's place is behind what opens the value
		}
		v.line, v.column = position(text, start)
	}
	v.data = l.data
	return v
}

// kind names the type of a value as TOML does.
func kind(data any) string {
	switch data.(type) {
	case string:
		return "a string"
	case int64:
		return "an integer"
	case float64:
		return "a float"
	case bool:
		return "a boolean"
	case []any:
		return "an array"
	case map[string]any, []map[string]any:
		return "a table"
	}
	return fmt.Sprintf("a %T", data)
}
