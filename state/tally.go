package state

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	bolt "go.etcd.io/bbolt"
	"go.uber.org/zap"
)

// tallyBucket holds what was counted of the past, under keys and in a form that its user gives it. It is made when
// something is first written to it, and no store lacks it for being older.
var tallyBucket = []byte("tally")

// maxTallies bounds the records that wait for a disk which cannot be written: a week of hours, and some.
const maxTallies = 200

// tallies are the records that wait to be committed. A nil value is for one that goes.
type tallies struct {
	mu      sync.Mutex
	pending map[string]*[]byte // guarded by mu
}

// SaveTally hands in records, and returns at once: each takes the place of the one with its key, and one without a value
// deletes it. They are committed together. The store owns the values from now on. While the disk cannot be written, of too
// many that wait those with the first keys are lost, and nothing is taken that deletes: what it goes into could be lost.
func (s *Store) SaveTally(records map[string][]byte) {
	degraded := s.Degraded() != nil
	if degraded && slices.ContainsFunc(slices.Collect(maps.Values(records)), func(value []byte) bool { return value == nil }) {
		return
	}
	t := &s.tallies
	t.mu.Lock()
	if t.pending == nil {
		t.pending = make(map[string]*[]byte)
	}
	for key, value := range records {
		t.pending[key] = &value
	}
	if over := len(t.pending) - maxTallies; over > 0 && degraded {
		for _, key := range slices.Sorted(maps.Keys(t.pending))[:over] {
			delete(t.pending, key)
		}
	}
	t.mu.Unlock()
	s.wake()
}

// WriteTally commits what was handed in. It is for after Run has returned, and before Close.
func (s *Store) WriteTally() error {
	return s.writeTally()
}

// EachTally calls visit with each record whose key is in [from, to), in no order; those that are not committed yet are
// among them. The value is gone when visit returns, which must not call the store. It ends with visit's error.
func (s *Store) EachTally(from, to string, visit func(key string, value []byte) error) error {
	waiting := s.tallies.between(from, to)
	if db := s.database(); db != nil {
		err := db.eachTally(from, to, func(key string, value []byte) error {
			if _, newer := waiting[key]; newer {
				return nil
			}
			return visit(key, value)
		})
		if err != nil {
			return err
		}
	}
	for key, value := range waiting {
		if *value == nil {
			continue
		}
		if err := visit(key, *value); err != nil {
			return err
		}
	}
	return nil
}

// between are the records that wait, by their keys.
func (t *tallies) between(from, to string) map[string]*[]byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make(map[string]*[]byte)
	for key, value := range t.pending {
		if from <= key && key < to {
			out[key] = value
		}
	}
	return out
}

// eachTally is Store.EachTally of what is committed. The visitor's error is kept apart from those of the disk.
func (db *database) eachTally(from, to string, visit func(key string, value []byte) error) error {
	var stop error
	err := db.view(func(tx *bolt.Tx) error {
		b := tx.Bucket(tallyBucket)
		if b == nil {
			return nil
		}
		defer letGo(tx)
		c := b.Cursor()
		for key, value := c.Seek([]byte(from)); key != nil && string(key) < to; key, value = c.Next() {
			if stop = visit(string(key), value); stop != nil {
				return nil
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read %s: %w", storeName, err)
	}
	return stop
}

// writeTally commits the records that were handed in, if there are any.
func (s *Store) writeTally() error {
	t := &s.tallies
	t.mu.Lock()
	records := maps.Clone(t.pending)
	t.mu.Unlock()
	if len(records) == 0 {
		return nil
	}
	if err := s.database().update(func(tx *bolt.Tx) error { return putTally(tx, records) }); err != nil {
		return fmt.Errorf("write counts to %s: %w", storeName, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	maps.DeleteFunc(t.pending, func(key string, value *[]byte) bool { return records[key] == value })
	return nil
}

// putTally writes records, in the order of their keys.
func putTally(tx *bolt.Tx, records map[string]*[]byte) error {
	b, err := tx.CreateBucketIfNotExists(tallyBucket)
	if err != nil {
		return err
	}
	for _, key := range slices.Sorted(maps.Keys(records)) {
		if value := *records[key]; value != nil {
			err = b.Put([]byte(key), value)
		} else {
			err = b.Delete([]byte(key))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// A TallyFile is the store of a daemon that does not run, from which what was counted can be read.
type TallyFile struct {
	db *database
}

// OpenTally opens the store in dir for reading; nothing is written, and nothing is made. The caller closes it. The error
// is [ErrLocked] if a daemon has it open, and fs.ErrNotExist if there is none.
func OpenTally(dir string) (*TallyFile, error) {
	path := filepath.Join(dir, storeName)
	f, err := lockFile(path, os.O_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	_, err = checkFile(f)
	var db *database
	if err == nil {
		db, err = attach(f, true, zap.NewNop())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read %s: %w", path, err), release(f))
	}
	return &TallyFile{db}, nil
}

// EachTally is as that of Store. A daemon may have started meanwhile: what it has written makes it an error.
func (f *TallyFile) EachTally(from, to string, visit func(key string, value []byte) error) error {
	before, err := lastMeta(f.db.file)
	if err != nil {
		return fmt.Errorf("read %s: %w", storeName, err)
	}
	if err := f.db.eachTally(from, to, visit); err != nil {
		return err
	}
	if after, err := lastMeta(f.db.file); err != nil || after != before {
		return fmt.Errorf("read %s: %w", storeName, errors.Join(ErrLocked, err))
	}
	return nil
}

// Close closes it.
func (f *TallyFile) Close() error { return f.db.close() }

// salvageTally takes a record of a damaged store.
func (r *salvaged) salvageTally(key, value []byte) {
	if r.tally == nil {
		r.tally = make(map[string]*[]byte)
	}
	value = bytes.Clone(value)
	r.tally[string(key)] = &value
}

// writeTally writes the records that were taken to a new store.
func (r *salvaged) writeTally(db *database) error {
	if len(r.tally) == 0 {
		return nil
	}
	return db.update(func(tx *bolt.Tx) error { return putTally(tx, r.tally) })
}
