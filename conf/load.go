package conf

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// maxSize is how large a file may be, in bytes.
const maxSize = 1 << 20

// Load reads a file. Its error is Errors if the file is wrong, and wraps
// fs.ErrNotExist if there is none.
func Load(path string) (Config, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Config{}, fmt.Errorf("%s: %w: name another file with -c, or leave -c out for the built-in defaults", path, fs.ErrNotExist)
	}
	if err != nil {
		return Config{}, fmt.Errorf("read the configuration: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return Config{}, fmt.Errorf("read the configuration: %w", err)
	}
	return Parse(path, data)
}

// Parse reads the text of a file; name is for its errors, which are Errors.
func Parse(name string, data []byte) (Config, error) {
	if len(data) > maxSize {
		return Config{}, Errors{{File: name, Line: 1, Column: 1, Problem: "the file is larger than 1 MiB: is this the configuration?"}}
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff")) // the mark that some editors begin files with
	doc, wrong := parseDocument(name, data)
	if wrong != nil {
		return Config{}, Errors{wrong}
	}
	c := Default()
	r := &reader{doc: doc}
	c.read(r)
	r.unknown()
	if len(r.errs) > 0 {
		r.errs.sort()
		return Config{}, r.errs
	}
	return c, nil
}
