package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"nftsentry/conf/portsentry"
)

// An oldFile is a file that Portsentry writes, which is there.
type oldFile struct {
	path    string
	ours    string    // the file of ours that takes its place
	history bool      // or else blocked hosts
	linked  bool      // the path is a link to ours already
	written time.Time // when it was last written to
}

// find looks for the files that Portsentry writes.
func (t *takeover) find() error {
	var errs []error
	for _, f := range t.places() {
		there, err := f.look()
		errs = append(errs, err)
		if there {
			t.files = append(t.files, f)
		}
	}
	return errors.Join(errs...)
}

// places are where Portsentry may have written: 1.2 to a file for each mode, 2.x to one.
func (t *takeover) places() []oldFile {
	var out []oldFile
	dir := t.cfg.State.Dir
	if path := t.config.Get("BLOCKED_FILE"); path != "" {
		if t.config.Version == portsentry.V2 {
			out = append(out, oldFile{path: path})
		} else {
			for _, mode := range slices.Concat(portsentry.ModesTCP, portsentry.ModesUDP) {
				out = append(out, oldFile{path: path + "." + mode, ours: filepath.Join(dir, blockedPrefix+protocolOf(mode))})
			}
		}
	}
	if path := t.config.Get("HISTORY_FILE"); path != "" {
		out = append(out, oldFile{path: path, ours: filepath.Join(dir, historyName), history: true})
	}
	return out
}

// look tells whether the file is there, and is another than ours. A symbolic link is not followed: it may be ours, or
// else nobody knows whose.
func (f *oldFile) look() (there bool, err error) {
	info, err := os.Lstat(f.path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		target, err := os.Readlink(f.path)
		if err != nil {
			return false, err
		}
		if f.linked = f.ours != "" && target == f.ours; !f.linked {
			return false, fmt.Errorf("%s: is a symbolic link to %s, which is not followed: put the file itself there, or remove the link", f.path, target)
		}
		return true, nil
	}
	if !info.Mode().IsRegular() {
		return false, fmt.Errorf("%s: is not a regular file: move it away", f.path)
	}
	f.written = info.ModTime()
	if ours, err := os.Lstat(f.ours); err == nil && os.SameFile(info, ours) {
		return false, nil
	}
	return true, nil
}

// openOld opens a file of Portsentry's, and nothing that somebody has put into its place.
func openOld(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s: is not a regular file: move it away", path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// readOld reads a file of Portsentry's of at most so many bytes.
func readOld(path string, most int64) ([]byte, error) {
	f, err := openOld(path)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if int64(len(data)) > most {
		return nil, fmt.Errorf("%s: larger than %d MiB: take out what is no longer true", path, most>>20)
	}
	return data, nil
}
