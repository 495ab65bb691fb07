package state

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"
	"go.uber.org/zap"
)

// filled makes a store of so many live and remembered blocks, and returns it with the former.
func filled(b *testing.B, dir string, live, ended int) (*Store, []Block) {
	b.Helper()
	s := mustOpen(b, dir)
	blocks := make([]Block, live)
	for i := range live + ended {
		a := netip.AddrFrom4([4]byte{byte(i * 7), byte(i >> 16), byte(i >> 8), byte(i)})
		bl := block(a.String(), i)
		s.Save(bl, nil)
		if i < live {
			blocks[i] = bl
		} else {
			s.End(bl.Source, bl.Until, false, nil)
		}
		if i%20000 == 0 {
			flushed(b, s)
		}
	}
	flushed(b, s)
	return s, blocks
}

// BenchmarkStart is Open, which makes the mirrors anew, and Live.
func BenchmarkStart(b *testing.B) {
	for _, n := range []int{65536, 131072} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			dir := b.TempDir()
			s, _ := filled(b, dir, n, 0)
			s.Close()
			s = nil
			resetPeak(b)
			for b.Loop() {
				s, err := Open(dir, zap.NewNop())
				if err != nil {
					b.Fatal(err)
				}
				blocks, err := s.Live()
				if err != nil || len(blocks) != n {
					b.Fatalf("want %d blocks, got %d: %v", n, len(blocks), err)
				}
				s.Close()
			}
			b.ReportMetric(peak(b), "MiB-peak")
			s, err := Open(dir, zap.NewNop())
			if err != nil {
				b.Fatal(err)
			}
			blocks, _ := s.Live()
			resetPeak(b) // after a collection
			b.ReportMetric(peak(b), "MiB")
			s.Close()
			runtime.KeepAlive(blocks)
		})
	}
}

// BenchmarkAnew writes a store of so many blocks anew that was deleted.
func BenchmarkAnew(b *testing.B) {
	dir := b.TempDir()
	s, _ := filled(b, dir, 131072, 0)
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
	s, _ := filled(b, dir, 131072, 0)
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
	s, _ := filled(b, b.TempDir(), 65536, 0)
	for b.Loop() {
		if _, err := s.Live(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSave is one block on its way to the disk at a time, and 100 at once, beside 65,536 others.
func BenchmarkSave(b *testing.B) {
	for _, group := range []int{1, 100} {
		b.Run(fmt.Sprint(group), func(b *testing.B) {
			s, blocks := filled(b, b.TempDir(), 65536, 0)
			i := 0
			for b.Loop() {
				for range group {
					blocks[i%65536].Since = blocks[i%65536].Since.AddDate(1, 0, 0)
					blocks[i%65536].Address = netip.Addr{} // the mirror is not rewritten
					s.Save(blocks[i%65536], nil)
					i++
				}
				if err := s.flush(false); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkRewrite takes one line out of 65,536.
func BenchmarkRewrite(b *testing.B) {
	s, blocks := filled(b, b.TempDir(), 65536, 0)
	b.Run("filter", func(b *testing.B) {
		i := 0
		for b.Loop() {
			s.tcp.drop(FormatLine(blocks[i%65536]), nil)
			i++
			if err := s.publish(nil, true, s.rows); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("rebuild", func(b *testing.B) {
		for b.Loop() {
			s.tcp.stale = true
			if err := s.publish(nil, true, s.rows); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkForget forgets 2,000 of 300,000 remembered blocks at a time.
func BenchmarkForget(b *testing.B) {
	s, _ := filled(b, b.TempDir(), 0, 300000)
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
	s, _ := filled(b, b.TempDir(), 0, 300000)
	for b.Loop() {
		if _, err := s.db.forgetEnded(forgetting{max: 300000}); err != nil {
			b.Fatal(err)
		}
	}
}
