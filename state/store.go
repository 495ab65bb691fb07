package state

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
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

	mu       sync.Mutex  // guards what follows; never held while the disk is written
	db       *database   // nil for none; replaced by the goroutine in Run
	pending  changes     // to be committed; without a database, all there is
	taken    changes     // being committed
	touched  bool        // there are changes since the text files were last written without a database
	loaded   []Block     // the live blocks, as Open read them; nil once they were handed out or changed
	forget   *forgetting // to be done
	served   *[]Service  // to be committed; nil for none
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

// load reads the live blocks and brings the text files in line with them. A store that cannot be read after all is left
// to Run.
func (s *Store) load() (err error) {
	if s.loaded, err = s.live(); err != nil {
		db := s.db
		s.use(nil)
		return errors.Join(err, db.close())
	}
	return s.publish(nil, true, func() ([]Block, error) { return s.loaded, nil }) // the same as a rule
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
	s.mu.Lock()
	blocks := s.loaded
	s.loaded = nil
	newer := make(map[netip.Prefix]*Block)
	for _, cs := range []changes{s.taken, s.pending} {
		for source, c := range cs {
			newer[source] = c.live
		}
	}
	s.mu.Unlock()
	if blocks == nil {
		var err error
		if blocks, err = s.live(); err != nil {
			return nil, err
		}
	}
	return overlay(blocks, newer), nil
}

// overlay puts newer blocks, nil for none, in the place of those of the same source.
func overlay(blocks []Block, newer map[netip.Prefix]*Block) []Block {
	if len(newer) == 0 {
		return blocks
	}
	blocks = slices.DeleteFunc(blocks, func(b Block) bool { _, changed := newer[b.Source]; return changed })
	for _, b := range newer {
		if b != nil {
			blocks = append(blocks, *b)
		}
	}
	slices.SortFunc(blocks, func(a, b Block) int { return compare(&a, &b) })
	return blocks
}

// live reads the live blocks, the oldest first.
func (s *Store) live() ([]Block, error) {
	db := s.database()
	if db == nil {
		return s.remembered(), nil
	}
	blocks, err := db.live()
	if err != nil && s.database() != db { // another has taken its place meanwhile
		return s.live()
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", storeName, err)
	}
	return blocks, nil
}

// remembered returns the live blocks that are in memory, the oldest first.
func (s *Store) remembered() []Block {
	s.mu.Lock()
	defer s.mu.Unlock()
	blocks := []Block{}
	for _, c := range s.pending {
		if c.live != nil {
			blocks = append(blocks, *c.live)
		}
	}
	for source, c := range s.taken {
		if c.live != nil && s.pending[source] == nil {
			blocks = append(blocks, *c.live)
		}
	}
	sortBlocks(blocks)
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
// in the store, synced to the disk, and in the text files, or with the error of the first attempt at it that failed.
// Even then the block stays pending, and is tried again.
func (s *Store) Save(b Block, done func(error)) {
	b.Since, b.Until = wall(b.Since), wall(b.Until)
	s.mu.Lock()
	c := s.pending.of(b.Source)
	c.live, s.touched = &b, true
	if done != nil {
		c.saved = append(c.saved, done)
	}
	s.mu.Unlock()
	s.wake()
}

// End hands in that the block of source is over since the given time: its record becomes the one that Last returns.
// With forgive nothing is remembered of source, neither this block nor earlier ones. A source that is not blocked is
// no error. Done is called as Save's is; the line in the blocked file goes first.
func (s *Store) End(source netip.Prefix, at time.Time, forgive bool, done func(error)) {
	s.mu.Lock()
	b := s.current(source)
	c := s.pending.of(source)
	c.live, s.touched = nil, true
	switch {
	case forgive:
		c.last, c.forgiven = nil, true
	case b != nil:
		over := *b
		over.Until = wall(at)
		c.last, c.forgiven = &over, false
	}
	if done != nil {
		c.ended = append(c.ended, done)
	}
	s.mu.Unlock()
	s.wake()
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
