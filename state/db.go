package state

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"runtime/debug"
	"strconv"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// ErrLocked says that another process has the store open.
var ErrLocked = errors.New("in use by another nftsentry")

// format is the version of what is in nftsentry.db. It grows when an older nftsentry would misread what a newer one
// wrote; a further field of a record is no reason.
const format = 2

// lockTimeout is how long Open waits for another process to let go of the store.
const lockTimeout = 200 * time.Millisecond

// The buckets of nftsentry.db, and the keys in the first.
var (
	metaBucket  = []byte("meta")
	liveBucket  = []byte("live")   // key of a source -> record of its block, see record.go
	endedBucket = []byte("ended")  // key of a source -> record of its last block that is over
	endsBucket  = []byte("by_end") // end of each record in "ended", then its key -> nothing; its sequence counts them

	formatKey = []byte("format")
	owedKey   = []byte("history") // what the history lacked when the last new block was committed
)

// database is an open store. A nil one is none: it holds nothing and cannot be written.
type database struct {
	bolt     *bolt.DB
	file     *os.File // which bolt has open, and which is locked
	info     os.FileInfo
	readOnly bool
	log      *zap.Logger
	failed   atomic.Bool // bolt cannot be used any more, and not even be closed
	doubtful atomic.Bool // the disk may have lost what it was given
}

// errNoStore says that a database is none.
var errNoStore = errors.New("blocks are kept in memory only")

// attach makes a database of a locked file that was checked or is empty.
func attach(f *os.File, readOnly bool, log *zap.Logger) (db *database, err error) {
	db = &database{file: f, readOnly: readOnly, log: log}
	if db.info, err = f.Stat(); err != nil {
		return nil, err
	}
	err = db.guard(func() (err error) {
		db.bolt, err = bolt.Open(f.Name(), 0o600, &bolt.Options{
			Timeout:      lockTimeout,
			FreelistType: bolt.FreelistMapType, // the other one slows down when much was deleted
			ReadOnly:     readOnly,
			OpenFile:     func(string, int, os.FileMode) (*os.File, error) { return f, nil },
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	if readOnly { // a lock would be in the way when it can be written
		err = unix.Flock(int(f.Fd()), unix.LOCK_UN)
	}
	return db, err
}

// guard calls f and makes an error of it when bbolt panics over what it finds on the disk, or cannot read it: a page
// that the disk does not give is a fault where it is touched. The database cannot be used after that.
func (db *database) guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			db.failed.Store(true)
			err = damaged("%v", r)
		}
	}()
	return f()
}

// view calls f in a transaction that reads.
func (db *database) view(f func(tx *bolt.Tx) error) error {
	if err := db.usable(); err != nil {
		return err
	}
	return db.guard(func() error { return db.bolt.View(f) })
}

// update calls f in a transaction that writes.
func (db *database) update(f func(tx *bolt.Tx) error) error {
	if err := db.usable(); err != nil {
		return err
	}
	err := db.guard(func() error { return db.bolt.Update(f) })
	if _, known := errors.AsType[unix.Errno](err); err != nil && (!known || errors.Is(err, unix.EIO)) {
		db.doubtful.Store(true)
	}
	return err
}

// usable sees whether a transaction may begin. With both metas gone bbolt would panic with a lock held, so that others
// waited for ever.
func (db *database) usable() error {
	switch {
	case db == nil:
		return errNoStore
	case db.failed.Load():
		return damaged("while it was open")
	}
	_, err := lastMeta(db.file)
	switch {
	case errors.Is(err, errDamaged):
		db.failed.Store(true)
	case err != nil:
		db.doubtful.Store(true)
	}
	return err
}

// inPlace tells whether the database is what is at the path, and good to be written.
func (db *database) inPlace(path string) bool {
	if db == nil || db.readOnly || db.failed.Load() || db.doubtful.Load() {
		return false
	}
	info, err := os.Lstat(path)
	return err == nil && os.SameFile(info, db.info)
}

// close closes the database. One that has failed is left to itself, but for the lock and the file.
func (db *database) close() error {
	if db == nil {
		return nil
	}
	if db.failed.Load() {
		return release(db.file)
	}
	return db.guard(db.bolt.Close)
}

// create makes the buckets.
func (db *database) create() error {
	return db.update(func(tx *bolt.Tx) error {
		for _, name := range [][]byte{metaBucket, liveBucket, endedBucket, endsBucket} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return tx.Bucket(metaBucket).Put(formatKey, []byte(strconv.Itoa(format)))
	})
}

// visit calls f with each live block, in no order. Records that cannot be read are passed over with a message.
func (db *database) visit(f func(Block)) error {
	return db.view(func(tx *bolt.Tx) error {
		return eachLive(tx, func(key, value []byte) {
			b, err := decode(key, value)
			if err != nil {
				db.log.Error("block passed over", zap.Error(err))
				return
			}
			f(b)
		})
	})
}

// countLive is the number of records of live blocks; 0 without a database.
func (db *database) countLive() (n int, err error) {
	if db == nil {
		return 0, nil
	}
	err = db.view(func(tx *bolt.Tx) error {
		return eachLive(tx, func(_, _ []byte) { n++ })
	})
	return n, err
}

// live returns all live blocks, the oldest first.
func (db *database) live() ([]Block, error) {
	var blocks []Block
	err := db.visit(func(b Block) { blocks = append(blocks, b) })
	sortBlocks(blocks)
	return blocks, err
}

// eachLive calls f with all records of live blocks, and keeps few pages of the file in memory.
func eachLive(tx *bolt.Tx, f func(key, value []byte)) error {
	defer letGo(tx)
	n := 0
	return tx.Bucket(liveBucket).ForEach(func(key, value []byte) error {
		if n++; n%8192 == 0 {
			letGo(tx)
		}
		f(key, value)
		return nil
	})
}

// over returns the blocks that are over and ended last, up to n.
func (db *database) over(n int) (blocks []Block, err error) {
	err = db.view(func(tx *bolt.Tx) error {
		cursor := tx.Bucket(endsBucket).Cursor()
		for key, _ := cursor.Last(); key != nil && len(blocks) < n; key, _ = cursor.Prev() {
			source := key[timeSize:]
			if b, err := decode(source, tx.Bucket(endedBucket).Get(source)); err == nil {
				blocks = append(blocks, b)
			}
		}
		return nil
	})
	return blocks, err
}

// letGo takes the file's pages out of the process's resident memory, where reading all of them has put them: 82 MiB
// with a million blocks. They stay in the page cache, and come back when they are touched. While tx lives the file stays
// mapped where it is.
func letGo(tx *bolt.Tx) {
	// Best effort: without it the kernel takes them back when it needs to.
	_, _, _ = unix.Syscall(unix.SYS_MADVISE, tx.DB().Info().Data, uintptr(tx.Size()), unix.MADV_DONTNEED)
}

// find returns the record of source in the bucket; nil if there is none that can be read.
func (db *database) find(bucket []byte, source netip.Prefix) (b *Block, err error) {
	err = db.view(func(tx *bolt.Tx) error {
		b = get(tx, bucket, source)
		return nil
	})
	return b, err
}

// owed returns what the history lacked when the last new block was committed.
func (db *database) owed() (o owed, err error) {
	err = db.view(func(tx *bolt.Tx) error {
		if value := tx.Bucket(metaBucket).Get(owedKey); value != nil {
			return json.Unmarshal(value, &o)
		}
		return nil
	})
	return o, err
}

// get returns the record of source in the bucket; nil if there is none that can be read.
func get(tx *bolt.Tx, bucket []byte, source netip.Prefix) *Block {
	key := keyOf(source)
	value := tx.Bucket(bucket).Get(key)
	if value == nil {
		return nil
	}
	b, err := decode(key, value)
	if err != nil {
		return nil
	}
	return &b
}

// put writes the record of b to the bucket.
func put(tx *bolt.Tx, bucket []byte, b *Block) error {
	key, value := encode(b)
	return tx.Bucket(bucket).Put(key, value)
}

// remember writes the record of a block that is over in the place of old, the one before, which may be nil.
func remember(tx *bolt.Tx, old, b *Block) error {
	if err := forget(tx, old); err != nil {
		return err
	}
	if err := put(tx, endedBucket, b); err != nil {
		return err
	}
	if err := tx.Bucket(endsBucket).Put(endKey(b), nil); err != nil {
		return err
	}
	return countOver(tx, 1)
}

// forget removes the record of a block that is over; nil is none.
func forget(tx *bolt.Tx, b *Block) error {
	if b == nil {
		return nil
	}
	if err := tx.Bucket(endsBucket).Delete(endKey(b)); err != nil {
		return err
	}
	if err := tx.Bucket(endedBucket).Delete(keyOf(b.Source)); err != nil {
		return err
	}
	return countOver(tx, -1)
}

// countOver takes note of n more blocks that are over, as a count of them takes a walk through all.
func countOver(tx *bolt.Tx, n int) error {
	ends := tx.Bucket(endsBucket)
	return ends.SetSequence(uint64(max(int(ends.Sequence())+n, 0)))
}

// endKey is the key of b in endsBucket.
func endKey(b *Block) []byte {
	return appendKey(appendTime(make([]byte, 0, timeSize+18), b.Until), b.Source)
}

// forgetting is what Store.Forget asks for.
type forgetting struct {
	before time.Time
	max    int
}

// forgetChunk bounds the records that one transaction forgets, so that new blocks do not wait for it.
const forgetChunk = 2000

// forgetEnded removes up to forgetChunk records of blocks that ended before f.before, or that ended first of more than
// f.max. It tells whether there may be more.
func (db *database) forgetEnded(f forgetting) (more bool, err error) {
	err = db.update(func(tx *bolt.Tx) error {
		keys := forgettable(tx, f)
		more = len(keys) == forgetChunk
		for _, key := range keys {
			source := key[timeSize:]
			if err := errors.Join(tx.Bucket(endedBucket).Delete(source), tx.Bucket(endsBucket).Delete(key)); err != nil {
				return err
			}
		}
		return countOver(tx, -len(keys))
	})
	return more, err
}

// forgettable returns the keys in endsBucket that forgetEnded removes.
func forgettable(tx *bolt.Tx, f forgetting) (keys [][]byte) {
	ends := tx.Bucket(endsBucket)
	excess := int(ends.Sequence()) - f.max
	limit := appendTime(nil, f.before)
	cursor := ends.Cursor()
	for key, _ := cursor.First(); key != nil && len(keys) < forgetChunk; key, _ = cursor.Next() {
		if bytes.Compare(key, limit) >= 0 && len(keys) >= excess {
			break
		}
		keys = append(keys, bytes.Clone(key))
	}
	return keys
}
