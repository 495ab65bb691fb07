package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
	"go.uber.org/zap"
)

// A disk that fails is tried again after retryMin, and then after twice as long each time up to retryMax.
const (
	retryMin = time.Second
	retryMax = 4 * time.Second
)

// lookEvery is how often the store is looked at while there is nothing to write, to see whether it is in its place.
const lookEvery = 30 * time.Second

// Run writes what is handed in until ctx ends, and then what is left. All that is pending goes into one transaction, so
// that the disk is synced once for many changes. A disk that fails is logged once, tried again with growing pauses, and
// never ends Run. The error tells what could not be written at the end. Run must be called once.
func (s *Store) Run(ctx context.Context) error {
	timer := time.NewTimer(0) // what Open could not write is taken up
	defer timer.Stop()
	var retry time.Duration // 0 while all is well
	for {
		select {
		case <-ctx.Done():
			return s.finish()
		case <-s.kick:
			if retry > 0 { // changes wait for the timer, and nobody for them
				s.refuse()
				continue
			}
		case <-timer.C:
		}
		if err := s.flush(false); err != nil {
			retry = min(max(2*retry, retryMin), retryMax)
			timer.Reset(retry)
			continue
		}
		retry = 0
		next := lookEvery
		if due, ok := s.nextRewrite(); ok {
			next = min(next, time.Until(due))
		}
		timer.Reset(next)
	}
}

// finish writes all that is pending, and what comes in meanwhile.
func (s *Store) finish() error {
	for {
		if err := s.flush(true); err != nil {
			return fmt.Errorf("%d changes are not in the store: %w", s.backlog(), err)
		}
		if s.backlog() == 0 {
			return nil
		}
	}
}

// backlog is the number of changes that are not committed.
func (s *Store) backlog() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.pending)
}

// flush writes what is pending: the store, then the text files. All also takes lines out of the blocked files that
// could wait.
func (s *Store) flush(all bool) error {
	err := s.write(all)
	if err == nil {
		err = s.writeServed()
	}
	if err == nil && !all { // at the end, that is for WriteTally
		err = s.writeTally()
	}
	if err == nil {
		err = s.forgetSome()
	}
	s.note(err)
	return err
}

// write commits the pending changes and publishes them.
func (s *Store) write(all bool) error {
	cs := s.take()
	err := s.attach()
	var effects []effect
	if err == nil {
		effects, err = s.commit(cs)
	}
	if err != nil {
		s.putBack(cs, err)
		return errors.Join(fmt.Errorf("write %s: %w", storeName, err), s.publishMemory())
	}
	s.committed()
	return s.publish(effects, all, sync.OnceValues(s.rows))
}

// commitChunk bounds the changes in a transaction: the history has room for their lines until those are written, the
// memory that bbolt needs is small, and what comes in meanwhile waits for no more.
const commitChunk = 12000

// take makes the pending changes, or a part of them, the ones that are being committed. Of more than one part each is
// a piece of the order of the keys, so that a page of the store is hardly written twice.
func (s *Store) take() changes {
	s.arrange()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.pending) <= commitChunk {
		s.taken, s.pending, s.order = s.pending, changes{}, nil
		return s.taken
	}
	s.taken = make(changes, commitChunk)
	for len(s.taken) < commitChunk && len(s.order) > 0 {
		source := s.order[len(s.order)-1]
		s.order = s.order[:len(s.order)-1]
		if c := s.pending[source]; c != nil {
			s.taken[source] = c
			delete(s.pending, source)
		}
	}
	return s.taken
}

// arrange puts what is pending in order, if it is more than a transaction takes and is in none. What is to go first does.
func (s *Store) arrange() {
	s.mu.Lock()
	if len(s.order) >= commitChunk || len(s.pending) <= commitChunk {
		s.mu.Unlock()
		return
	}
	order := slices.AppendSeq(make([]netip.Prefix, 0, len(s.pending)), maps.Keys(s.pending))
	s.queue()
	s.mu.Unlock()
	slices.SortFunc(order, func(a, b netip.Prefix) int { return compareSources(b, a) })
	s.mu.Lock()
	defer s.mu.Unlock()
	s.order = append(order, s.order...)
}

// committed ends what take began.
func (s *Store) committed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken = nil
	if len(s.pending) > 0 {
		s.wake()
	}
}

// putBack makes changes pending again that could not be committed. The store may yet have them, as an error of the last
// sync does not tell, so the mirrors are made anew when it is well.
func (s *Store) putBack(cs changes, err error) {
	s.tcp.stale, s.udp.stale = true, true
	cs.tell(err)
	s.tellWaiting(err) // for the same disk
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending.under(cs)
	s.taken = nil
	s.pending.bound(func(source netip.Prefix) bool {
		b, err := s.db.find(liveBucket, source)
		return err == nil && b != nil
	})
}

// refuse tells who waits for the disk that it fails, and why.
func (s *Store) refuse() {
	if err := s.Degraded(); err != nil {
		s.tellWaiting(err)
	}
}

func (s *Store) tellWaiting(err error) {
	for _, done := range s.waiting() {
		settle(done, err)
	}
}

// waiting takes the functions off the pending changes.
func (s *Store) waiting() (told []func(error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.pending {
		if done := both(c.saved, c.ended); done != nil {
			told = append(told, done)
			c.saved, c.ended = nil, nil
		}
	}
	return told
}

// commit writes the changes in one transaction, together with what the history owes to them.
func (s *Store) commit(cs changes) (effects []effect, err error) {
	if len(cs) == 0 {
		return nil, nil
	}
	owed := s.history.owed
	err = s.db.update(func(tx *bolt.Tx) error {
		if effects, err = cs.write(tx); err != nil {
			return err
		}
		lines := historyLines(effects)
		if lines == "" {
			return nil
		}
		owed = s.history.owe(lines)
		value, err := json.Marshal(owed)
		if err != nil {
			return err
		}
		return tx.Bucket(metaBucket).Put(owedKey, value)
	})
	if err == nil {
		s.history.owed = owed
	}
	return effects, err
}

// historyLines are the lines of the new blocks, the oldest first.
func historyLines(effects []effect) string {
	var fresh []*Block
	for _, e := range effects {
		fresh = append(fresh, e.fresh...)
	}
	slices.SortFunc(fresh, compare)
	var lines strings.Builder
	for _, b := range fresh {
		if line := FormatLine(*b); line != "" {
			lines.WriteString(line + "\n")
		}
	}
	return lines.String()
}

// publish brings the text files in line with the store and calls the functions of the changes. Live gives
// the rows of the live blocks.
func (s *Store) publish(effects []effect, all bool, live liveRows) error {
	s.mirror(effects)
	err := errors.Join(s.history.write(), s.tcp.write(live, all), s.udp.write(live, all))
	for _, e := range effects {
		settle(e.saved, err)
		settle(e.ended, err)
	}
	return err
}

// mirror hands the lines that come and go to the mirrors, and with the latter the functions that wait for it.
func (s *Store) mirror(effects []effect) {
	type added struct {
		*Block
		line string
	}
	var all []added
	for _, e := range effects {
		was, is := lineOf(e.was), lineOf(e.live)
		if was == is {
			continue
		}
		if was != "" {
			s.mirrorOf(e.was).drop(was, e.ended)
			e.change.ended = nil
		}
		if is != "" {
			all = append(all, added{e.live, is})
		}
	}
	slices.SortFunc(all, func(a, b added) int { return compare(a.Block, b.Block) })
	for _, a := range all {
		s.mirrorOf(a.Block).add(a.line)
	}
}

// lineOf is the line of b in a mirror; "" if it has none.
func lineOf(b *Block) string {
	if b == nil {
		return ""
	}
	return FormatLine(*b)
}

// mirrorOf is the mirror that b is in, if it is in any.
func (s *Store) mirrorOf(b *Block) *mirror {
	if b.Protocol == "udp" {
		return s.udp
	}
	return s.tcp
}

// nextRewrite is when a mirror may take lines out that have to go; false if there are none.
func (s *Store) nextRewrite() (due time.Time, ok bool) {
	for _, m := range []*mirror{s.tcp, s.udp} {
		if len(m.gone) > 0 && (!ok || m.due.Before(due)) {
			due, ok = m.due, true
		}
	}
	return due, ok
}

// forgetSome does a part of what Forget asked for, and sees to it that the rest follows.
func (s *Store) forgetSome() error {
	s.mu.Lock()
	f := s.forget
	s.mu.Unlock()
	if f == nil {
		return nil
	}
	more, err := s.db.forgetEnded(*f)
	if err != nil {
		return fmt.Errorf("write %s: %w", storeName, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case more:
		s.wake()
	case s.forget == f:
		s.forget = nil
	}
	return nil
}

// note keeps err, nil for none, as what Degraded returns, and logs when the disk begins to fail and when it is well.
func (s *Store) note(err error) {
	s.mu.Lock()
	before := s.degraded
	s.degraded = err
	s.mu.Unlock()
	switch {
	case before == nil && err != nil:
		s.log.Warn("state cannot be written", zap.Error(err))
	case before != nil && err == nil:
		s.log.Info("state can be written again")
	}
}
