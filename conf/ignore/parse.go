package ignore

import (
	"bytes"
	"fmt"
	"unicode"
)

// MaxEntries is how many lines with an address or prefix all files together may have: the kernel has to take them in one
// transaction, during which nothing else is decided.
const MaxEntries = 131072

// Parse reads a file that is called name in errors, which are of type Errors. The entries are in the order of their
// lines. Data may be of any size and content.
func Parse(name string, data []byte) ([]Entry, error) {
	var entries []Entry
	wrong := bad{file: name}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	for number := 1; len(data) > 0; number++ {
		var line []byte
		line, data, _ = bytes.Cut(data, []byte("\n"))
		line = bytes.TrimFunc(line, unicode.IsSpace)
		p, found, problem := parseLine(line)
		switch {
		case problem != "":
			wrong.add(number, line, problem)
		case found && len(entries) == MaxEntries:
			return nil, Errors{tooMany(name, number)}
		case found:
			entries = append(entries, Entry{Prefix: p, Line: number})
		}
	}
	if err := wrong.err(); err != nil {
		return nil, err
	}
	return entries, nil
}

func tooMany(name string, line int) *Error {
	return &Error{
		File: name, Line: line,
		Problem: fmt.Sprintf("more than %d addresses and prefixes in all ignore.files: join neighbours into prefixes", MaxEntries),
	}
}
