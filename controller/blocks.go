package controller

import (
	"cmp"
	"container/heap"
	"iter"
	"net/netip"
	"slices"
	"time"

	"nftsentry/state"
)

// blocks are the live blocks, by source and in the order in which they end.
// There may be 131,072 of them, so that each is kept in a third of the memory
// that a state.Block takes.
type blocks struct {
	bySource map[sourceKey]int32 // places in records
	records  []record
	ends     []int32 // a heap of places, the one that ends first on top; see endHeap
	v4       int     // how many of them are IPv4
	clocks   clocks
}

func newBlocks() blocks {
	return blocks{bySource: make(map[sourceKey]int32), clocks: newClocks()}
}

// len is how many there are.
func (b *blocks) len() int { return len(b.records) }

func (b *blocks) get(source netip.Prefix) (state.Block, bool) {
	at, ok := b.bySource[keyOf(source)]
	if !ok {
		return state.Block{}, false
	}
	return b.records[at].block(&b.clocks), true
}

func (b *blocks) has(source netip.Prefix) bool {
	_, ok := b.bySource[keyOf(source)]
	return ok
}

// put adds a block or replaces the one of the same source.
func (b *blocks) put(block state.Block) {
	key := keyOf(block.Source)
	r := b.clocks.record(key, block)
	if at, ok := b.bySource[key]; ok {
		r.heapAt = b.records[at].heapAt
		b.records[at] = r
		heap.Fix(b.heap(), int(r.heapAt))
		return
	}
	if key.v4() {
		b.v4++
	}
	if len(b.records) == cap(b.records) { // append would leave room for a quarter more
		b.records = slices.Grow(b.records, 64+len(b.records)/8)
	}
	at := int32(len(b.records))
	b.records = append(b.records, r)
	b.bySource[key] = at
	heap.Push(b.heap(), at)
}

func (b *blocks) remove(source netip.Prefix) {
	key := keyOf(source)
	at, ok := b.bySource[key]
	if !ok {
		return
	}
	if key.v4() {
		b.v4--
	}
	heap.Remove(b.heap(), int(b.records[at].heapAt))
	delete(b.bySource, key)
	last := int32(len(b.records) - 1)
	if at != last { // the last one takes the place
		b.records[at] = b.records[last]
		b.bySource[b.records[at].key] = at
		b.ends[b.records[at].heapAt] = at
	}
	b.records[last] = record{}
	b.records = b.records[:last]
}

// count is how many there are of a family.
func (b *blocks) count(v4 bool) int {
	if v4 {
		return b.v4
	}
	return len(b.records) - b.v4
}

// next is when the next block ends.
func (b *blocks) next() (time.Time, bool) {
	if len(b.ends) == 0 {
		return time.Time{}, false
	}
	return b.clocks.until(&b.records[b.ends[0]]), true
}

// due removes the blocks whose time is up.
func (b *blocks) due(now time.Time) []state.Block {
	var out []state.Block
	for {
		at, ok := b.next()
		if !ok || at.After(now) {
			return out
		}
		block := b.records[b.ends[0]].block(&b.clocks)
		out = append(out, block)
		b.remove(block.Source)
	}
}

// all are the blocks in no order. They must not be changed meanwhile.
func (b *blocks) all() iter.Seq[state.Block] {
	return func(yield func(state.Block) bool) {
		for i := range b.records {
			if !yield(b.records[i].block(&b.clocks)) {
				return
			}
		}
	}
}

// sources are those of all blocks, in no order.
func (b *blocks) sources() iter.Seq[netip.Prefix] {
	return func(yield func(netip.Prefix) bool) {
		for i := range b.records {
			if !yield(b.records[i].key.prefix()) {
				return
			}
		}
	}
}

// around finds the narrowest block that an address lies in.
func (b *blocks) around(a netip.Addr) (state.Block, bool) {
	for bits := a.BitLen(); bits >= 0; bits-- {
		if block, ok := b.get(netip.PrefixFrom(a, bits).Masked()); ok {
			return block, true
		}
	}
	return state.Block{}, false
}

// snapshot is all blocks as they are now, the oldest first. It may be used
// when the blocks have changed, and by any goroutine.
func (b *blocks) snapshot() iter.Seq[state.Block] {
	records, clocks := slices.Clone(b.records), b.clocks.clone()
	return func(yield func(state.Block) bool) {
		slices.SortFunc(records, func(a, b record) int { return cmp.Or(cmp.Compare(a.since, b.since), a.key.compare(b.key)) })
		for i := range records {
			if !yield(records[i].block(&clocks)) {
				return
			}
		}
	}
}

func (b *blocks) heap() heap.Interface { return (*endHeap)(b) }

// endHeap is the heap of ends, see container/heap. Each record knows its place
// in it.
type endHeap blocks

func (h *endHeap) Len() int { return len(h.ends) }

func (h *endHeap) Less(i, j int) bool {
	return h.records[h.ends[i]].until < h.records[h.ends[j]].until
}

func (h *endHeap) Swap(i, j int) {
	h.ends[i], h.ends[j] = h.ends[j], h.ends[i]
	h.records[h.ends[i]].heapAt, h.records[h.ends[j]].heapAt = int32(i), int32(j)
}

func (h *endHeap) Push(x any) {
	at := x.(int32)
	h.records[at].heapAt = int32(len(h.ends))
	h.ends = append(h.ends, at)
}

func (h *endHeap) Pop() any {
	last := len(h.ends) - 1
	at := h.ends[last]
	h.ends = h.ends[:last]
	return at
}
