package state

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
)

// The layout of a bbolt file, which is in the byte order of the host: pages of one size, of which the first two hold
// the metas. See https://github.com/etcd-io/bbolt/tree/v1.5.0/internal/common: page.go, meta.go and bucket.go.
const (
	boltMagic   = 0xED0CDAED
	boltVersion = 2

	headerSize  = 16 // of a page: id uint64, flags uint16, count uint16, overflow uint32
	elementSize = 16 // of what is counted; leaf: flags, pos, ksize, vsize uint32; branch: pos, ksize uint32, pgid uint64
	bucketSize  = 16 // of the value of a bucket: root, sequence uint64; the page follows if root is 0
	metaSize    = 64 // of what follows the header of a meta page; its last 8 bytes are the sum of the others

	branchPage   = 0x01
	leafPage     = 0x02
	freelistPage = 0x10
	manyFree     = 0xFFFF // the count of a freelist whose first entry is the count

	maxDepth = 32 // of a tree; each level has dozens of times as many pages as the one above
)

var (
	// errDamaged says that a store is not as bbolt and this package write it.
	errDamaged = errors.New("damaged")
	// errNewer says that a store is nobody's to touch but a newer nftsentry's.
	errNewer = errors.New("written by a newer nftsentry")
)

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{errDamaged}, args...)...)
}

// meta is what a meta page says.
type meta struct {
	pageSize             int
	root, freelist, high uint64 // pages; high is the first beyond all that are in use
	txid                 uint64
}

// readMeta reads the meta page at an offset.
func readMeta(r io.ReaderAt, offset int64) (m meta, err error) {
	var page [headerSize + metaSize]byte
	if err := readFull(r, page[:], offset); err != nil {
		return m, err
	}
	buf, order := page[headerSize:], binary.NativeEndian
	sum := fnv.New64a()
	sum.Write(buf[:metaSize-8])
	m = meta{
		pageSize: int(order.Uint32(buf[8:])), root: order.Uint64(buf[16:]),
		freelist: order.Uint64(buf[32:]), high: order.Uint64(buf[40:]), txid: order.Uint64(buf[48:]),
	}
	switch version := order.Uint32(buf[4:]); {
	case order.Uint32(buf) != boltMagic || order.Uint64(buf[metaSize-8:]) != sum.Sum64():
		return m, damaged("no meta page at %d", offset)
	case version > boltVersion:
		return m, fmt.Errorf("it has version %d of bbolt's files: %w", version, errNewer)
	case version < boltVersion || m.pageSize < 1024 || m.pageSize > 1<<24 || m.pageSize&(m.pageSize-1) != 0:
		return m, damaged("an impossible meta page at %d", offset)
	}
	return m, nil
}

// lastMeta reads the meta page of the last transaction, as bbolt finds it: of two the newer one, and of one that is
// damaged the other, wherever that is.
func lastMeta(r io.ReaderAt) (meta, error) {
	first, err := readMeta(r, 0)
	if err == nil {
		if second, err := readMeta(r, int64(first.pageSize)); err == nil && second.txid > first.txid {
			return second, nil
		}
		return first, nil
	}
	for size := int64(1024); size <= 1<<24; size <<= 1 {
		if second, err := readMeta(r, size); err == nil && int64(second.pageSize) == size {
			return second, nil
		}
	}
	return meta{}, err
}

// readFull reads all of buf, or says that the file is too short for it.
func readFull(r io.ReaderAt, buf []byte, offset int64) error {
	n, err := r.ReadAt(buf, offset)
	if n == len(buf) {
		return nil
	}
	if errors.Is(err, io.EOF) {
		return damaged("cut short at %d", offset+int64(n))
	}
	return err
}

// visitor is shown the records of a store, by the bucket that they are in. What it is given is gone when it returns.
type visitor func(bucket string, key, value []byte) error

// pages reads a bbolt file without bbolt, which trusts what it maps into memory: a page that leads nowhere makes it
// panic or never end, and one that the disk does not give kills the process.
type pages struct {
	meta
	r       io.ReaderAt
	size    int64
	used    []bool           // pages that were read, or are a part of those
	spoilt  func(error)      // is told of a page that is passed over; nil stops at the first
	visit   visitor          // may be nil
	bucket  string           // that is being read
	buckets map[string]bool  // that there are
	buffers [maxDepth][]byte // a page at each depth
}

// openPages finds the last meta page in the first size bytes of r.
func openPages(r io.ReaderAt, size int64) (*pages, error) {
	m, err := lastMeta(r)
	if err != nil {
		return nil, err
	}
	if m.high < 3 || m.high > 1<<40/uint64(m.pageSize) {
		return nil, damaged("%d pages", m.high)
	}
	// What is beyond the end of the file cannot be read: there is no need to take note of it.
	return &pages{meta: m, r: r, size: size, used: make([]bool, min(m.high, uint64(size)/uint64(m.pageSize)+1))}, nil
}

// check sees whether the file is whole: every page is there and of one use only, and all keys are in order. It shows
// all records to visit.
func (p *pages) check(visit visitor) error {
	p.visit = visit
	if p.size < int64(p.high)*int64(p.pageSize) {
		return damaged("cut short at %d", p.size)
	}
	if err := p.walkRoot(); err != nil {
		return err
	}
	free, err := p.free()
	if err != nil {
		return err
	}
	for _, id := range free {
		if id >= uint64(len(p.used)) || p.used[id] {
			return damaged("page %d is free and in use", id)
		}
		p.used[id] = true
	}
	return nil
}

// salvage shows to visit what can be read of a damaged file, and to orphan the records on leaves that no page leads to
// any more. Those are told from what was deleted by the freelist, so that without that there are none.
func (p *pages) salvage(visit visitor, orphan func(key, value []byte) error) error {
	p.visit, p.spoilt = visit, func(error) {}
	if err := p.walkRoot(); err != nil {
		return err
	}
	free, err := p.free()
	if err != nil {
		return nil
	}
	for _, id := range free {
		if id < uint64(len(p.used)) {
			p.used[id] = true
		}
	}
	p.visit = func(_ string, key, value []byte) error { return orphan(key, value) }
	for id := uint64(2); id < uint64(len(p.used)); id++ {
		if p.used[id] {
			continue
		}
		page, err := p.read(id, 0)
		if err != nil || flags(page) != leafPage {
			continue
		}
		if err := p.pass(p.walkLeaf(page, span{}, false)); err != nil {
			return err
		}
	}
	return nil
}

// walkRoot walks all buckets.
func (p *pages) walkRoot() error {
	visit := p.visit
	type bucket struct {
		name  string
		value []byte
	}
	var buckets []bucket
	p.visit = func(_ string, key, value []byte) error {
		buckets = append(buckets, bucket{string(key), bytes.Clone(value)})
		return nil
	}
	err := p.pass(p.walk(p.root, 0, span{}, true))
	p.visit = visit
	p.buckets = make(map[string]bool)
	for _, b := range buckets {
		p.bucket, p.buckets[b.name] = b.name, true
		err = cmp.Or(err, p.pass(p.walkBucket(b.value)))
	}
	return err
}

// pass passes over damage, where that is wanted.
func (p *pages) pass(err error) error {
	if _, stop := errors.AsType[visitError](err); err == nil || p.spoilt == nil || stop {
		return err
	}
	p.spoilt(err)
	return nil
}

// visitError is an error of a visitor, which is no damage.
type visitError struct{ error }

func (e visitError) Unwrap() error { return e.error }

func (p *pages) walkBucket(value []byte) error {
	if len(value) < bucketSize {
		return damaged("bucket %q", p.bucket)
	}
	if root := binary.NativeEndian.Uint64(value); root != 0 {
		return p.walk(root, 0, span{}, false)
	}
	page := value[bucketSize:]
	if len(page) < headerSize || flags(page) != leafPage {
		return damaged("bucket %q", p.bucket)
	}
	return p.walkLeaf(page, span{}, false)
}

// span is where the keys of a page lie: from low on and before high, nil for any.
type span struct{ low, high []byte }

func (s span) holds(key []byte) bool {
	return bytes.Compare(s.low, key) <= 0 && (s.high == nil || bytes.Compare(key, s.high) < 0)
}

// walk walks the tree below a page; that of the buckets holds buckets and no records.
func (p *pages) walk(id uint64, depth int, keys span, buckets bool) error {
	if depth == maxDepth {
		return damaged("page %d is too deep", id)
	}
	page, err := p.read(id, depth)
	if err != nil {
		return err
	}
	switch flags(page) {
	case leafPage:
		return p.walkLeaf(page, keys, buckets)
	case branchPage:
		return p.walkBranch(page, depth, keys, buckets)
	}
	return damaged("page %d is no part of a tree", id)
}

func (p *pages) walkBranch(page []byte, depth int, keys span, buckets bool) error {
	n := count(page)
	if n == 0 {
		return damaged("an empty branch")
	}
	for i := range n {
		below := keys
		e, err := element(page, i)
		if err == nil {
			below.low, err = part(page, i, u32(e, 0), u32(e, 4))
		}
		if err == nil && i+1 < n {
			var next []byte
			if next, err = element(page, i+1); err == nil {
				below.high, err = part(page, i+1, u32(next, 0), u32(next, 4))
			}
		}
		if err == nil && (i > 0 && !keys.holds(below.low) || below.high != nil && bytes.Compare(below.low, below.high) >= 0) {
			err = damaged("branches in disorder")
		}
		if err == nil {
			err = p.walk(binary.NativeEndian.Uint64(e[8:]), depth+1, below, buckets)
		}
		if err := p.pass(err); err != nil {
			return err
		}
	}
	return nil
}

func (p *pages) walkLeaf(page []byte, keys span, buckets bool) error {
	var last []byte
	for i := range count(page) {
		key, value, err := entry(page, i, buckets)
		if err == nil && (!keys.holds(key) || i > 0 && bytes.Compare(last, key) >= 0) {
			err = damaged("key %.64q in disorder", key)
		}
		if err == nil {
			last = key
			if p.visit != nil {
				if err := p.visit(p.bucket, key, value); err != nil {
					return visitError{err}
				}
			}
		}
		if err := p.pass(err); err != nil {
			return err
		}
	}
	return nil
}

// entry is the record on a leaf, or the bucket.
func entry(page []byte, i int, bucket bool) (key, value []byte, err error) {
	e, err := element(page, i)
	if err != nil {
		return nil, nil, err
	}
	if is := u32(e, 0)&1 != 0; is != bucket {
		return nil, nil, damaged("a bucket and a record at odds")
	}
	key, err = part(page, i, u32(e, 4), u32(e, 8))
	if err != nil {
		return nil, nil, err
	}
	value, err = part(page, i, u32(e, 4)+u32(e, 8), u32(e, 12))
	return key, value, err
}

func flags(page []byte) uint16    { return binary.NativeEndian.Uint16(page[8:]) }
func count(page []byte) int       { return int(binary.NativeEndian.Uint16(page[10:])) }
func u32(b []byte, at int) uint64 { return uint64(binary.NativeEndian.Uint32(b[at:])) }

// element returns element i of a page.
func element(page []byte, i int) ([]byte, error) {
	at := headerSize + i*elementSize
	if at+elementSize > len(page) {
		return nil, damaged("a page with too many elements")
	}
	return page[at : at+elementSize], nil
}

// part returns n bytes of a page from so many after the begin of element i.
func part(page []byte, i int, from, n uint64) ([]byte, error) {
	from += uint64(headerSize + i*elementSize)
	if from+n > uint64(len(page)) {
		return nil, damaged("an element beyond its page")
	}
	return page[from : from+n : from+n], nil
}

// read reads a page with what it overflows to, and takes note that it is in use. The page is good until the next one
// at the same depth.
func (p *pages) read(id uint64, depth int) ([]byte, error) {
	if id < 2 || id >= p.high {
		return nil, damaged("no page %d", id)
	}
	if id >= uint64(len(p.used)) {
		return nil, damaged("cut short before page %d", id)
	}
	buf := p.buffer(depth, p.pageSize)
	at := int64(id) * int64(p.pageSize)
	if err := readFull(p.r, buf, at); err != nil {
		return nil, err
	}
	more := u32(buf, 12)
	if binary.NativeEndian.Uint64(buf) != id || id+more >= p.high || id+more >= uint64(len(p.used)) {
		return nil, damaged("page %d is not itself", id)
	}
	for of := id; of <= id+more; of++ {
		if p.used[of] {
			return nil, damaged("page %d is used twice", of)
		}
		p.used[of] = true
	}
	if more == 0 {
		return buf, nil
	}
	buf = p.buffer(depth, p.pageSize*int(more+1))
	return buf, readFull(p.r, buf, at)
}

func (p *pages) buffer(depth, size int) []byte {
	if cap(p.buffers[depth]) < size {
		p.buffers[depth] = make([]byte, size)
	}
	return p.buffers[depth][:size]
}

// free reads which pages are free.
func (p *pages) free() ([]uint64, error) {
	page, err := p.read(p.freelist, 0)
	if err != nil {
		return nil, err
	}
	if flags(page) != freelistPage {
		return nil, damaged("no freelist")
	}
	list, n := page[headerSize:], uint64(count(page))
	if n == manyFree && len(list) >= 8 {
		n, list = binary.NativeEndian.Uint64(list), list[8:]
	}
	if n > uint64(len(list)/8) {
		return nil, damaged("a freelist of %d pages", n)
	}
	free := make([]uint64, n)
	for i := range free {
		free[i] = binary.NativeEndian.Uint64(list[8*i:])
		if free[i] < 2 || free[i] >= p.high || i > 0 && free[i] <= free[i-1] {
			return nil, damaged("page %d cannot be free", free[i])
		}
	}
	return free, nil
}
