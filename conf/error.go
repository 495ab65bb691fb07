package conf

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// An Error is one mistake in a file.
type Error struct {
	File   string // as its reader named it
	Line   int    // from 1
	Column int    // in bytes from 1, without a byte order mark: of the value, or of a key that is unknown
	Key    string // in full, such as "block.escalate[1]"; "" if the file is no TOML
	Value  string // as the file has it, on one line and at most 64 bytes; "" for a table
	// Problem says what is wrong and what is allowed.
	Problem string
}

// Error writes "file:line:column: key = value: problem" on one line, without the parts that are empty.
func (e *Error) Error() string {
	subject := e.Key
	if e.Value != "" {
		subject += " = " + e.Value
	}
	if subject != "" {
		subject += ": "
	}
	return fmt.Sprintf("%s:%d:%d: %s%s", e.File, e.Line, e.Column, subject, e.Problem)
}

// Errors are all mistakes in a file, one at least, in the order of their places.
type Errors []*Error

// Error has a line for each mistake.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, one := range e {
		lines[i] = one.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives the mistakes one by one.
func (e Errors) Unwrap() []error {
	out := make([]error, len(e))
	for i, one := range e {
		out[i] = one
	}
	return out
}

// maxShown is how much of what a file says goes into a message, in bytes.
const maxShown = 64

// cut shortens a text for a message to maxShown bytes.
func cut(s string) string { return cutTo(s, maxShown) }

// cutTo shortens a text to so many bytes, 3 or more, between two characters.
func cutTo(s string, most int) string {
	const more = "..."
	if len(s) <= most {
		return s
	}
	end := most - len(more)
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + more
}

// shown is how a message shows what a file has: of more than one line, the first.
func shown(raw string) string {
	first, _, more := strings.Cut(raw, "\n")
	if more {
		first = strings.TrimRight(first, " \t\r") + "..."
	}
	return cut(line(first))
}

// line makes one line of a text, where nothing moves the cursor or hides.
func line(s string) string {
	var b strings.Builder
	for _, r := range s {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
			continue
		}
		fmt.Fprintf(&b, `\u%04X`, r)
	}
	return b.String()
}
