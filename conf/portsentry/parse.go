package portsentry

import (
	"regexp"
	"slices"
	"strings"
)

// maxLine is how many bytes of a line Portsentry reads at once, its newline included: MAXBUF less the NUL at the end.
const maxLine = 1023

// A parser is a portsentry.conf on its way to a Config.
type parser struct {
	report
	version  Version
	settings map[string]Setting
}

// assignment is the start of a line that sets something, in the eyes of a person. Portsentry 1.2 wants an equals sign or
// a blank right behind the key, and then looks for a quote.
var assignment = regexp.MustCompile(`^([ \t]*)([A-Za-z_0-9]+)([ \t]*=?[ \t]*)(.*)$`)

// line reads one line, without its end.
func (p *parser) line(n int, s string) {
	if blank := strings.TrimSpace(s); blank == "" || blank[0] == '#' {
		return
	}
	if len(s) >= maxLine {
		p.wrong(n, "%d bytes long, and Portsentry reads %d of a line: make it shorter", len(s), maxLine-1)
		return
	}
	m := assignment.FindStringSubmatch(s)
	if m == nil {
		p.stray(n, s)
		return
	}
	indent, key, rest := m[1], m[2], m[4]
	if !p.known(n, key) {
		return
	}
	if problem := misplaced(indent, m[3]); problem != "" && p.version == V1 {
		p.trap(n, "%s: %s, so that Portsentry 1.2 never read the line: it does not count here either; take the blank out if it shall", key, problem)
		return
	}
	if indent != "" {
		p.wrong(n, "%s: the line begins with a blank, and Portsentry 2.x does not start with it: take the blank out", key)
		return
	}
	if value, ok := p.value(n, key, m[3], rest); ok {
		p.set(Setting{key, value, n})
	}
}

// misplaced says what is wrong with the white space around a key, in the eyes of 1.2.
func misplaced(indent, between string) string {
	switch {
	case indent != "":
		return "the line begins with a blank"
	case strings.HasPrefix(between, "\t"):
		return "a tab follows the key"
	}
	return ""
}

// stray answers for a line that sets nothing.
func (p *parser) stray(n int, s string) {
	if p.version == V1 {
		p.trap(n, "%q sets nothing: Portsentry 1.2 passed over it", shown(s))
		return
	}
	p.wrong(n, "%q sets nothing: put a # before it, or take it out", shown(s))
}

// known tells whether there is such a key, and says so if not.
func (p *parser) known(n int, key string) bool {
	known := slices.Contains(keys, key) && (p.version == V1 || !of1(key))
	hint := ""
	if upper := strings.ToUpper(key); !known && slices.Contains(keys, upper) && upper != key {
		hint = ": keys are in capitals, such as " + upper
	}
	switch {
	case known:
		return true
	case p.version == V1:
		p.trap(n, "%s: Portsentry 1.2 knows no such key and passed over it%s", shown(key), hint)
	case hint == "" && of1(key):
		p.wrong(n, "%s: only Portsentry 1.2 knows this key, and 2.x does not start with it: take it out, or leave out --mode", key)
	default:
		p.wrong(n, "%s: Portsentry 2.x knows no such key and does not start with it%s: take the line out", shown(key), hint)
	}
	return false
}

// value reads what is between the quotes.
func (p *parser) value(n int, key, between, rest string) (string, bool) {
	if between == "" || p.version == V2 && !strings.Contains(between, "=") {
		p.wrong(n, "%s: no \"=\" after the key: write %s=\"...\"", key, key)
		return "", false
	}
	if !strings.HasPrefix(rest, `"`) {
		p.wrong(n, "%s: the value is not in double quotes, so that Portsentry skips it: write %s=%q", key, key, shown(strings.Trim(rest, `'"`)))
		return "", false
	}
	value, tail, closed := strings.Cut(rest[1:], `"`)
	if !closed {
		p.wrong(n, "%s: the quote at the end is missing: write %s=%q", key, key, shown(value))
		return "", false
	}
	if i := strings.IndexFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f || p.version == V1 && r > '~' }); i >= 0 {
		p.wrong(n, "%s: a character that Portsentry %s cannot read, behind %q: take it out", key, p.version, shown(value[:i]))
		return "", false
	}
	if value == "" && p.version == V2 {
		p.wrong(n, "%s: no value, and Portsentry 2.x does not start without one: put a # before the line", key)
		return "", false
	}
	p.tail(n, key, value, strings.TrimSpace(tail))
	return value, true
}

// tail answers for what follows the second quote, which no version reads.
func (p *parser) tail(n int, key, value, tail string) {
	if tail != "" && tail[0] != '#' {
		p.trap(n, "%s: a value ends at its second quote, so that Portsentry read %q without %q: write single quotes inside of a value",
			key, shown(value), shown(tail))
	}
}

// set takes a setting. In 1.2 the first line of a key counts, in 2.x each replaces the one before, and who wrote two
// may not know.
func (p *parser) set(s Setting) {
	before, twice := p.settings[s.Key]
	switch {
	case !twice:
		p.settings[s.Key] = s
	case p.version == V1:
		p.trap(s.Line, "%s: a second time, and Portsentry 1.2 read line %d only: this one does not count here either", s.Key, before.Line)
	default:
		p.wrong(s.Line, "%s: a second time, after line %d: leave the one that you mean", s.Key, before.Line)
	}
}
