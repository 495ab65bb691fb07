package ignore

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// An Error is one thing that is wrong with a file.
type Error struct {
	File string // as its reader named it
	Line int    // from 1; 0 for the file as a whole
	Text string // what stands there, at most 64 bytes; "" if that does not help
	// Problem says what is wrong and what to do.
	Problem string
	Err     error // of the system; nil for a bad line
}

// Error writes "file:line: text: problem" on one line, without the parts that there are not.
func (e *Error) Error() string {
	out := e.File + ":"
	if e.Line > 0 {
		out += strconv.Itoa(e.Line) + ":"
	}
	if e.Text != "" {
		out += " " + strconv.QuoteToGraphic(e.Text) + ":"
	}
	return out + " " + e.Problem
}

// Unwrap gives the error of the system.
func (e *Error) Unwrap() error { return e.Err }

// Errors are all that is wrong with some files, one at least, in the order of their places. Of a file with very many
// bad lines, the last one says how many more there are.
type Errors []*Error

// Error has a line for each.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, one := range e {
		lines[i] = one.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives them one by one.
func (e Errors) Unwrap() []error {
	out := make([]error, len(e))
	for i, one := range e {
		out[i] = one
	}
	return out
}

// maxBad is how many bad lines of a file are named.
const maxBad = 20

// bad are the bad lines of a file on the way to an error.
type bad struct {
	file  string
	named Errors
	more  int // that are not named
}

func (b *bad) add(line int, text []byte, problem string) {
	if len(b.named) < maxBad {
		b.named = append(b.named, &Error{File: b.file, Line: line, Text: cut(text), Problem: problem})
		return
	}
	b.more++
}

func (b *bad) err() error {
	if len(b.named) == 0 {
		return nil
	}
	if b.more > 0 {
		last := b.named[len(b.named)-1].Line
		return append(b.named, &Error{File: b.file, Line: last, Problem: fmt.Sprintf("and %d more bad lines after this one", b.more)})
	}
	return b.named
}

// cut shortens a text for a message to 64 bytes, between two characters.
func cut(text []byte) string {
	const most, more = 64, "..."
	if len(text) <= most {
		return string(text)
	}
	end := most - len(more)
	for end > most-len(more)-utf8.UTFMax && !utf8.RuneStart(text[end]) {
		end--
	}
	return string(text[:end]) + more
}
