package conf

import (
	"fmt"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// maxKey is how long the name of a key may be, in bytes and in full: "ignore.sources[131071]" has 22. It bounds how deep a
// file can nest as well, since each level adds to the name.
const maxKey = 64

// A place is where a key stands and where its value begins and ends: offsets into the text. A table has an empty value at
// its key.
type place struct {
	key, value, end int
}

// lines are the offsets at which the lines of a text begin.
type lines []int

func linesOf(text string) lines {
	out := lines{0}
	for i := range len(text) {
		if text[i] == '\n' {
			out = append(out, i+1)
		}
	}
	return out
}

// position gives the line and the column of an offset, both from 1.
func (l lines) position(at int) (row, column int) {
	row, found := slices.BinarySearch(l, at)
	if found {
		row++
	}
	return row, at - l[row-1] + 1
}

// A scanner finds the places of all keys, since package toml tells those of syntax errors only. It reads all of TOML,
// judges nothing and never stops at a mistake: what it makes of a text that is no TOML, up to the first mistake, is right.
type scanner struct {
	text    string
	pos     int
	places  map[string]place
	counts  map[string]int // of the tables in an array of tables
	tooLong int            // offset of a key longer than maxKey, at which the scan ends; -1 if there is none
}

func scan(text string) *scanner {
	s := &scanner{text: text, places: make(map[string]place), counts: make(map[string]int), tooLong: -1}
	table := ""
	for s.space(); !s.done(); s.space() {
		if s.text[s.pos] == '[' {
			table = s.header()
		} else {
			s.pair(table, "#\n")
		}
		s.skip(func(r rune) bool { return r != '\n' })
	}
	return s
}

// header reads "[table]" or "[[table]]" and gives its name.
func (s *scanner) header() string {
	start := s.pos
	s.advance(1)
	array := s.eat('[')
	path := ""
	names := s.key()
	for i, name := range names {
		path = s.join(path, name, start)
		s.mark(path, place{start, start, start})
		if array && i == len(names)-1 {
			s.counts[path]++
		}
		if n := s.counts[path]; n > 0 {
			path = s.item(path, n-1, start)
			s.mark(path, place{start, start, start})
		}
	}
	return path
}

// pair reads "key = value". A value without quotes ends at one of stops.
func (s *scanner) pair(table, stops string) {
	start := s.pos
	path := table
	names := s.key()
	for i, name := range names {
		path = s.join(path, name, start)
		if i < len(names)-1 {
			s.mark(path, place{start, start, start})
		}
	}
	s.blank()
	if !s.eat('=') {
		return
	}
	s.blank()
	value := s.pos
	s.value(path, stops)
	s.mark(path, place{start, value, s.pos})
}

// value reads a value, and notes the places of all in it.
func (s *scanner) value(path, stops string) {
	switch {
	case s.done():
	case s.eat('['):
		s.items(func(i int) {
			item, start := s.item(path, i, s.pos), s.pos
			s.value(item, ",]}#\n")
			s.mark(item, place{start, start, s.pos})
		}, ']')
	case s.eat('{'):
		s.items(func(int) { s.pair(path, ",]}#\n") }, '}')
	case strings.IndexByte(`"'`, s.text[s.pos]) >= 0:
		s.quoted()
	default:
		raw, _ := leading(s.text[s.pos:], func(r rune) bool { return !strings.ContainsRune(stops, r) })
		s.advance(len(strings.TrimRight(raw, " \t\r")))
	}
}

// items reads what stands between brackets, with commas between.
func (s *scanner) items(read func(i int), closing byte) {
	for i := 0; ; i++ {
		s.space()
		start := s.pos
		if s.done() || s.eat(closing) {
			return
		}
		read(i)
		s.space()
		if !s.eat(',') && s.pos == start {
			return // no TOML
		}
	}
}

// key reads the names of a dotted key, as package toml would write them.
func (s *scanner) key() (names []string) {
	for more := true; more; more = s.eat('.') {
		s.blank()
		start := s.pos
		if !s.done() && strings.IndexByte(`"'`, s.text[s.pos]) >= 0 {
			s.quoted()
			names = append(names, unquoted(s.text[start:s.pos]))
		} else {
			s.skip(func(r rune) bool { return isLetter(r) || isDigit(r) || r == '-' || r == '_' })
			names = append(names, toml.Key{s.text[start:s.pos]}.String())
		}
		s.blank()
	}
	return names
}

// unquoted reads a name in quotes, as only package toml can.
func unquoted(raw string) string {
	var v struct{ Name string }
	if _, err := toml.Decode("name = "+raw, &v); err != nil {
		return raw // no TOML
	}
	return toml.Key{v.Name}.String()
}

// quoted reads a string, of one line or many.
func (s *scanner) quoted() {
	quote := s.text[s.pos : s.pos+1]
	closing := quote
	if long := strings.Repeat(quote, 3); strings.HasPrefix(s.text[s.pos:], long) {
		closing = long
	}
	s.advance(len(closing))
	for !s.done() && !strings.HasPrefix(s.text[s.pos:], closing) {
		switch {
		case s.text[s.pos] == '\n' && closing == quote:
			return // no TOML
		case s.text[s.pos] == '\\' && quote == `"`:
			s.advance(1)
		}
		s.advance(1)
	}
	s.advance(len(closing))
	for range 2 { // a long string may end with quotes of its own
		if closing != quote {
			s.eat(quote[0])
		}
	}
}

// join adds a name to that of its table.
func (s *scanner) join(table, name string, start int) string {
	if table != "" {
		name = table + "." + name
	}
	return s.bounded(name, start)
}

// item is the name of an item of an array.
func (s *scanner) item(array string, i, start int) string {
	return s.bounded(fmt.Sprintf("%s[%d]", array, i), start)
}

// bounded ends the scan at a name that is too long.
func (s *scanner) bounded(name string, start int) string {
	if len(name) <= maxKey {
		return name
	}
	if s.tooLong < 0 {
		s.tooLong = start
	}
	s.pos = len(s.text)
	return ""
}

// mark notes the place of a key. Of a table that is named more than once, it is the first.
func (s *scanner) mark(path string, p place) {
	if _, there := s.places[path]; !there && path != "" {
		s.places[path] = p
	}
}

func (s *scanner) done() bool { return s.pos >= len(s.text) }

func (s *scanner) advance(n int) { s.pos = min(s.pos+n, len(s.text)) }

func (s *scanner) skip(while func(rune) bool) {
	skipped, _ := leading(s.text[s.pos:], while)
	s.advance(len(skipped))
}

func (s *scanner) eat(c byte) bool {
	if s.done() || s.text[s.pos] != c {
		return false
	}
	s.pos++
	return true
}

// blank skips what may stand within a line.
func (s *scanner) blank() { s.skip(func(r rune) bool { return r == ' ' || r == '\t' }) }

// space skips what may stand between lines: white space and comments.
func (s *scanner) space() {
	for {
		s.skip(func(r rune) bool { return strings.ContainsRune(" \t\r\n", r) })
		if !s.eat('#') {
			return
		}
		s.skip(func(r rune) bool { return r != '\n' })
	}
}
