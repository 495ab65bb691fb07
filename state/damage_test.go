package state

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// lived makes a store with a past and returns the file, and the blocks that are live. Some were deleted from it.
func lived(t testing.TB, n int) (file string, live []Block) {
	t.Helper()
	dir := t.TempDir()
	s := mustOpen(t, dir)
	for i := range n {
		b := block(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}).String(), i)
		b.Since = time.Now().UTC()
		b.Until = b.Since.Add(24 * time.Hour)
		s.Save(b, nil)
		if i%5 < 4 {
			live = append(live, b)
		}
		if i%(n/4+1) == n/4 {
			flushed(t, s)
		}
	}
	flushed(t, s)
	for i := range n {
		source := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32)
		if i%5 == 4 {
			s.End(source, time.Now(), i%2 == 0, nil)
		}
		if i%(n/4+1) == n/4 {
			flushed(t, s)
		}
	}
	flushed(t, s)
	s.Close()
	return filepath.Join(dir, storeName), live
}

// pagesOf maps each live block to the page that it is on.
func pagesOf(t testing.TB, file string) map[netip.Prefix]uint64 {
	t.Helper()
	at := make(map[netip.Prefix]uint64)
	db, err := bolt.Open(file, 0o600, &bolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.View(func(tx *bolt.Tx) error {
		begin, size := uintptr(db.Info().Data), uintptr(db.Info().PageSize)
		return tx.Bucket(liveBucket).ForEach(func(key, _ []byte) error {
			source, _ := sourceOf(key)
			at[source] = uint64((address(key) - begin) / size)
			return nil
		})
	}); err != nil {
		t.Fatal(err)
	}
	return at
}

// openDamaged writes a store and opens it, and returns its live blocks by source. It must not be degraded, and take
// further blocks.
func openDamaged(t *testing.T, data []byte) map[netip.Prefix]Block {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, storeName)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zap.ErrorLevel)
	s, err := Open(dir, zap.New(core))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Degraded(); err != nil {
		t.Errorf("degraded: %v", err)
	}
	aside, _ := filepath.Glob(path + ".damaged-*")
	if len(aside) != len(logs.FilterMessageSnippet("damaged").All()) || len(aside) > 1 {
		t.Errorf("moved aside %v, but said %v", aside, logs.All())
	}
	if len(aside) == 1 && !bytes.Equal([]byte(read(t, aside[0])), data) {
		t.Error("what was moved aside is not what was there")
	}
	blocks, err := s.Live()
	if err != nil {
		t.Fatal(err)
	}
	live := make(map[netip.Prefix]Block)
	for _, b := range blocks {
		live[b.Source] = b
	}
	s.Save(block("192.0.2.1", 0), nil)
	if err := s.flush(true); err != nil {
		t.Errorf("write: %v", err)
	}
	return live
}

// diffDamaged sees that no block is there that should not be, and none is lost that was on a page before the cut.
func diffDamaged(t *testing.T, live []Block, got map[netip.Prefix]Block, must func(source netip.Prefix) bool) {
	t.Helper()
	known := 0
	for _, b := range live {
		g, there := got[b.Source]
		if there {
			known++
			diff(t, "block", b, g)
		} else if must(b.Source) {
			t.Errorf("%s is lost", b.Source)
		}
	}
	if known != len(got) {
		t.Errorf("%d blocks that were over are back", len(got)-known)
	}
}

// TestCutStore cuts a small store at each byte, and a large one at random ones. While the file tells what is free,
// nothing is lost but what is cut off.
func TestCutStore(t *testing.T) {
	small, smallLive := lived(t, 12)
	large, largeLive := lived(t, 3000)
	for _, test := range []struct {
		name, file string
		live       []Block
		cuts       func(size int64) []int64
	}{
		{"small", small, smallLive, everyByte},
		{"large", large, largeLive, func(size int64) (cuts []int64) {
			for range 200 {
				cuts = append(cuts, 1+rand.N(size-1))
			}
			return cuts
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			data := []byte(read(t, test.file))
			at := pagesOf(t, test.file)
			p := mustPages(t, data)
			took := time.Duration(0)
			for _, n := range test.cuts(int64(p.high) * int64(p.pageSize)) { // the rest is room to grow
				began := time.Now()
				got := openCut(t, data[:n])
				took = max(took, time.Since(began))
				whole := n / int64(p.pageSize)
				meta := whole >= 2 && whole > int64(p.freelist)
				diffDamaged(t, test.live, got, func(source netip.Prefix) bool { return meta && int64(at[source]) < whole })
				if t.Failed() {
					t.Fatalf("cut at %d of %d", n, len(data))
				}
			}
			if took > 5*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

func everyByte(size int64) (cuts []int64) {
	for n := range size {
		cuts = append(cuts, n)
	}
	return cuts
}

func mustPages(t *testing.T, data []byte) *pages {
	t.Helper()
	p, err := openPages(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// openCut reads a cut store as Open does, without the disk where that would say nothing new.
func openCut(t *testing.T, data []byte) map[netip.Prefix]Block {
	t.Helper()
	if len(data)%4096 <= 1 || len(data) > 200<<10 {
		return openDamaged(t, data)
	}
	if _, err := check(bytes.NewReader(data), int64(len(data))); err == nil {
		t.Errorf("a store of %d bytes was taken for whole", len(data))
	}
	return salvage(bytes.NewReader(data), int64(len(data))).live
}

// TestSpoiltStore writes nonsense to a store: it is never taken for whole where bbolt would stumble.
func TestSpoiltStore(t *testing.T) {
	file, live := lived(t, 600)
	whole := []byte(read(t, file))
	kinds := map[string]func(data []byte, r *rand.Rand){
		"bytes": func(data []byte, r *rand.Rand) {
			for range 1 + r.IntN(20) {
				data[r.IntN(len(data))] = byte(r.Uint32())
			}
		},
		"zero page": func(data []byte, r *rand.Rand) {
			clear(data[r.IntN(len(data)/4096)*4096:][:4096])
		},
		"page moved": func(data []byte, r *rand.Rand) {
			copy(data[(2+r.IntN(len(data)/4096-2))*4096:][:4096], data[(2+r.IntN(len(data)/4096-2))*4096:])
		},
		"header": func(data []byte, r *rand.Rand) {
			page := data[r.IntN(len(data)/4096)*4096:]
			page[r.IntN(80)] = byte(r.Uint32())
		},
	}
	for name, spoil := range kinds {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(15) {
				data := bytes.Clone(whole)
				spoil(data, rand.New(rand.NewPCG(seed, 0)))
				got := openDamaged(t, data)
				if len(got) > len(live)+1 && name != "bytes" && name != "header" {
					t.Errorf("seed %d: %d blocks of %d", seed, len(got), len(live))
				}
				if t.Failed() {
					t.Fatalf("seed %d", seed)
				}
			}
		})
	}
}

// TestDamagedWhileOpen spoils the file under a running store.
func TestDamagedWhileOpen(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"emptied": func(path string) error { return os.Truncate(path, 0) },
		"halved":  func(path string) error { return os.Truncate(path, 3*4096) },
		"zeroed": func(path string) error {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.WriteAt(make([]byte, 32768), 0)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := mustOpen(t, dir)
			var all []Block
			for i := range 300 {
				b := block(fmt.Sprintf("10.0.%d.%d", i/200, i%200), i)
				all = append(all, b)
				s.Save(b, nil)
			}
			flushed(t, s)
			if err := spoil(filepath.Join(dir, storeName)); err != nil {
				t.Fatal(err)
			}
			done := make(chan bool)
			go func() { // as the controller does meanwhile
				defer close(done)
				for _, b := range all {
					_, _, _ = s.Last(b.Source)
				}
			}()
			stop := start(s)
			s.Save(block("192.0.2.1", 1), nil)
			<-done
			select {
			case <-s.Changed():
			case <-time.After(time.Minute):
				t.Fatal("nobody was told")
			}
			for _, b := range all { // as the controller does then
				s.Save(b, nil)
			}
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			if err := s.Degraded(); err != nil {
				t.Errorf("degraded: %v", err)
			}
			if live, err := s.Live(); err != nil || len(live) != 301 {
				t.Errorf("want 301 blocks, got %d: %v", len(live), err)
			}
			diffMirrors(t, dir, s)
			if aside, _ := filepath.Glob(filepath.Join(dir, "*.damaged-*")); len(aside) != 1 {
				t.Errorf("moved aside: %v", aside)
			}
		})
	}
}

func TestAsideIsBounded(t *testing.T) {
	dir := t.TempDir()
	for i := range maxAside {
		cut(t, filepath.Join(dir, fmt.Sprintf("%s.damaged-%d", storeName, i)), "", 0)
	}
	cut(t, filepath.Join(dir, storeName), strings.Repeat("x", 20000), 20000)
	s := mustOpen(t, dir)
	if err := s.Degraded(); err == nil || !strings.Contains(err.Error(), "16 files were moved aside already") {
		t.Errorf("got %v", err)
	}
}
