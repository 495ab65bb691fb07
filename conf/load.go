package conf

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// maxSize is how large a file may be, in bytes.
const maxSize = 1 << 20

// Load reads a configuration file of at most 1 MiB. The error is of type Errors if the file has mistakes, and wraps
// fs.ErrNotExist if there is none.
func Load(path string) (Config, error) {
	data, err := read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Config{}, fmt.Errorf("%s: %w: name another file with -c, or leave -c out for the built-in defaults", path, fs.ErrNotExist)
	}
	if errors.Is(err, fs.ErrPermission) {
		return Config{}, fmt.Errorf("read the configuration: %w: run it as root", err)
	}
	if err != nil {
		return Config{}, fmt.Errorf("read the configuration: %w: %s", err, otherwise(err))
	}
	return Parse(path, data)
}

// otherwise says what to do about a file that cannot be read.
func otherwise(err error) string {
	if errors.Is(err, fs.ErrPermission) {
		return "run as root, or name another file with -c"
	}
	return "name another file with -c"
}

func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if len(data) > maxSize {
		return nil, fmt.Errorf("%s: larger than 1 MiB: this cannot be a configuration", path)
	}
	return data, nil
}

// Parse reads a configuration. The name is what errors call it, which are of type Errors.
func Parse(name string, data []byte) (Config, error) {
	c := Default()
	d := newDocument(name, data)
	if tree, ok := d.decode(); ok {
		d.assign(tree, c.settings())
		c.check(d)
	}
	if err := d.err(); err != nil {
		return Config{}, err
	}
	return c, nil
}
