package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// oldSuffix is what the name of an old file gets when a link takes its place.
const oldSuffix = ".before-nftsentry"

// A placedLink is a symbolic link to be made.
type placedLink struct {
	path, target string
	there        bool // there is an old file
}

// planLinks looks which links are to be made, and whether they can be.
func (t *takeover) planLinks() ([]placedLink, error) {
	var out []placedLink
	var errs []error
	found := make(map[string]bool)
	for _, f := range t.files {
		found[f.path] = true
		if !f.linked {
			errs = append(errs, freeToMove(f.path))
			out = append(out, placedLink{f.path, f.ours, true})
		}
	}
	for _, f := range t.places() {
		if !found[f.path] && t.expected(f) {
			out = append(out, placedLink{path: f.path, target: f.ours})
		}
	}
	return out, errors.Join(errs...)
}

// expected tells whether a file that is not there is one that scripts may read: of a mode that Portsentry runs in.
func (t *takeover) expected(f oldFile) bool {
	if info, err := os.Stat(filepath.Dir(f.path)); err != nil || !info.IsDir() || f.path == f.ours {
		return false
	}
	mode := filepath.Ext(f.path)
	return f.history || mode == "."+t.modes.TCP.Value || mode == "."+t.modes.UDP.Value
}

// freeToMove tells whether an old file can be moved away. A move that was cut short left two names of one file.
func freeToMove(path string) error {
	aside, err := os.Lstat(path + oldSuffix)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if old, err := os.Lstat(path); err == nil && os.SameFile(old, aside) {
		return nil
	}
	return fmt.Errorf("%s is there already, and so is %s again: move one of them away", path+oldSuffix, path)
}

// placeLinks makes the links.
func (t *takeover) placeLinks(links []placedLink) error {
	for _, l := range links {
		if err := l.place(); err != nil {
			return fmt.Errorf("the blocks and the history are taken over, but not all links are made: %w", err)
		}
		if l.there {
			t.say("%s: is a link to %s now; the old file is %s", l.path, l.target, filepath.Base(l.path)+oldSuffix)
		} else {
			t.say("%s: is a link to %s now", l.path, l.target)
		}
	}
	return nil
}

// place gives the old file its second name, and then puts the link over the first: at no time is there nothing.
func (l placedLink) place() error {
	temp := filepath.Join(filepath.Dir(l.path), "."+filepath.Base(l.path)+".link")
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(l.target, temp); err != nil {
		return err
	}
	if err := l.aside(); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	if err := os.Rename(temp, l.path); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return syncFolder(filepath.Dir(l.path))
}

// aside gives the old file its second name, unless it has that already.
func (l placedLink) aside() error {
	if !l.there {
		return nil
	}
	err := os.Link(l.path, l.path+oldSuffix)
	if errors.Is(err, fs.ErrExist) {
		return freeToMove(l.path)
	}
	return err
}
