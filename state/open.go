package state

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	bolt "go.etcd.io/bbolt"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// maxAside bounds the files that are moved out of the way of the store: a disk that spoils all that it is given must
// not be filled with them.
const maxAside = 16

// opener opens the store at a path, or makes it.
type opener struct {
	path string
	log  *zap.Logger
	// insist takes a file that the disk does not give for damaged. That may pass, so that it is tried again before.
	insist bool
}

// open opens the store. What is damaged is moved aside, and what can be read of it goes to a new one; where no new one
// can be made, its live blocks are returned with the error. A store that cannot be written is opened for reading.
func (o opener) open() (db *database, saved []Block, err error) {
	f, readOnly, err := o.openFile()
	if errors.Is(err, fs.ErrNotExist) {
		db, err = o.build(func(f *os.File) (*database, error) { return o.fill(f, nil) }, nil)
		return db, nil, err
	}
	if err != nil {
		return nil, nil, err
	}
	version, err := checkFile(f)
	if errors.Is(err, errDamaged) || err != nil && o.insist && !errors.Is(err, errNewer) {
		db, saved, err = o.replaceDamaged(f, readOnly, err)
		return db, saved, errors.Join(err, release(f))
	}
	if err == nil {
		db, err = attach(f, readOnly, o.log)
	}
	if err == nil && version == "" && !readOnly {
		err = db.create()
	}
	if err != nil {
		return nil, nil, errors.Join(err, release(f))
	}
	return db, nil, nil
}

// openFile opens and locks the file, for reading only if it cannot be written.
func (o opener) openFile() (f *os.File, readOnly bool, err error) {
	if err := makeDir(filepath.Dir(o.path)); err != nil {
		return nil, false, err
	}
	f, err = lockFile(o.path, os.O_RDWR)
	if errors.Is(err, unix.EROFS) || errors.Is(err, fs.ErrPermission) {
		f, err = lockFile(o.path, os.O_RDONLY)
		readOnly = true
	}
	return f, readOnly, err
}

// lockFile opens the file and locks it, against writers if it is for reading only, and else against all.
func lockFile(path string, flag int) (*os.File, error) {
	how := unix.LOCK_EX
	if flag&(os.O_RDWR|os.O_WRONLY) == 0 {
		how = unix.LOCK_SH
	}
	for began := time.Now(); ; {
		f, err := openFile(path, flag, 0o600)
		if err != nil {
			return nil, err
		}
		err = unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		if err == nil && isAt(f, path) {
			return f, nil
		}
		if other := errors.Join(ignore(err, unix.EWOULDBLOCK), f.Close()); other != nil {
			return nil, other
		}
		if time.Since(began) >= lockTimeout {
			return nil, ErrLocked
		}
		time.Sleep(lockTimeout / 4)
	}
}

func ignore(err, which error) error {
	if errors.Is(err, which) {
		return nil
	}
	return err
}

// isAt tells whether the file is what is at the path: another process may have moved it since it was opened.
func isAt(f *os.File, path string) bool {
	own, err := f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Lstat(path)
	return err == nil && os.SameFile(own, there)
}

// checkFile reads the whole file and returns the version of its format, "" if it has none yet.
func checkFile(f *os.File) (version string, err error) {
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	return check(f, info.Size())
}

func check(r io.ReaderAt, size int64) (version string, err error) {
	p, err := openPages(r, size)
	if err != nil {
		return "", err
	}
	err = p.check(func(bucket string, key, value []byte) error {
		if bucket == string(metaBucket) && string(key) == string(formatKey) {
			version = string(value)
		}
		return nil
	})
	if other := checkFormat(version); other != nil {
		return "", other
	}
	for _, name := range [][]byte{liveBucket, endedBucket, endsBucket} {
		if err == nil && version != "" && !p.buckets[string(name)] {
			err = damaged("no bucket %q", name)
		}
	}
	return version, err
}

// checkFormat is an error if this nftsentry cannot read this format.
func checkFormat(version string) error {
	switch version {
	case "", strconv.Itoa(format):
		return nil
	case "1":
		return damaged("format 1, of before the first release")
	}
	return fmt.Errorf("it has format %.64q and this nftsentry reads %d: %w: install that, or move the file away",
		version, format, errNewer)
}

// fill makes a store of an empty file.
func (o opener) fill(f *os.File, fill func(db *database) error) (*database, error) {
	db, err := attach(f, false, o.log)
	if err == nil {
		err = db.create()
	}
	if err == nil && fill != nil {
		err = fill(db)
	}
	return db, err
}

// build has fill make a store in a temporary file, calls clear, which clears the path and may be nil, and moves the
// file there. The lock is kept, as it is the file's.
func (o opener) build(fill func(f *os.File) (*database, error), clear func() error) (db *database, err error) {
	temp := filepath.Join(filepath.Dir(o.path), "."+filepath.Base(o.path)+".tmp")
	f, err := lockFile(temp, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, removeFile(temp), db.close(), release(f))
			db = nil
		}
	}()
	if err := f.Truncate(0); err != nil {
		return nil, err
	}
	if db, err = fill(f); err != nil {
		return db, err
	}
	if clear != nil {
		if err := clear(); err != nil {
			return db, err
		}
	}
	if err := os.Rename(temp, o.path); err != nil {
		return db, err
	}
	// The file is there: that it may not outlive a pulled plug is no reason to take it away.
	if err := syncDir(filepath.Dir(o.path)); err != nil {
		o.log.Warn("the folder of the store cannot be synced", zap.Error(err))
	}
	return db, nil
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// replaceDamaged puts a new store with what can be read of the damaged one in its place, and moves that aside. Why says
// what is wrong with it.
func (o opener) replaceDamaged(f *os.File, readOnly bool, why error) (*database, []Block, error) {
	r := salvageFile(f)
	var db *database
	err := error(unix.EROFS)
	if !readOnly {
		aside := ""
		db, err = o.build(func(f *os.File) (*database, error) { return o.fill(f, r.write) }, func() (err error) {
			aside, err = moveAside(o.path, "damaged")
			return err
		})
		if err == nil {
			o.log.Error("the store was damaged: it is moved aside, and what could be read of it is in a new one",
				zap.String("moved", aside), zap.Int("live", len(r.live)), zap.Int("over", len(r.ended)), zap.Error(why))
			return db, nil, nil
		}
	}
	return nil, r.blocks(), fmt.Errorf("%w: %w", why, err)
}

// moveAside gives the file at the path another name too, or instead if the file system knows no links.
func moveAside(path, why string) (aside string, err error) {
	there, err := filepath.Glob(path + ".*-*")
	if err != nil {
		return "", err
	}
	if len(there) >= maxAside {
		return "", fmt.Errorf("%d files were moved aside already: look at the disk and remove them", len(there))
	}
	stamp := path + "." + why + "-" + time.Now().UTC().Format("20060102T150405Z")
	for n := 1; n <= maxAside; n++ {
		aside = stamp
		if n > 1 {
			aside = fmt.Sprintf("%s.%d", stamp, n)
		}
		if _, err := os.Lstat(aside); err == nil {
			continue
		}
		if err = os.Link(path, aside); err != nil && !errors.Is(err, fs.ErrExist) {
			err = os.Rename(path, aside)
		}
		if !errors.Is(err, fs.ErrExist) {
			break
		}
	}
	return aside, err
}

// renew puts a copy of the old store, whose file was deleted, replaced, or may not be on the disk, at the path. Another
// file that is there by now is moved aside, unless it is another process's or a newer nftsentry's: what this process
// was told is newer.
func (o opener) renew(old *database) (db *database, err error) {
	var foreign *os.File
	if !isAt(old.file, o.path) {
		if foreign, err = o.foreign(); err != nil {
			return nil, err
		}
	}
	if foreign != nil {
		defer func() { err = errors.Join(err, release(foreign)) }()
	}
	aside := ""
	db, err = o.build(func(f *os.File) (*database, error) {
		if old.failed.Load() {
			return o.fill(f, salvageFile(old.file).write)
		}
		err := old.view(func(tx *bolt.Tx) error {
			_, err := tx.WriteTo(f)
			return err
		})
		if err == nil {
			err = f.Sync()
		}
		if err == nil {
			_, err = checkFile(f)
		}
		if err != nil {
			return nil, err
		}
		return attach(f, false, o.log)
	}, func() (err error) {
		if foreign != nil {
			aside, err = moveAside(o.path, "replaced")
		}
		return err
	})
	if err == nil {
		o.log.Warn("the store was gone from its place: it was written anew", zap.String("moved", aside))
	}
	return db, err
}

// foreign opens the file that has come to the path, which nobody else uses and nobody newer wrote; nil for none.
func (o opener) foreign() (*os.File, error) {
	f, readOnly, err := o.openFile()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if _, err = checkFile(f); errors.Is(err, errNewer) {
		return nil, errors.Join(err, release(f))
	}
	if readOnly {
		return nil, errors.Join(&fs.PathError{Op: "replace", Path: o.path, Err: unix.EROFS}, release(f))
	}
	return f, nil
}

// release unlocks and closes the file, unless it is closed. The lock would stay with a mapping of the file.
func release(f *os.File) error {
	_ = unix.Flock(int(f.Fd()), unix.LOCK_UN) // closed, or else it is unlocked by that
	return ignore(f.Close(), os.ErrClosed)
}
