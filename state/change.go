package state

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	bolt "go.etcd.io/bbolt"
)

// change is what is to become of one source in the store. A later change of the source is worked into it, so that
// there is never more than one.
type change struct {
	live     *Block // its block; nil for none
	last     *Block // its last block that is over; nil leaves the one on record
	forgiven bool   // nothing is remembered of it, and last is nil

	saved, ended func(error) // to be told; nil for nobody
}

// under makes c, the newer change, stand for the older one too.
func (c *change) under(older *change) {
	if c.last == nil && !c.forgiven {
		c.last, c.forgiven = older.last, older.forgiven
	}
}

// changes are those that wait to be committed, by source.
type changes map[netip.Prefix]*change

// of returns the change of source to work into.
func (cs changes) of(source netip.Prefix) *change {
	return cs.in(source, nil)
}

// in is of with room for a new change, which may be nil: many are made in one piece.
func (cs changes) in(source netip.Prefix, room *change) *change {
	c := cs[source]
	if c == nil {
		if c = room; c == nil {
			c = &change{}
		}
		cs[source] = c
	}
	return c
}

// under makes cs, the newer changes, stand for the older ones too, whose functions have been told.
func (cs changes) under(older changes) {
	for source, c := range older {
		c.saved, c.ended = nil, nil
		if newer := cs[source]; newer != nil {
			newer.under(c)
		} else {
			cs[source] = c
		}
	}
}

// maxOver bounds the blocks that are over among changes that cannot be written, and that may be many: a source of an hour
// ago takes as much memory as a live one.
const maxOver = 32768

// bound forgets those that ended first of more than maxOver blocks that are over, down to half as many. Recorded tells
// whether the source has a live block in the store, which then is deleted still.
func (cs changes) bound(recorded func(source netip.Prefix) bool) {
	var over []*Block
	for _, c := range cs {
		if c.live == nil && c.last != nil && c.saved == nil && c.ended == nil {
			over = append(over, c.last)
		}
	}
	if len(over) <= maxOver {
		return
	}
	slices.SortFunc(over, func(a, b *Block) int { return a.Until.Compare(b.Until) })
	for _, b := range over[:len(over)-maxOver/2] {
		if recorded(b.Source) {
			cs[b.Source].last = nil
		} else {
			delete(cs, b.Source)
		}
	}
}

// tell calls all functions of the changes.
func (cs changes) tell(err error) {
	for _, c := range cs {
		settle(c.saved, err)
		settle(c.ended, err)
	}
}

// settle calls done, which may be nil, with err.
func settle(done func(error), err error) {
	if done != nil {
		done(err)
	}
}

// both calls two functions, of which either may be nil, one after the other.
func both(first, second func(error)) func(error) {
	switch {
	case first == nil:
		return second
	case second == nil:
		return first
	}
	return func(err error) { first(err); second(err) }
}

// effect is what a change means for the text files.
type effect struct {
	*change
	was   *Block   // the live block that was on record; nil for none
	fresh []*Block // blocks that were not on record
}

// write makes the change in the store.
func (c *change) write(tx *bolt.Tx, source netip.Prefix) (effect, error) {
	was, before := get(tx, liveBucket, source), get(tx, endedBucket, source)
	e := effect{change: c, was: was}
	for _, b := range []*Block{c.last, c.live} {
		if b != nil && !same(b, was) && !same(b, before) {
			e.fresh = append(e.fresh, b)
		}
	}
	if err := c.writeEnded(tx, before); err != nil {
		return e, err
	}
	if c.live != nil {
		return e, put(tx, liveBucket, c.live)
	}
	return e, tx.Bucket(liveBucket).Delete(keyOf(source))
}

func (c *change) writeEnded(tx *bolt.Tx, before *Block) error {
	switch {
	case c.forgiven:
		return forget(tx, before)
	case c.last != nil:
		return remember(tx, before, c.last)
	}
	return nil
}

// manyChanges are so many in one transaction that the next ones will hardly go in between them.
const manyChanges = commitChunk / 4

// write makes the changes in the store, in the order of its keys, as bbolt splits no page before the end of a
// transaction and is slow in any other, and returns their effects.
func (cs changes) write(tx *bolt.Tx) ([]effect, error) {
	if len(cs) >= manyChanges {
		tx.Bucket(liveBucket).FillPercent = 0.9
	}
	effects := make([]effect, 0, len(cs))
	for _, source := range slices.SortedFunc(maps.Keys(cs), compareSources) {
		e, err := cs[source].write(tx, source)
		if err != nil {
			return nil, fmt.Errorf("block %s: %w", source, err)
		}
		effects = append(effects, e)
	}
	return effects, nil
}
