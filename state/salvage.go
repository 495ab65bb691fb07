package state

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"maps"
	"net/netip"
	"os"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"
)

// salvaged is what can be read of a damaged store.
type salvaged struct {
	meta        map[string][]byte // what is in metaBucket, but for the format
	live, ended map[netip.Prefix]Block
	tally       map[string]*[]byte
}

// salvageFile reads what can be read of a damaged store.
func salvageFile(f *os.File) *salvaged {
	info, err := f.Stat()
	if err != nil {
		return salvage(f, 0)
	}
	return salvage(f, info.Size())
}

// salvage reads what can be read of a damaged store, and nothing that was deleted from it. A record that no page leads
// to any more is taken for live if its time is not up.
func salvage(file io.ReaderAt, size int64) *salvaged {
	r := &salvaged{meta: make(map[string][]byte), live: make(map[netip.Prefix]Block), ended: make(map[netip.Prefix]Block)}
	p, err := openPages(file, size)
	if err != nil {
		return r
	}
	orphans := make(map[netip.Prefix]Block)
	// The error is no news: the store is damaged.
	_ = p.salvage(r.take, func(key, value []byte) error {
		if b, ok := sane(key, value); ok {
			orphans[b.Source] = b
		}
		return nil
	})
	now := time.Now()
	for source, b := range orphans {
		into := r.ended
		if b.Until.IsZero() || b.Until.After(now) {
			into = r.live
		}
		if _, known := into[source]; !known {
			into[source] = b
		}
	}
	for source, b := range r.live {
		if over, known := r.ended[source]; known && same(&over, &b) {
			delete(r.live, source)
		}
	}
	return r
}

func (r *salvaged) take(bucket string, key, value []byte) error {
	switch bucket {
	case string(metaBucket):
		if string(key) != string(formatKey) {
			r.meta[string(key)] = bytes.Clone(value)
		}
	case string(liveBucket):
		if b, ok := sane(key, value); ok {
			r.live[b.Source] = b
		}
	case string(endedBucket):
		if b, ok := sane(key, value); ok {
			r.ended[b.Source] = b
		}
	case string(tallyBucket):
		r.salvageTally(key, value)
	}
	return nil
}

// sane decodes a record of a damaged store, which must be one that this package could have written.
func sane(key, value []byte) (Block, bool) {
	b, err := decode(key, value)
	return b, err == nil && !b.Since.IsZero()
}

// write writes it all to a new store. A transaction takes a part of it, and keys in order: bbolt splits no page before
// the end of a transaction, so that it is slow else.
func (r *salvaged) write(db *database) error {
	err := db.update(func(tx *bolt.Tx) error {
		var errs []error
		for key, value := range r.meta {
			errs = append(errs, tx.Bucket(metaBucket).Put([]byte(key), value))
		}
		return errors.Join(errs...)
	})
	live := func(tx *bolt.Tx, b *Block) error { return put(tx, liveBucket, b) }
	over := func(tx *bolt.Tx, b *Block) error { return remember(tx, nil, b) }
	return cmp.Or(err, db.putAll(r.live, live), db.putAll(r.ended, over), r.writeTally(db))
}

// putAll puts all blocks.
func (db *database) putAll(blocks map[netip.Prefix]Block, put func(tx *bolt.Tx, b *Block) error) error {
	keys := slices.SortedFunc(maps.Keys(blocks), compareSources)
	for part := range slices.Chunk(keys, commitChunk) {
		if err := db.update(func(tx *bolt.Tx) error {
			for _, key := range part {
				b := blocks[key]
				if err := put(tx, &b); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// blocks returns the live blocks.
func (r *salvaged) blocks() []Block {
	blocks := make([]Block, 0, len(r.live))
	for _, b := range r.live {
		blocks = append(blocks, b)
	}
	return blocks
}
