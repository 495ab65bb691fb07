package ignore

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net/netip"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// maxSize is how large a file may be, in bytes.
const maxSize = 64 << 20

// A File is what a file has.
type File struct {
	Path    string
	Entries []Entry
}

// All gives the entries by their lines.
func (f File) All() iter.Seq2[int, netip.Prefix] {
	return func(yield func(int, netip.Prefix) bool) {
		for _, e := range f.Entries {
			if !yield(e.Line, e.Prefix) {
				return
			}
		}
	}
}

// A List is what some files have. It is not changed once it is read.
type List []File

// Len is how many entries there are.
func (l List) Len() int {
	n := 0
	for _, f := range l {
		n += len(f.Entries)
	}
	return n
}

// Equal tells whether two lists have the same entries on the same lines of the same files.
func (l List) Equal(m List) bool {
	return slices.EqualFunc(l, m, func(a, b File) bool { return a.Path == b.Path && slices.Equal(a.Entries, b.Entries) })
}

// Read reads all files, each of at most 64 MiB, MaxEntries in all. The error is of type Errors and has what is wrong
// with any of them; then there is no list.
func Read(paths []string) (List, error) {
	list := make(List, 0, len(paths))
	var wrong Errors
	for _, path := range paths {
		entries, err := readFile(path)
		var errs Errors
		if errors.As(err, &errs) {
			wrong = append(wrong, errs...)
			continue
		}
		list = append(list, File{path, entries})
		if list.Len() > MaxEntries {
			return nil, append(wrong, tooMany(path, 0))
		}
	}
	if len(wrong) > 0 {
		return nil, wrong
	}
	return list, nil
}

func readFile(path string) ([]Entry, error) {
	data, err := contents(path)
	var wrong *Error
	if errors.As(err, &wrong) {
		return nil, Errors{wrong}
	}
	if err != nil {
		return nil, Errors{{File: path, Problem: unreadable(err), Err: err}}
	}
	return Parse(path, data)
}

// contents reads a regular file. It never waits for the other end of a pipe.
func contents(path string) (data []byte, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	about, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !about.Mode().IsRegular() {
		return nil, &Error{File: path, Problem: "not a file of lines: name one in ignore.files, or take this out"}
	}
	tooLarge := &Error{File: path, Problem: fmt.Sprintf("larger than %d MiB: this cannot be a list of addresses; name another file in ignore.files", maxSize>>20)}
	if about.Size() > maxSize {
		return nil, tooLarge
	}
	var buf bytes.Buffer
	buf.Grow(int(about.Size()) + bytes.MinRead)
	if _, err := buf.ReadFrom(io.LimitReader(f, maxSize+1)); err != nil {
		return nil, err
	}
	if buf.Len() > maxSize { // it has grown
		return nil, tooLarge
	}
	return buf.Bytes(), nil
}

// unreadable says why a file cannot be read, and what to do.
func unreadable(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "there is no such file: create it, empty if nobody is to be ignored, or take it out of ignore.files"
	case errors.Is(err, fs.ErrPermission):
		return "no right to read it: give it to the user who runs nftsentry"
	}
	var at *fs.PathError
	if errors.As(err, &at) {
		err = at.Err
	}
	return fmt.Sprintf("cannot be read: %v: make it readable, or take it out of ignore.files", err)
}
