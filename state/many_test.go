package state

import (
	"maps"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestSaveAll hands in many blocks, of which each is on record, in the mirror
// and in the history when the one call comes, and then has them end.
func TestSaveAll(t *testing.T) {
	for name, n := range map[string]int{"one": 1, "as many as a transaction has": commitChunk, "more": 2*commitChunk + 1} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				s := mustOpen(t, dir)
				stop := start(s)
				blocks, sources := make([]Block, n), make([]netip.Prefix, n)
				for i := range blocks {
					a := netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 14: byte(i >> 8), 15: byte(i)})
					sources[i] = netip.PrefixFrom(a, 128)
					blocks[i] = Block{Source: sources[i], Address: a, Since: time.Now(), Until: time.Now().Add(time.Hour), Origin: OriginOperator}
				}
				var told calls
				s.SaveAll(blocks, told.done("saved"))
				synctest.Wait()
				diff(t, "calls", []string{"saved"}, told.take())
				live, err := s.Live()
				if err != nil || len(live) != n {
					t.Errorf("%d live blocks, %v, want %d", len(live), err, n)
				}
				for _, name := range []string{tcpName, historyName} {
					if got := strings.Count(read(t, dir, name), "\n"); got != n {
						t.Errorf("%s has %d lines, want %d", name, got, n)
					}
				}
				s.EndAll(sources, time.Now(), true, told.done("ended"))
				time.Sleep(time.Minute) // a mirror is not rewritten all the time
				synctest.Wait()
				diff(t, "calls", []string{"ended"}, told.take())
				if live, err := s.Live(); err != nil || len(live) != 0 {
					t.Errorf("%d live blocks at the end, %v, want none", len(live), err)
				}
				if err := stop(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// manyOf makes so many blocks of IPv6 addresses in their order.
func manyOf(n int) []Block {
	blocks := make([]Block, n)
	for i := range blocks {
		a := netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 13: byte(i >> 16), 14: byte(i >> 8), 15: byte(i)})
		blocks[i] = Block{Source: netip.PrefixFrom(a, 128), Address: a, Since: time.Unix(int64(i), 0).UTC(), Origin: OriginFleet}
	}
	return blocks
}

// TestOneGoesBeforeMany hands in one before the many have an order, and sees
// that it goes in the first part, which is a whole one.
func TestOneGoesBeforeMany(t *testing.T) {
	s := mustOpen(t, t.TempDir())
	blocks := manyOf(3 * commitChunk)
	last := blocks[len(blocks)-1]
	s.SaveAll(blocks[:len(blocks)-1], nil)
	s.Save(last, nil)
	want := append(sourcesOf(blocks[:commitChunk-1]), last.Source)
	diff(t, "first part", want, slices.SortedFunc(maps.Keys(s.take()), compareSources))
}

// TestManyGoInOrder sees that each part of many changes is a piece of the order of the keys, in which what others hand
// in meanwhile goes first.
func TestManyGoInOrder(t *testing.T) {
	s := mustOpen(t, t.TempDir())
	blocks := manyOf(3 * commitChunk)
	s.SaveAll(blocks, nil)
	last, fresh := blocks[len(blocks)-1], block("192.0.2.1", 0)
	want := sourcesOf(blocks[:commitChunk])
	diff(t, "first part", want, slices.SortedFunc(maps.Keys(s.take()), compareSources))

	s.Save(fresh, nil)
	s.End(last.Source, time.Unix(1, 0), true, nil)
	want = append([]netip.Prefix{fresh.Source}, sourcesOf(blocks[commitChunk:2*commitChunk-2])...)
	want = append(want, last.Source)
	diff(t, "second part", want, slices.SortedFunc(maps.Keys(s.take()), compareSources))
	if n := len(s.take()) + len(s.pending); n != commitChunk+1 {
		t.Errorf("want %d left, got %d", commitChunk+1, n)
	}
}

func sourcesOf(blocks []Block) (sources []netip.Prefix) {
	for _, b := range blocks {
		sources = append(sources, b.Source)
	}
	return sources
}

// TestManyTakeLittle bounds the memory of what waits beside the caller's blocks.
func TestManyTakeLittle(t *testing.T) {
	s := mustOpen(t, t.TempDir())
	blocks := manyOf(100000)
	heap := func() (m runtime.MemStats) {
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m
	}
	before := heap()
	s.SaveAll(blocks, func(error) {})
	s.arrange()
	after := heap()
	if each := float64(after.HeapAlloc-before.HeapAlloc) / float64(len(blocks)); each > 160 {
		t.Errorf("want at most 160 bytes for each, got %.0f", each)
	}
	runtime.KeepAlive(s)
	runtime.KeepAlive(blocks)
}

// TestSaveAllLeavesBlocks hands in times that the store keeps in another form, and sees that only the store does.
func TestSaveAllLeavesBlocks(t *testing.T) {
	s := mustOpen(t, t.TempDir())
	blocks := manyOf(3)
	blocks[0].Since = time.Now() // has a monotonic clock and a zone
	blocks[1].Since = time.Unix(-1, 0)
	blocks[2].Until = time.Date(12345, 1, 1, 0, 0, 0, 0, time.UTC)
	before := slices.Clone(blocks)
	var kept []Block
	for _, b := range blocks {
		kept = append(kept, b.kept())
	}
	slices.SortFunc(kept, func(a, b Block) int { return a.Since.Compare(b.Since) })
	s.SaveAll(blocks, nil)
	diffLive(t, s, kept...)
	flushed(t, s)
	diffLive(t, s, kept...)
	if !slices.Equal(before, blocks) {
		t.Errorf("want %v, got %v", before, blocks)
	}
}
