package controller

import "hash/maphash"

// An index finds the places of records by their keys, in a fifth of the memory
// of a map that has the keys once more: an open hash table, in which a place
// stands in its slot or in one of the next.
type index struct {
	slots []int32 // a place and one, or 0 for none; a power of two of them, two thirds full at the most
	seed  maphash.Seed
	used  int
}

func newIndex() index { return index{slots: make([]int32, 16), seed: maphash.MakeSeed()} }

// home is the slot where a key belongs.
func (x *index) home(key sourceKey) int {
	return int(maphash.Comparable(x.seed, key)) & (len(x.slots) - 1)
}

func (x *index) next(slot int) int { return (slot + 1) & (len(x.slots) - 1) }

// slot is where a key is, or would come.
func (x *index) slot(records []record, key sourceKey) int {
	slot := x.home(key)
	for x.slots[slot] != 0 && records[x.slots[slot]-1].key != key {
		slot = x.next(slot)
	}
	return slot
}

func (x *index) find(records []record, key sourceKey) (at int32, ok bool) {
	at = x.slots[x.slot(records, key)]
	return at - 1, at != 0
}

// set adds the place of a record, or changes it.
func (x *index) set(records []record, key sourceKey, at int32) {
	slot := x.slot(records, key)
	if x.slots[slot] == 0 {
		x.used++
	}
	x.slots[slot] = at + 1
	if 3*x.used > 2*len(x.slots) {
		x.grow(records)
	}
}

func (x *index) grow(records []record) {
	old := x.slots
	x.slots = make([]int32, 2*len(old))
	for _, at := range old {
		if at != 0 {
			x.slots[x.slot(records, records[at-1].key)] = at
		}
	}
}

// remove takes a key out that is there, and closes the gap: what stands behind
// it may belong before it.
func (x *index) remove(records []record, key sourceKey) {
	gap := x.slot(records, key)
	x.used--
	for slot := x.next(gap); x.slots[slot] != 0; slot = x.next(slot) {
		home := x.home(records[x.slots[slot]-1].key)
		if mask := len(x.slots) - 1; (slot-home)&mask >= (slot-gap)&mask {
			x.slots[gap], gap = x.slots[slot], slot
		}
	}
	x.slots[gap] = 0
}
