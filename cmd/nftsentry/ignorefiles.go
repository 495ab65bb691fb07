package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"go.uber.org/zap"

	"nftsentry/conf"
	"nftsentry/conf/ignore"
	"nftsentry/controller"
)

// A listing is what has come of reading ignore.files. It is not changed: a new
// one takes its place, while guard.mu is held.
type listing struct {
	list ignore.List // in force
	err  error       // why the files cannot be read as they are now; nil if they can
	none bool        // they could not be read yet: nothing is noticed or blocked
}

// openIgnored reads ignore.files. That they cannot be read does not keep the
// daemon from running, and so from being asked.
func (g *guard) openIgnored(cfg conf.Config) error {
	g.follower = ignore.NewFollower(cfg.Ignore.Files, g.log.Named("ignore"))
	list, err := ignore.Read(cfg.Ignore.Files)
	l := &listing{list: list, err: err, none: err != nil}
	g.list.Store(l)
	if err != nil {
		l.complain(g.log)
	}
	return nil
}

// lookAtIgnored reads ignore.files again and takes over what has changed. It is
// called by the follower alone, and is always done.
func (g *guard) lookAtIgnored(ctx context.Context) (done bool) {
	g.mu.Lock() // a reload reads them too
	defer g.mu.Unlock()
	cfg := g.cfg.Load()
	list, err := ignore.Read(cfg.Ignore.Files)
	if errors.Is(err, fs.ErrPermission) {
		err = errors.Join(err, g.outside(*cfg))
	}
	old := g.list.Load()
	switch {
	case err != nil:
		l := &listing{list: old.list, err: err, none: old.none}
		g.list.Store(l)
		if old.err == nil || old.err.Error() != err.Error() {
			l.complain(g.log)
		}
	default:
		g.takeOver(ctx, old, list)
	}
	return true
}

// takeOver has the controller ignore what a list says, if that is new.
func (g *guard) takeOver(ctx context.Context, old *listing, list ignore.List) {
	if old.none || !list.Equal(old.list) {
		err := g.controller.SetListed(ctx, listedOf(list))
		if ctx.Err() != nil {
			return
		}
		if err != nil { // the controller has it, and tries on
			g.log.Error("cannot ignore yet who is listed in ignore.files; trying on", zap.Error(err))
		}
	}
	if old.err != nil {
		g.log.Info("ignore.files can be read again")
	}
	if old.none {
		g.resync()
	}
	g.list.Store(&listing{list: list})
}

// complain logs why files cannot be read, and what that means.
func (l *listing) complain(log *zap.Logger) {
	if l.none {
		log.Error("ignore.files cannot be read: nothing is noticed or blocked until they can be", zap.Error(l.err))
		return
	}
	log.Error("ignore.files cannot be read: the old list stays in force", zap.Error(l.err))
}

// problems says the same in a status, the first of many lines only.
func (l *listing) problems() []string {
	if l.err == nil {
		return nil
	}
	why := l.err.Error()
	var all ignore.Errors
	if errors.As(l.err, &all) && len(all) > 1 {
		why = fmt.Sprintf("%v (and %d more: see \"nftsentry check\")", all[0], len(all)-1)
	}
	if l.none {
		return []string{"nothing is noticed or blocked until ignore.files can be read: " + why}
	}
	return []string{"the old list of ignored sources stays in force, since ignore.files cannot be read: " + why}
}

// listedOf is a list as the controller looks it up. Files are called by their
// last names, as long as these differ.
func listedOf(list ignore.List) *controller.Listed {
	if len(list) == 0 {
		return nil
	}
	names := make(map[string]int)
	for _, f := range list {
		names[filepath.Base(f.Path)]++
	}
	files := make([]controller.ListedFile, len(list))
	for i, f := range list {
		files[i] = controller.ListedFile{Name: filepath.Base(f.Path), Sources: f.All()}
		if names[files[i].Name] > 1 {
			files[i].Name = f.Path
		}
	}
	return controller.NewListed(files...)
}
