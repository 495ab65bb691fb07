package portsentry

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxReported bounds the mistakes, and the traps, that are told of one file: one that is no such file at all has as many
// as lines.
const maxReported = 100

// An Error is one mistake in a file.
type Error struct {
	File    string // as its reader named it
	Line    int    // from 1; 0 for the file as a whole
	Problem string // what is wrong and what to do
}

// Error writes "file:line: problem" on one line.
func (e *Error) Error() string { return at(e.File, e.Line) + ": " + e.Problem }

// Errors are all mistakes in a file, one at least, in the order of their lines; of more than a hundred, the first.
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

// A Trap is a line that Portsentry read in another way than it was meant.
type Trap struct {
	File string // as its reader named it
	Line int    // from 1; 0 for the file as a whole
	Text string // what Portsentry made of it, and what to write
}

// String writes "file:line: text" on one line.
func (t Trap) String() string { return at(t.File, t.Line) + ": " + t.Text }

func at(file string, line int) string {
	if line == 0 {
		return file
	}
	return fmt.Sprintf("%s:%d", file, line)
}

// A report collects what is said of one file.
type report struct {
	file  string
	errs  Errors
	traps []Trap
}

func (r *report) wrong(line int, format string, args ...any) {
	if len(r.errs) < maxReported {
		r.errs = append(r.errs, &Error{r.file, line, fmt.Sprintf(format, args...)})
	}
}

func (r *report) trap(line int, format string, args ...any) {
	if len(r.traps) < maxReported {
		r.traps = append(r.traps, Trap{r.file, line, fmt.Sprintf(format, args...)})
	}
}

// err gives the mistakes; nil for none.
func (r *report) err() error {
	if len(r.errs) == 0 {
		return nil
	}
	return r.errs
}

// text reports what no text has, and tells whether there is nothing of it.
func (r *report) text(data []byte) bool {
	row := 1
	for len(data) > 0 {
		c, width := utf8.DecodeRune(data)
		switch {
		case c == 0:
			r.wrong(row, "a NUL byte: this is no text, name the file that Portsentry reads")
			return false
		case c == utf8.RuneError && width == 1:
			r.wrong(row, "the byte 0x%02x is not UTF-8: write this line in ASCII", data[0])
			return false
		case c == '\n':
			row++
		}
		data = data[width:]
	}
	return true
}

// shown is how a message shows what a file has: on one line, of at most 64 bytes.
func shown(s string) string {
	const most = 64
	var b strings.Builder
	for _, r := range s {
		if !unicode.IsPrint(r) {
			r = '?'
		}
		if b.Len()+utf8.RuneLen(r) > most {
			return b.String() + "..."
		}
		b.WriteRune(r)
	}
	return b.String()
}
