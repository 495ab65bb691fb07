package state

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
	"go.uber.org/zap"
)

// sizes are the numbers of live blocks that benchmarks are run beside.
var sizes = []int{10, 1000, 100000, 1000000}

// blockOf makes a block of one address of its own, spread over the address space, each a little later than the last.
func blockOf(i int) Block {
	a := netip.AddrFrom4([4]byte{byte(i * 7), byte(i >> 16), byte(i >> 8), byte(i)})
	b := block(a.String(), 0)
	b.Since = b.Since.Add(time.Duration(i) * time.Millisecond)
	b.Until = b.Since.Add(10 * time.Minute)
	return b
}

// blocksOf makes so many blocks.
func blocksOf(n int) []Block {
	blocks := make([]Block, n)
	for i := range blocks {
		blocks[i] = blockOf(i)
	}
	return blocks
}

// filled makes a store of so many live and remembered blocks.
func filled(b *testing.B, dir string, live, ended int) *Store {
	b.Helper()
	s := mustOpen(b, dir)
	blocks := blocksOf(live + ended)
	s.SaveAll(blocks, nil)
	flushed(b, s)
	sources := make([]netip.Prefix, 0, ended)
	for i := live; i < live+ended; i++ {
		sources = append(sources, blockOf(i).Source)
	}
	s.EndAll(sources, time.Now(), false, nil)
	flushed(b, s)
	return s
}

// BenchmarkSaveAll hands in so many new blocks at once, until all are on the disk and in the text files.
func BenchmarkSaveAll(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			blocks := blocksOf(n)
			base, most, size := 0.0, 0.0, int64(0)
			for b.Loop() {
				b.StopTimer()
				dir := b.TempDir()
				s := mustOpen(b, dir)
				stop := start(s)
				done := make(chan error, 1)
				resetPeak(b)
				base = peak(b)
				b.StartTimer()
				s.SaveAll(blocks, func(err error) { done <- err })
				if err := <-done; err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				most = max(most, peak(b)-base)
				if err := errors.Join(stop(), s.Close()); err != nil {
					b.Fatal(err)
				}
				info, err := os.Stat(filepath.Join(dir, storeName))
				if err != nil {
					b.Fatal(err)
				}
				size = info.Size()
				b.StartTimer()
			}
			b.ReportMetric(most, "MiB-more")
			b.ReportMetric(float64(size)/float64(n), "B/block")
		})
	}
}

// BenchmarkWaiting is the memory of new blocks that wait for the disk, beside the slice that they are handed in by.
func BenchmarkWaiting(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			blocks := blocksOf(n)
			var before, after runtime.MemStats
			for b.Loop() {
				s := mustOpen(b, b.TempDir())
				runtime.GC()
				runtime.ReadMemStats(&before)
				s.SaveAll(blocks, func(error) {})
				s.arrange()
				runtime.GC()
				runtime.ReadMemStats(&after)
				runtime.KeepAlive(s)
			}
			runtime.KeepAlive(blocks)
			b.ReportMetric((float64(after.HeapAlloc)-float64(before.HeapAlloc))/float64(n), "B/block")
		})
	}
}

// BenchmarkBeside is what one change costs beside so many live blocks: a new block, alone and with 99 others, one that
// ends and whose line is taken out of the mirror at once, and one whose line waits.
func BenchmarkBeside(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := filled(b, b.TempDir(), n, 0)
			next, first := n, 0
			flush := func(b *testing.B, all bool) {
				if err := s.flush(all); err != nil {
					b.Fatal(err)
				}
			}
			for _, group := range []int{1, 100} {
				b.Run(fmt.Sprintf("save=%d", group), func(b *testing.B) {
					for b.Loop() {
						for range group {
							s.Save(blockOf(next), nil)
							next++
						}
						flush(b, false)
					}
				})
			}
			for _, all := range []bool{false, true} {
				b.Run(fmt.Sprintf("end=%v", all), func(b *testing.B) {
					for b.Loop() {
						s.tcp.due = time.Now().Add(time.Hour)
						s.End(blockOf(first).Source, time.Now(), false, nil)
						first++
						flush(b, all)
					}
				})
			}
		})
	}
}

// BenchmarkStart is Open, which makes the mirrors anew, and Visit of so many.
func BenchmarkStart(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			dir := b.TempDir()
			filled(b, dir, n, 0).Close()
			resetPeak(b)
			base := peak(b)
			for b.Loop() {
				s, err := Open(dir, zap.NewNop())
				if err != nil {
					b.Fatal(err)
				}
				seen := 0
				if err := s.Visit(func(Block) { seen++ }); err != nil || seen != n {
					b.Fatalf("want %d blocks, got %d: %v", n, seen, err)
				}
				s.Close()
			}
			b.ReportMetric(peak(b)-base, "MiB-more")
		})
	}
}

// BenchmarkAnew writes a store of so many blocks anew that was deleted.
func BenchmarkAnew(b *testing.B) {
	dir := b.TempDir()
	s := filled(b, dir, 131072, 0)
	resetPeak(b)
	for b.Loop() {
		if err := os.RemoveAll(dir); err != nil {
			b.Fatal(err)
		}
		if err := s.flush(false); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(peak(b), "MiB-peak")
}

// BenchmarkSalvage starts with a store that has lost its last page.
func BenchmarkSalvage(b *testing.B) {
	dir := b.TempDir()
	s := filled(b, dir, 131072, 0)
	var size int64
	_ = s.db.view(func(tx *bolt.Tx) error { size = tx.Size(); return nil })
	s.Close()
	s = nil
	path := filepath.Join(dir, storeName)
	if err := os.Truncate(path, size-1); err != nil {
		b.Fatal(err)
	}
	resetPeak(b)
	for b.Loop() {
		s, err := Open(dir, zap.NewNop())
		if err != nil {
			b.Fatal(err)
		}
		blocks, err := s.Live()
		if err != nil || len(blocks) < 131000 {
			b.Fatalf("got %d: %v", len(blocks), err)
		}
		s.Close()
		there, _ := filepath.Glob(path + ".*")
		if len(there) != 1 || os.Rename(there[0], path) != nil {
			b.Fatal(there)
		}
	}
	b.ReportMetric(peak(b), "MiB-peak")
}

// resetPeak begins to measure the most memory that is in use.
func resetPeak(b *testing.B) {
	b.Helper()
	debug.FreeOSMemory()
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil {
		b.Fatal(err)
	}
}

// peak is the most memory that was resident.
func peak(b *testing.B) (mib float64) {
	b.Helper()
	for line := range strings.Lines(read(b, "/proc/self/status")) {
		if n, err := fmt.Sscanf(line, "VmHWM: %f kB", &mib); n == 1 && err == nil {
			return mib / 1024
		}
	}
	b.Fatal("no VmHWM")
	return 0
}

// BenchmarkLive reads 65,536 live blocks.
func BenchmarkLive(b *testing.B) {
	s := filled(b, b.TempDir(), 65536, 0)
	for b.Loop() {
		if _, err := s.Live(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRewrite takes one line out of so many, and makes the mirror anew.
func BenchmarkRewrite(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := filled(b, b.TempDir(), n, 0)
			b.Run("filter", func(b *testing.B) {
				i := 0
				for b.Loop() {
					s.tcp.drop(FormatLine(blockOf(i%n)), nil)
					i++
					if err := s.publish(nil, true, s.rows); err != nil {
						b.Fatal(err)
					}
				}
			})
			b.Run("rebuild", func(b *testing.B) {
				resetPeak(b)
				base := peak(b)
				for b.Loop() {
					s.tcp.stale = true
					if err := s.publish(nil, true, s.rows); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(peak(b)-base, "MiB-more")
			})
		})
	}
}

// BenchmarkForget forgets 2,000 of 300,000 remembered blocks at a time.
func BenchmarkForget(b *testing.B) {
	s := filled(b, b.TempDir(), 0, 300000)
	max := 300000
	for b.Loop() {
		if max -= forgetChunk; max < 0 {
			b.Skip("all are forgotten")
		}
		if _, err := s.db.forgetEnded(forgetting{max: max}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkForgetNothing looks at 300,000 remembered blocks.
func BenchmarkForgetNothing(b *testing.B) {
	s := filled(b, b.TempDir(), 0, 300000)
	for b.Loop() {
		if _, err := s.db.forgetEnded(forgetting{max: 300000}); err != nil {
			b.Fatal(err)
		}
	}
}
