package state

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// ErrLocked says that another process has the store open.
var ErrLocked = errors.New("in use by another nftsentry")

// format is the version of what is in nftsentry.db. It grows when an older nftsentry would misread what a newer one
// wrote; a further field of a record is no reason.
const format = 1

// lockTimeout is how long Open waits for another process to let go of the store.
const lockTimeout = 200 * time.Millisecond

// The buckets of nftsentry.db, and the keys in the first.
var (
	metaBucket  = []byte("meta")
	liveBucket  = []byte("live")   // source -> record of its block
	endedBucket = []byte("ended")  // source -> record of its last block that is over
	endsBucket  = []byte("by_end") // end of each record in "ended", then its source -> nothing

	formatKey = []byte("format")
	owedKey   = []byte("history") // what the history lacked when the last new block was committed
)

// endLayout is the time in a key of endsBucket: the order of the text is that of the times.
const endLayout = "2006-01-02T15:04:05.000000000Z"

// database is nftsentry.db.
type database struct {
	bolt *bolt.DB
	log  *zap.Logger
}

// openDatabase opens the file, or makes it. It writes only if it made it: a full disk is no reason not to start.
func openDatabase(path string, log *zap.Logger) (*database, error) {
	b, err := bolt.Open(path, 0o600, &bolt.Options{
		Timeout:      lockTimeout,
		FreelistType: bolt.FreelistMapType, // the other one slows down when much was deleted
		OpenFile:     openFile,
	})
	if errors.Is(err, berrors.ErrTimeout) {
		return nil, fmt.Errorf("%s: %w", path, ErrLocked)
	}
	if errors.Is(err, berrors.ErrInvalid) || errors.Is(err, berrors.ErrChecksum) || errors.Is(err, berrors.ErrVersionMismatch) {
		return nil, fmt.Errorf("%s: damaged: %w: move it away", path, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	db := &database{b, log}
	if err := db.prepare(); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), b.Close())
	}
	return db, nil
}

// guard calls f, which reads a file that may be damaged, and makes an error of it when bbolt panics over it or reads
// beyond its end. What bbolt has open then stays open: the caller cannot go on.
func guard(path string, f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%s: damaged: %v: move it away", path, r)
		}
	}()
	return f()
}

// prepare checks the size and the format of the file and makes the buckets in a new one.
func (db *database) prepare() error {
	var version []byte
	err := db.bolt.View(func(tx *bolt.Tx) error {
		if info, err := os.Stat(db.bolt.Path()); err != nil || info.Size() < tx.Size() {
			return cmp.Or(err, errors.New("damaged: cut short: move it away"))
		}
		if meta := tx.Bucket(metaBucket); meta != nil {
			version = append(version, meta.Get(formatKey)...)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if version == nil {
		return db.create()
	}
	if n, err := strconv.Atoi(string(version)); err != nil || n > format {
		return fmt.Errorf("it has format %.64q, written by a newer nftsentry, and this one reads %d: "+
			"install the newer one, or move the file away", version, format)
	}
	return nil
}

// create makes the buckets, and sees to it that the file itself outlives a pulled plug.
func (db *database) create() error {
	err := db.bolt.Update(func(tx *bolt.Tx) error {
		for _, name := range [][]byte{metaBucket, liveBucket, endedBucket, endsBucket} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return tx.Bucket(metaBucket).Put(formatKey, []byte(strconv.Itoa(format)))
	})
	if err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(db.bolt.Path()))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// live returns all live blocks, the oldest first. Records that cannot be read are passed over with a message.
func (db *database) live() ([]Block, error) {
	var blocks []Block
	err := db.bolt.View(func(tx *bolt.Tx) error {
		bucket := tx.Bucket(liveBucket)
		blocks = make([]Block, 0, bucket.Stats().KeyN)
		defer letGo(tx)
		return bucket.ForEach(func(key, value []byte) error {
			b, err := decode(key, value)
			if err != nil {
				db.log.Error("block passed over", zap.Error(err))
				return nil
			}
			blocks = append(blocks, b)
			return nil
		})
	})
	slices.SortFunc(blocks, func(a, b Block) int { return compare(&a, &b) })
	return blocks, err
}

// letGo takes the file's pages out of the process's resident memory, where reading all of them has put them: 64 MiB
// with 131,072 blocks. They stay in the page cache, and come back when they are touched. While tx lives the file stays
// mapped where it is.
func letGo(tx *bolt.Tx) {
	// Best effort: without it the kernel takes them back when it needs to.
	_, _, _ = unix.Syscall(unix.SYS_MADVISE, tx.DB().Info().Data, uintptr(tx.Size()), unix.MADV_DONTNEED)
}

// find returns the record of source in the bucket; nil if there is none that can be read.
func (db *database) find(bucket []byte, source netip.Prefix) (b *Block, err error) {
	err = db.bolt.View(func(tx *bolt.Tx) error {
		b = get(tx, bucket, source)
		return nil
	})
	return b, err
}

// owed returns what the history lacked when the last new block was committed.
func (db *database) owed() (o owed, err error) {
	err = db.bolt.View(func(tx *bolt.Tx) error {
		if value := tx.Bucket(metaBucket).Get(owedKey); value != nil {
			return json.Unmarshal(value, &o)
		}
		return nil
	})
	return o, err
}

// get returns the record of source in the bucket; nil if there is none that can be read.
func get(tx *bolt.Tx, bucket []byte, source netip.Prefix) *Block {
	key := []byte(source.String())
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
	key, value, err := encode(*b)
	if err != nil {
		return err
	}
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
	return tx.Bucket(endsBucket).Put(endKey(b), nil)
}

// forget removes the record of a block that is over; nil is none.
func forget(tx *bolt.Tx, b *Block) error {
	if b == nil {
		return nil
	}
	if err := tx.Bucket(endsBucket).Delete(endKey(b)); err != nil {
		return err
	}
	return tx.Bucket(endedBucket).Delete([]byte(b.Source.String()))
}

// endKey is the key of b in endsBucket.
func endKey(b *Block) []byte {
	return []byte(endTime(b.Until) + b.Source.String())
}

func endTime(t time.Time) string {
	return t.UTC().Format(endLayout)
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
	err = db.bolt.Update(func(tx *bolt.Tx) error {
		keys := forgettable(tx, f)
		more = len(keys) == forgetChunk
		for _, key := range keys {
			source := key[len(endLayout):]
			if err := errors.Join(tx.Bucket(endedBucket).Delete(source), tx.Bucket(endsBucket).Delete(key)); err != nil {
				return err
			}
		}
		return nil
	})
	return more, err
}

// forgettable returns the keys in endsBucket that forgetEnded removes.
func forgettable(tx *bolt.Tx, f forgetting) (keys [][]byte) {
	ends := tx.Bucket(endsBucket)
	excess := ends.Stats().KeyN - f.max
	limit := endTime(f.before)
	cursor := ends.Cursor()
	for key, _ := cursor.First(); key != nil && len(keys) < forgetChunk; key, _ = cursor.Next() {
		if string(key) >= limit && len(keys) >= excess {
			break
		}
		keys = append(keys, bytes.Clone(key))
	}
	return keys
}
