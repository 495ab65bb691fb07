package portsentry

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// How large the files may be, in bytes.
const (
	MaxConfig  = 1 << 20  // a portsentry.conf, and Debian's file of modes
	MaxIgnore  = 64 << 20 // an ignore file
	MaxBlocked = 64 << 20 // a blocked file
)

// Read reads a regular file of at most so many bytes. A symbolic link is followed.
func Read(path string, most int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a FIFO is not waited for
	if err != nil {
		return nil, err
	}
	data, err := read(f, most)
	return data, errors.Join(err, f.Close())
}

func read(f *os.File, most int64) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file", f.Name())
	}
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > most {
		return nil, fmt.Errorf("%s: larger than %d MiB: this cannot be the file of Portsentry that it is named as", f.Name(), most>>20)
	}
	return data, nil
}
