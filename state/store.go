package state

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.uber.org/zap"
)

// The files of a store, all in its directory.
const (
	storeName   = "nftsentry.db"
	tcpName     = "portsentry.blocked.tcp"
	udpName     = "portsentry.blocked.udp"
	historyName = "portsentry.history"
)

// Store is the blocks on disk. Everything but Run and Close may be called by several goroutines at once, and by the
// functions that Save and End are given. What is handed in is written by Run.
type Store struct {
	dir     string
	log     *zap.Logger
	kick    chan struct{} // there are changes; of size 1, full is as good as told
	changed chan struct{} // see Changed; of size 1, full is as good as told

	// These belong to the goroutine in Run.
	tcp, udp *mirror
	history  history
	tries    int         // of opening the store, that failed since it was last open
	refused  os.FileInfo // of the file that a newer nftsentry wrote; nil for none

	tallies tallies

	mu       sync.Mutex     // guards what follows; never held while the disk is written
	db       *database      // nil for none; replaced by the goroutine in Run
	pending  changes        // to be committed; without a database, all there is
	taken    changes        // being committed
	order    []netip.Prefix // of pending, the last is the next; nil unless that is more than a transaction takes
	touched  bool           // there are changes since the text files were last written without a database
	forget   *forgetting    // to be done
	served   *[]Service     // to be committed; nil for none
	degraded error
}

// Open opens the store in dir, or makes it, and brings the text files in line with it. A directory it makes is open to
// readers, the text files of live blocks too, the store itself and the history are not. The caller closes the store.
//
// The only error is [ErrLocked]: another process has the store open. Whatever else the disk does makes the store
// [Store.Degraded], and [Store.Run] tries again:
//   - A store that cannot be written, as the file system is read-only, is read, and changes wait in memory.
//   - A store that cannot be opened or made at all, as the disk is full, the directory cannot be made or the file is no
//     regular one, is in memory only. So is one that a newer nftsentry wrote, which is left alone.
//   - A damaged store is moved aside, to nftsentry.db.damaged- and the time, and logged as an error. What can be read of
//     it goes to the new one: live blocks, and those that are over. Where no new one can be made it stays in its place,
//     and its live blocks are in memory.
//   - Text files that cannot be written wait.
func Open(dir string, log *zap.Logger) (*Store, error) {
	s := &Store{
		dir:     dir,
		log:     log,
		kick:    make(chan struct{}, 1),
		changed: make(chan struct{}, 1),
		tcp:     &mirror{path: filepath.Join(dir, tcpName), stale: true},
		udp:     &mirror{path: filepath.Join(dir, udpName), udp: true, stale: true},
		history: history{path: filepath.Join(dir, historyName)},
		pending: changes{},
	}
	err := s.attach()
	if errors.Is(err, ErrLocked) {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, storeName), err)
	}
	if s.db != nil {
		err = cmp.Or(err, s.load())
	}
	s.note(errors.Join(err, s.publishMemory()))
	s.settled()
	return s, nil
}

// load brings the text files in line with the store. One that cannot be read after all is left to Run.
func (s *Store) load() error {
	rows, err := s.rows()
	if err != nil {
		db := s.db
		s.use(nil)
		return errors.Join(err, db.close())
	}
	return s.publish(nil, true, func() ([]row, error) { return rows, nil }) // the same as a rule
}

// settled takes back what attach told, as nobody was given any blocks yet.
func (s *Store) settled() {
	select {
	case <-s.changed:
	default:
	}
}

// makeDir makes the directory if it is missing, whatever the umask.
func makeDir(dir string) error {
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.Chmod(dir, 0o755)
}

// Close closes the store, after Run has returned. What was handed in since then is lost.
func (s *Store) Close() error {
	return s.database().close()
}

// database returns the database, nil for none.
func (s *Store) database() *database {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.db
}

// Changed returns a channel that tells, when the disk is back, that the live blocks on record are others than the
// caller knows: some were lost, as the store was damaged while it was open, or some were found, as there was no disk at
// the start. The caller calls Live, hands in what is missing there and blocks what it does not have. The channel is
// never closed.
func (s *Store) Changed() <-chan struct{} {
	return s.changed
}

// Live returns the blocks that are on record as live, those whose time is up included, the oldest first; the caller
// owns them. Changes that are not committed yet are in it.
func (s *Store) Live() ([]Block, error) {
	blocks := []Block{}
	if err := s.Visit(func(b Block) { blocks = append(blocks, b) }); err != nil {
		return nil, err
	}
	sortBlocks(blocks)
	return blocks, nil
}

// Visit calls f with each block that Live returns, in no order, without having all of them in memory. F must not use
// the store. After an error some may be missing.
func (s *Store) Visit(f func(Block)) error {
	newer := make(map[netip.Prefix]*Block)
	s.mu.Lock()
	for _, cs := range []changes{s.taken, s.pending} {
		for source, c := range cs {
			newer[source] = c.live
		}
	}
	s.mu.Unlock()
	err := s.visit(func(b Block) {
		if _, changed := newer[b.Source]; !changed {
			f(b)
		}
	})
	for _, b := range newer {
		if b != nil {
			f(b.kept())
		}
	}
	return err
}

// visit calls f with each live block in the database, or in memory if there is none, in no order.
func (s *Store) visit(f func(Block)) error {
	db := s.database()
	if db == nil {
		s.visitMemory(f)
		return nil
	}
	seen := false
	err := db.visit(func(b Block) { seen = true; f(b) })
	if err != nil && !seen && s.database() != db { // another has taken its place meanwhile
		return s.visit(f)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", storeName, err)
	}
	return nil
}

// visitMemory calls f with each live block that is in memory.
func (s *Store) visitMemory(f func(Block)) {
	for _, b := range s.remembered() {
		f(b)
	}
}

// remembered returns the live blocks that are in memory, in no order.
func (s *Store) remembered() (blocks []Block) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.pending {
		if c.live != nil {
			blocks = append(blocks, c.live.kept())
		}
	}
	for source, c := range s.taken {
		if c.live != nil && s.pending[source] == nil {
			blocks = append(blocks, c.live.kept())
		}
	}
	return blocks
}

// Last returns the latest block of source that is over, for its strikes, and whether there is one; its Until is when it
// ended. It sees changes that are not committed yet.
func (s *Store) Last(source netip.Prefix) (Block, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, cs := range []changes{s.pending, s.taken} {
		switch c := cs[source]; {
		case c != nil && c.last != nil:
			return *c.last, true, nil
		case c != nil && c.forgiven:
			return Block{}, false, nil
		}
	}
	if s.db == nil {
		return Block{}, false, nil
	}
	b, err := s.db.find(endedBucket, source)
	if err != nil || b == nil {
		return Block{}, false, err
	}
	return *b, true, nil
}

// Save hands in a block, new or changed, and returns at once. It takes the place of what is on record of its source.
// Of several changes of a source that wait to be written only the newest is.
//
// Done, which may be nil, is called once, by the goroutine in Run, which it must not hold up: with nil when the block is
// in the store, synced to the disk, and in the text files, or with the error of the first attempt at it that failed;
// at once while the disk fails, with the error of the last attempt. Even then the block stays pending, and is tried again.
func (s *Store) Save(b Block, done func(error)) {
	b = b.kept()
	s.mu.Lock()
	c := s.pending.of(b.Source)
	c.live, s.touched = &b, true
	c.saved = both(c.saved, done)
	s.next(b.Source)
	s.mu.Unlock()
	s.wake()
}

// next lets a source go before the many that wait. The caller holds s.mu.
func (s *Store) next(source netip.Prefix) {
	if s.order != nil {
		s.order = append(s.order, source)
	}
}

// queue has what is handed in from now on go before what is pending, if that is more than a transaction takes. The caller
// holds s.mu.
func (s *Store) queue() {
	if s.order == nil && len(s.pending) > commitChunk {
		s.order = []netip.Prefix{}
	}
}

// SaveAll is Save for many blocks, of different sources: done is called when all are written, with the first error. Up
// to 12,000 are committed in one transaction, and of more so many at a time, before which goes what others hand in
// meanwhile. The blocks are the store's from now on, even after an error, and may be read but not changed; what waits
// takes 130 to 175 bytes for each beside them.
func (s *Store) SaveAll(blocks []Block, done func(error)) {
	done = last(len(blocks), done)
	room := make([]change, len(blocks))
	s.mu.Lock()
	for i := range blocks {
		b := &blocks[i]
		if kept := b.kept(); !kept.Since.Equal(b.Since) || !kept.Until.Equal(b.Until) {
			b = &kept
		}
		c := s.pending.in(b.Source, &room[i])
		c.live = b
		c.saved = both(c.saved, done)
	}
	s.queue()
	s.touched = true
	s.mu.Unlock()
	s.wake()
}

// EndAll is End for many sources, as SaveAll is Save.
func (s *Store) EndAll(sources []netip.Prefix, at time.Time, forgive bool, done func(error)) {
	done = last(len(sources), done)
	s.mu.Lock()
	for _, source := range sources {
		s.end(source, at, forgive, done)
	}
	s.queue()
	s.mu.Unlock()
	s.wake()
}

// last makes one call of n, with the first error. They come one after another.
func last(n int, done func(error)) func(error) {
	var first error
	return func(err error) {
		if first == nil {
			first = err
		}
		if n--; n == 0 && done != nil {
			done(first)
		}
	}
}

// End hands in that the block of source is over since the given time: its record becomes the one that Last returns.
// With forgive nothing is remembered of source, neither this block nor earlier ones. A source that is not blocked is
// no error. Done is called as Save's is; the line in the blocked file goes first, unless that takes long because there are
// many.
func (s *Store) End(source netip.Prefix, at time.Time, forgive bool, done func(error)) {
	s.mu.Lock()
	s.end(source, at, forgive, done)
	s.next(source)
	s.mu.Unlock()
	s.wake()
}

// end is End for who holds s.mu.
func (s *Store) end(source netip.Prefix, at time.Time, forgive bool, done func(error)) {
	var b *Block
	if !forgive {
		b = s.current(source)
	}
	c := s.pending.of(source)
	c.live, s.touched = nil, true
	switch {
	case forgive:
		c.last, c.forgiven = nil, true
	case b != nil:
		over := *b
		over.Until = at
		over = over.kept()
		c.last, c.forgiven = &over, false
	}
	c.ended = both(c.ended, done)
}

// current returns the live block of source, committed or not; nil for none. The caller holds s.mu.
func (s *Store) current(source netip.Prefix) *Block {
	for _, cs := range []changes{s.pending, s.taken} {
		if c := cs[source]; c != nil {
			return c.live
		}
	}
	b, err := s.db.find(liveBucket, source)
	if err != nil {
		return nil // closed: the change will not be written either
	}
	return b
}

// Forget hands in that of the blocks that are over those shall be forgotten that ended before the given time, and of
// more than max the ones that ended first. Run does it a part at a time.
func (s *Store) Forget(before time.Time, max int) {
	s.mu.Lock()
	s.forget = &forgetting{before, max}
	s.mu.Unlock()
	s.wake()
}

// Degraded returns why the disk cannot be written, and nil when it can. Nothing is lost while the process lives.
func (s *Store) Degraded() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.degraded
}

// wake tells Run that there is something to do.
func (s *Store) wake() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}
