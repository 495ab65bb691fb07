package state

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// tallied reads the records with keys from "a" on.
func tallied(t testing.TB, from interface {
	EachTally(from, to string, visit func(string, []byte) error) error
}) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := from.EachTally("a", "z", func(key string, value []byte) error {
		out[key] = string(value)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// written runs the store once over what is pending, the records included.
func written(t testing.TB, s *Store) {
	t.Helper()
	flushed(t, s)
	if err := s.WriteTally(); err != nil {
		t.Fatal(err)
	}
}

// TestTallyRun shows that Run writes records by itself.
func TestTallyRun(t *testing.T) {
	s := mustOpen(t, t.TempDir())
	stop := start(s)
	saved := make(chan error, 1)
	s.SaveTally(map[string][]byte{"a": []byte("1")})
	s.Save(block("192.0.2.7", 0), func(err error) { saved <- err })
	if err := <-saved; err != nil {
		t.Fatal(err)
	}
	for began := time.Now(); len(s.tallies.between("a", "b")) > 0; runtime.Gosched() {
		if time.Since(began) > 20*time.Second {
			t.Fatal("the record is not written")
		}
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	diff(t, "records", map[string]string{"a": "1"}, tallied(t, s))
}

// TestTally shows that records are seen at once, outlive the process, and go.
func TestTally(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir)
	s.SaveTally(map[string][]byte{"a": []byte("1"), "b": []byte("2"), "zz": []byte("3")})
	diff(t, "pending", map[string]string{"a": "1", "b": "2"}, tallied(t, s))
	written(t, s)
	s.SaveTally(map[string][]byte{"a": nil, "b": []byte("4")})
	diff(t, "over the committed ones", map[string]string{"b": "4"}, tallied(t, s))
	if _, err := OpenTally(dir); !errors.Is(err, ErrLocked) {
		t.Errorf("OpenTally of an open store: %v", err)
	}
	if err := s.WriteTally(); err != nil {
		t.Fatal(err)
	}
	if len(s.tallies.pending) != 0 {
		t.Errorf("%d records wait after WriteTally", len(s.tallies.pending))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	diff(t, "after a restart", map[string]string{"b": "4"}, tallied(t, mustOpen(t, dir)))
}

// TestTallyVisitError shows that a visitor ends it, and that the store is no worse for it.
func TestTallyVisitError(t *testing.T) {
	s := mustOpen(t, t.TempDir())
	s.SaveTally(map[string][]byte{"a": []byte("1"), "b": []byte("2")})
	written(t, s)
	stop, n := errors.New("enough"), 0
	err := s.EachTally("a", "z", func(string, []byte) error { n++; return stop })
	if !errors.Is(err, stop) || n != 1 || s.Degraded() != nil {
		t.Errorf("EachTally = %v after %d, degraded %v", err, n, s.Degraded())
	}
}

// TestTallyFile reads a store that nobody has open, and leaves everything as it is.
func TestTallyFile(t *testing.T) {
	dir := t.TempDir()
	if _, err := OpenTally(filepath.Join(dir, "no")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("OpenTally of nothing: %v", err)
	}
	s := mustOpen(t, dir)
	s.SaveTally(map[string][]byte{"a": []byte("1")})
	written(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	before := read(t, dir, storeName)
	f, err := OpenTally(dir)
	if err != nil {
		t.Fatal(err)
	}
	diff(t, "records", map[string]string{"a": "1"}, tallied(t, f))
	other := mustOpen(t, dir) // a daemon may start meanwhile
	other.SaveTally(map[string][]byte{"a": []byte("2")})
	err = f.EachTally("a", "z", func(string, []byte) error { written(t, other); return nil })
	if !errors.Is(err, ErrLocked) {
		t.Errorf("EachTally beside a daemon that writes: %v", err)
	}
	if err := errors.Join(f.Close(), other.Close()); err != nil {
		t.Fatal(err)
	}
	if len(before) == 0 {
		t.Error("the store is empty")
	}
	if err := os.WriteFile(filepath.Join(dir, storeName), []byte(strings.Repeat("x", 9000)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenTally(dir); !errors.Is(err, errDamaged) {
		t.Errorf("OpenTally of a damaged store: %v", err)
	}
}

// TestTallySalvaged shows that the records of a damaged store are not lost with it.
func TestTallySalvaged(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir)
	s.SaveTally(map[string][]byte{"a": []byte("1")})
	s.Save(block("192.0.2.7", 0), nil)
	written(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(filepath.Join(dir, storeName), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	m, err := lastMeta(f)
	if err == nil {
		_, err = f.WriteAt([]byte("damage"), int64(m.freelist)*int64(m.pageSize)+8)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, dir)
	if found, _ := filepath.Glob(filepath.Join(dir, storeName+".damaged-*")); len(found) != 1 {
		t.Fatalf("the store is not taken for damaged: %v", found)
	}
	diff(t, "records", map[string]string{"a": "1"}, tallied(t, s))
}

// TestTallyWithoutDisk shows that what waits is bounded, and read.
func TestTallyWithoutDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, dir)
	for n := range 2 * maxTallies {
		s.SaveTally(map[string][]byte{"a" + string(rune(0x100+n)): []byte("1")})
	}
	first := "a" + string(rune(0x100+maxTallies))
	s.SaveTally(map[string][]byte{"a": []byte("2"), first: nil}) // one that goes into another
	got := tallied(t, s)
	if got[first] != "1" {
		t.Errorf("%q is deleted, and what it went into is %q", first, got["a"])
	}
	if _, newest := got["a"+string(rune(0x100+2*maxTallies-1))]; len(got) != maxTallies || !newest {
		t.Errorf("%d records are kept, want %d with the newest", len(got), maxTallies)
	}
	if err := s.WriteTally(); err == nil {
		t.Error("WriteTally without a disk succeeds")
	}
}
