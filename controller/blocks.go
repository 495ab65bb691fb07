package controller

import (
	"container/heap"
	"net/netip"
	"slices"
	"time"

	"nftsentry/state"
)

// blocks are the live blocks, by source and in the order in which they end.
// The Until of each carries the monotonic clock.
type blocks struct {
	bySource map[netip.Prefix]state.Block
	ends     ends
	v4       int // how many of them are IPv4
}

func newBlocks() blocks { return blocks{bySource: make(map[netip.Prefix]state.Block)} }

// An end is the moment when a block was to end at the time it was put here;
// it counts only while the block still has it.
type end struct {
	at     time.Time
	source netip.Prefix
}

func (b *blocks) get(source netip.Prefix) (state.Block, bool) {
	block, ok := b.bySource[source]
	return block, ok
}

// put adds a block or replaces the one of the same source.
func (b *blocks) put(block state.Block) {
	b.remove(block.Source)
	if block.Source.Addr().Is4() {
		b.v4++
	}
	b.bySource[block.Source] = block
	heap.Push(&b.ends, end{block.Until, block.Source})
	if len(b.ends) > 2*len(b.bySource)+64 { // most are ends of blocks that have been changed since
		b.ends = slices.DeleteFunc(b.ends, func(e end) bool { return !b.current(e) })
		heap.Init(&b.ends)
	}
}

func (b *blocks) remove(source netip.Prefix) {
	if _, ok := b.bySource[source]; ok && source.Addr().Is4() {
		b.v4--
	}
	delete(b.bySource, source)
}

// count is how many there are of a family.
func (b *blocks) count(v4 bool) int {
	if v4 {
		return b.v4
	}
	return len(b.bySource) - b.v4
}

// next is when the next block ends.
func (b *blocks) next() (time.Time, bool) {
	for len(b.ends) > 0 {
		if b.current(b.ends[0]) {
			return b.ends[0].at, true
		}
		heap.Pop(&b.ends)
	}
	return time.Time{}, false
}

// due removes the blocks whose time is up.
func (b *blocks) due(now time.Time) []state.Block {
	var out []state.Block
	for {
		at, ok := b.next()
		if !ok || at.After(now) {
			return out
		}
		e := heap.Pop(&b.ends).(end)
		out = append(out, b.bySource[e.source])
		b.remove(e.source)
	}
}

func (b *blocks) current(e end) bool {
	block, ok := b.bySource[e.source]
	return ok && block.Until.Equal(e.at)
}

// around finds the narrowest block that an address lies in.
func (b *blocks) around(a netip.Addr) (state.Block, bool) {
	for bits := a.BitLen(); bits >= 0; bits-- {
		if block, ok := b.bySource[netip.PrefixFrom(a, bits).Masked()]; ok {
			return block, true
		}
	}
	return state.Block{}, false
}

// ends is a heap, see container/heap.
type ends []end

func (e ends) Len() int           { return len(e) }
func (e ends) Less(i, j int) bool { return e[i].at.Before(e[j].at) }
func (e ends) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *ends) Push(x any)        { *e = append(*e, x.(end)) }
func (e *ends) Pop() any {
	last := len(*e) - 1
	x := (*e)[last]
	*e = (*e)[:last]
	return x
}
