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

// blocks are the live blocks, by source, in the order in which they end, and
// hosts in the order in which they can be spared. There may be millions of
// them, so that each is kept in a third of the memory that a state.Block takes.
type blocks struct {
	bySource index // places in records
	records  []record
	ends     []int32                // a heap of places, the one that ends first on top
	spare    [2][]int32             // likewise of hosts, of IPv4 and of IPv6, the one that can be spared most on top
	nets     map[sourceKey]struct{} // those that are no hosts
	v4       int                    // how many of them are IPv4
	prefix6  int                    // the length of IPv6 prefixes that are hosts
	clocks   clocks
}

func newBlocks(prefix6 int) blocks {
	return blocks{bySource: newIndex(), nets: make(map[sourceKey]struct{}), prefix6: prefix6, clocks: newClocks()}
}

// len is how many there are.
func (b *blocks) len() int { return len(b.records) }

func (b *blocks) get(source netip.Prefix) (state.Block, bool) {
	at, ok := b.bySource.find(b.records, keyOf(source))
	if !ok {
		return state.Block{}, false
	}
	return b.records[at].block(&b.clocks), true
}

func (b *blocks) has(source netip.Prefix) bool {
	_, ok := b.bySource.find(b.records, keyOf(source))
	return ok
}

// put adds a block or replaces the one of the same source.
func (b *blocks) put(block state.Block) {
	key := keyOf(block.Source)
	r := b.clocks.record(key, block)
	if at, ok := b.bySource.find(b.records, key); ok {
		r.endAt, r.spareAt = b.records[at].endAt, b.records[at].spareAt
		b.records[at] = r
		heap.Fix(b.byEnd(), int(r.endAt))
		if b.isHost(key) {
			heap.Fix(b.bySpare(key.v4()), int(r.spareAt))
		}
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
	b.bySource.set(b.records, key, at)
	heap.Push(b.byEnd(), at)
	b.sortOut(at)
}

// sortOut puts a record where hosts are, or prefixes.
func (b *blocks) sortOut(at int32) {
	if key := b.records[at].key; b.isHost(key) {
		heap.Push(b.bySpare(key.v4()), at)
	} else {
		b.nets[key] = struct{}{}
	}
}

// setPrefix6 has other IPv6 prefixes be hosts.
func (b *blocks) setPrefix6(bits int) {
	if bits == b.prefix6 {
		return
	}
	b.prefix6, b.spare = bits, [2][]int32{}
	clear(b.nets)
	for at := range b.records {
		b.sortOut(int32(at))
	}
}

// isHost tells whether a source is what is blocked for one address.
func (b *blocks) isHost(k sourceKey) bool {
	return k.v4() && k.bits == 32 || k.kind == isV6 && (k.bits == 128 || int(k.bits) == b.prefix6)
}

func (b *blocks) remove(source netip.Prefix) {
	key := keyOf(source)
	at, ok := b.bySource.find(b.records, key)
	if !ok {
		return
	}
	if key.v4() {
		b.v4--
	}
	heap.Remove(b.byEnd(), int(b.records[at].endAt))
	if b.isHost(key) {
		heap.Remove(b.bySpare(key.v4()), int(b.records[at].spareAt))
	} else {
		delete(b.nets, key)
	}
	b.bySource.remove(b.records, key)
	last := int32(len(b.records) - 1)
	if at != last { // the last one takes the place
		r := b.records[last]
		b.bySource.set(b.records, r.key, at) // before there are two of the key
		b.records[at], b.ends[r.endAt] = r, at
		if b.isHost(r.key) {
			(*b.spareOf(r.key.v4()))[r.spareAt] = at
		}
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

// hosts is how many there are in the set of hosts of a family.
func (b *blocks) hosts(v4 bool) int { return len(*b.spareOf(v4)) }

func (b *blocks) spareOf(v4 bool) *[]int32 {
	if v4 {
		return &b.spare[0]
	}
	return &b.spare[1]
}

// leastMissed is the host of a family that can be spared most: of those on
// unproven evidence the one that ends soonest, or else of the others.
func (b *blocks) leastMissed(v4 bool) (state.Block, bool) {
	hosts := *b.spareOf(v4)
	if len(hosts) == 0 {
		return state.Block{}, false
	}
	return b.records[hosts[0]].block(&b.clocks), true
}

// takeSpare removes, and returns, so many hosts that can be spared most.
func (b *blocks) takeSpare(v4 bool, n int) []state.Block {
	var out []state.Block
	for range n {
		block, ok := b.leastMissed(v4)
		if !ok {
			break
		}
		out = append(out, block)
		b.remove(block.Source)
	}
	return out
}

// prefixes are the blocks that are no hosts, in no order.
func (b *blocks) prefixes() (all []state.Block) {
	for key := range b.nets {
		at, _ := b.bySource.find(b.records, key)
		all = append(all, b.records[at].block(&b.clocks))
	}
	return all
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

// A placeHeap is a heap of places of records, see container/heap. Each record
// knows where it is in it.
type placeHeap struct {
	records []record
	places  *[]int32
	before  func(a, b *record) bool
	at      func(*record) *int32
}

func (b *blocks) byEnd() heap.Interface {
	return placeHeap{b.records, &b.ends,
		func(a, b *record) bool { return a.until < b.until }, func(r *record) *int32 { return &r.endAt }}
}

func (b *blocks) bySpare(v4 bool) heap.Interface {
	return placeHeap{b.records, b.spareOf(v4), (*record).missedLess, func(r *record) *int32 { return &r.spareAt }}
}

// missedLess tells whether a host can be spared rather than another.
func (r *record) missedLess(o *record) bool {
	suspected, alike := r.texts.Value().evidence == unproven, o.texts.Value().evidence == unproven
	if suspected != alike {
		return suspected
	}
	return cmp.Or(cmp.Compare(r.until, o.until), r.key.compare(o.key)) < 0
}

func (h placeHeap) Len() int { return len(*h.places) }

func (h placeHeap) Less(i, j int) bool {
	return h.before(&h.records[(*h.places)[i]], &h.records[(*h.places)[j]])
}

func (h placeHeap) Swap(i, j int) {
	p := *h.places
	p[i], p[j] = p[j], p[i]
	*h.at(&h.records[p[i]]), *h.at(&h.records[p[j]]) = int32(i), int32(j)
}

func (h placeHeap) Push(x any) {
	at := x.(int32)
	*h.at(&h.records[at]) = int32(len(*h.places))
	*h.places = append(*h.places, at)
}

func (h placeHeap) Pop() any {
	last := len(*h.places) - 1
	at := (*h.places)[last]
	*h.places = (*h.places)[:last]
	return at
}
