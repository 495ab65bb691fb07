package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// insistAfter is after how many attempts a file that the disk does not give is taken for damaged.
const insistAfter = 3

// attach sees to it that there is a database that is at its path and can be written. It is called by Open and then by
// the goroutine in Run. If it fails, the database is the one before, or none.
func (s *Store) attach() error {
	o := opener{filepath.Join(s.dir, storeName), s.log, s.tries >= insistAfter}
	old := s.database()
	if old.inPlace(o.path) {
		return nil
	}
	if s.isRefused(o.path) {
		return fmt.Errorf("%s: %w: install that, or move the file away", o.path, errNewer)
	}
	err := s.replace(o, old)
	s.refused = nil
	if errors.Is(err, errNewer) {
		s.refused, _ = os.Lstat(o.path)
	}
	if err != nil {
		s.tries++
		return err
	}
	s.tries = 0
	return nil
}

// isRefused tells whether the file is still the one that was refused.
func (s *Store) isRefused(path string) bool {
	if s.refused == nil {
		return false
	}
	info, err := os.Lstat(path)
	return err == nil && os.SameFile(info, s.refused) && info.Size() == s.refused.Size() &&
		info.ModTime().Equal(s.refused.ModTime())
}

// replace puts another database in the place of old.
func (s *Store) replace(o opener, old *database) error {
	switch {
	case old == nil:
		return s.open(o, nil)
	case isAt(old.file, o.path) && old.failed.Load():
		s.use(nil)
		return errors.Join(old.close(), s.open(o, nil))
	case isAt(old.file, o.path) && old.readOnly:
		return s.open(o, old)
	}
	db, err := o.renew(old)
	if err != nil {
		return s.giveUp(o, old, err)
	}
	s.use(db)
	if old.failed.Load() {
		s.tell()
	}
	return old.close()
}

// open opens what is at the path, in the place of a database that could only be read, or of none.
func (s *Store) open(o opener, old *database) error {
	db, saved, err := o.open()
	if old == nil && s.tries == 0 {
		s.remember(saved)
	}
	switch {
	case err != nil:
		return err
	case db.readOnly && old != nil:
		return errors.Join(errReadOnly(o.path), db.close())
	}
	s.use(db)
	if old == nil {
		s.tell()
	}
	if db.readOnly {
		return errReadOnly(o.path)
	}
	return old.close()
}

func errReadOnly(path string) error {
	return &fs.PathError{Op: "write", Path: path, Err: unix.EROFS}
}

// giveUp decides what becomes of a database of which no copy could be made. One that cannot be read is salvaged at the
// next attempt, and one that the disk does not give is left alone. One that was deleted may take the very room that a
// copy needs: it goes to memory.
func (s *Store) giveUp(o opener, old *database, err error) error {
	if errors.Is(err, errDamaged) {
		old.failed.Store(true)
	}
	if errors.Is(err, unix.EIO) && s.tries >= insistAfter {
		s.use(nil) // another file may be read at the same place
		return errors.Join(err, old.close())
	}
	full := errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
	if !full || isAt(old.file, o.path) || old.failed.Load() {
		return err
	}
	live, unread := old.live()
	over, unread2 := old.over(maxOver / 2)
	if unread != nil || unread2 != nil {
		return errors.Join(err, unread, unread2)
	}
	services, unread := s.Served()
	s.remember(live)
	s.mu.Lock()
	for _, b := range over {
		if c := s.pending.of(b.Source); c.last == nil && !c.forgiven {
			c.last = &b
		}
	}
	if s.served == nil && unread == nil {
		s.served = &services
	}
	s.mu.Unlock()
	s.use(nil)
	return errors.Join(err, old.close())
}

// remember keeps live blocks in memory, but for those of which something newer is there.
func (s *Store) remember(blocks []Block) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range blocks {
		if s.pending[b.Source] == nil && s.taken[b.Source] == nil {
			s.pending[b.Source] = &change{live: &b}
			s.touched = true
		}
	}
}

// use makes db the database.
func (s *Store) use(db *database) {
	s.mu.Lock()
	before := s.db
	s.db = db
	s.mu.Unlock()
	s.tcp.stale, s.udp.stale, s.history.stale = true, true, true
	if before != nil || db == nil {
		return
	}
	owed, err := db.owed()
	if err == nil {
		err = s.history.resume(owed)
	}
	if err != nil {
		s.log.Warn("the history may lack its last lines", zap.Error(err))
	}
}

// tell tells that there are other live blocks on record.
func (s *Store) tell() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// publishMemory brings the blocked files in line with memory while there is no database.
func (s *Store) publishMemory() error {
	s.mu.Lock()
	idle := s.db != nil || !s.touched
	s.touched = false
	s.mu.Unlock()
	if idle {
		return nil
	}
	s.tcp.stale, s.udp.stale = true, true
	live := sync.OnceValues(s.rows)
	err := errors.Join(s.tcp.write(live, true), s.udp.write(live, true))
	if err != nil {
		s.mu.Lock()
		s.touched = true
		s.mu.Unlock()
	}
	return err
}
