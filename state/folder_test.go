package state

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"nftsentry/integration/netns"
)

// TestFolderGoes takes the folder away while the store runs.
func TestFolderGoes(t *testing.T) {
	tests := map[string]func(t *testing.T, dir, copied string) error{
		"deleted":  func(_ *testing.T, dir, _ string) error { return os.RemoveAll(dir) },
		"emptied":  func(_ *testing.T, dir, _ string) error { return errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o755)) },
		"no store": func(_ *testing.T, dir, _ string) error { return os.Remove(filepath.Join(dir, storeName)) },
		"parent":   func(_ *testing.T, dir, _ string) error { return os.RemoveAll(filepath.Dir(dir)) },
		"replaced": func(_ *testing.T, dir, copied string) error {
			return errors.Join(os.RemoveAll(dir), os.Rename(copied, dir))
		},
		"moved and back": func(_ *testing.T, dir, _ string) error {
			err := os.Rename(dir, dir+".away")
			time.Sleep(time.Millisecond)
			return errors.Join(err, os.Rename(dir+".away", dir))
		},
		"a file": func(_ *testing.T, dir, _ string) error {
			err := errors.Join(os.RemoveAll(dir), os.WriteFile(dir, nil, 0o600))
			time.Sleep(time.Minute)
			synctest.Wait()
			return errors.Join(err, os.Remove(dir))
		},
		"unmounted":    func(t *testing.T, dir, _ string) error { return unix.Unmount(dir, unix.MNT_DETACH) },
		"mounted over": func(t *testing.T, dir, _ string) error { mount(t, dir, 0, ""); return nil },
		"mounted over read-only": func(t *testing.T, dir, _ string) error {
			mount(t, dir, unix.MS_RDONLY, "")
			time.Sleep(time.Minute)
			synctest.Wait()
			remount(t, dir, 0, "")
			return nil
		},
		"locked by another": func(t *testing.T, dir, copied string) error {
			err := errors.Join(os.RemoveAll(dir), os.Rename(copied, dir))
			f, err2 := lockFile(filepath.Join(dir, storeName), os.O_RDWR)
			time.Sleep(time.Minute)
			synctest.Wait()
			return errors.Join(err, err2, f.Close())
		},
		"newer": func(t *testing.T, dir, _ string) error {
			err := os.RemoveAll(dir)
			newer(t, dir)
			time.Sleep(time.Minute)
			synctest.Wait()
			return errors.Join(err, os.Remove(filepath.Join(dir, storeName)))
		},
		"tiny": func(t *testing.T, dir, _ string) error { // what is deleted takes the room still
			f, err := os.Create(filepath.Join(filepath.Dir(dir), "keep"))
			if err != nil {
				return err
			}
			defer f.Close()
			fill(t, filepath.Dir(dir), 20<<10)
			return os.RemoveAll(dir)
		},
	}
	for name, do := range tests {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "parent", "state")
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			switch {
			case name == "unmounted":
				netns.Require(t)
				mount(t, dir, 0, "")
			case name == "tiny":
				netns.Require(t)
				mount(t, filepath.Dir(dir), 0, "size=256k")
			case strings.HasPrefix(name, "mounted"):
				netns.Require(t)
			}
			synctest.Test(t, func(t *testing.T) { testFolderGoes(t, dir, do) })
		})
	}
}

func testFolderGoes(t *testing.T, dir string, do func(t *testing.T, dir, copied string) error) {
	a, b, c, d := block("192.0.2.1", 0), block("192.0.2.2", 1), block("192.0.2.3", 2), block("192.0.2.4", 3)
	copied := filepath.Join(t.TempDir(), "copied")
	old := mustOpen(t, copied) // of which nobody knows any more
	old.Save(block("203.0.113.1", 0), nil)
	flushed(t, old)
	old.Close()

	s := mustOpen(t, dir)
	defer s.Close()
	stop := start(s)
	s.Save(a, nil)
	s.Save(b, nil)
	s.SaveServed([]Service{{"tcp", 22, b.Until}})
	synctest.Wait()
	s.End(b.Source, b.Until, false, nil)
	synctest.Wait()
	before := files(t)
	if err := do(t, dir, copied); err != nil {
		t.Fatal(err)
	}
	diffLast(t, s, b.Source, b)
	s.Save(c, nil)
	s.End(a.Source, a.Until, false, nil)
	s.Save(d, nil)
	time.Sleep(5 * time.Second)
	synctest.Wait()
	if err := s.Degraded(); err != nil {
		t.Errorf("degraded: %v", err)
	}
	check := func(s *Store) {
		t.Helper()
		diffLive(t, s, c, d)
		diffLast(t, s, a.Source, a)
		diffLast(t, s, b.Source, b)
		diff(t, tcpName, lines(c, d), read(t, dir, tcpName))
		if services, err := s.Served(); err != nil || len(services) != 1 {
			t.Errorf("services: %v, %v", services, err)
		}
	}
	check(s)
	if n := files(t); n != before {
		t.Errorf("%d files open, before %d", n, before)
	}
	if history := read(t, dir, historyName); !strings.Contains(history, lines(c, d)) {
		t.Errorf("history %q", history)
	}
	if err := errors.Join(stop(), s.Close()); err != nil {
		t.Error(err)
	}
	s = mustOpen(t, dir)
	defer s.Close()
	check(s)
}

// files is how many files the process has open.
func files(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// TestFolderGoesWhileIdle has nothing to write when the folder goes, and writes it anew all the same.
func TestFolderGoesWhileIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "state")
		s := mustOpen(t, dir)
		stop := start(s)
		a := block("192.0.2.1", 0)
		s.Save(a, nil)
		time.Sleep(time.Minute + time.Second) // between two looks at it
		synctest.Wait()
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		time.Sleep(lookEvery)
		synctest.Wait()
		diff(t, tcpName, lines(a), read(t, dir, tcpName))
		if _, err := os.Lstat(filepath.Join(dir, storeName)); err != nil {
			t.Error(err)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

// TestFoundLate has the disk with the store come after the start: the caller is told of blocks that it does not know.
func TestFoundLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "state")
		s := mustOpen(t, dir)
		a, b := block("192.0.2.1", 0), block("192.0.2.2", 1)
		s.Save(a, nil)
		flushed(t, s)
		s.Close()
		if err := errors.Join(os.Rename(dir, dir+".away"), os.WriteFile(dir, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
		s = mustOpen(t, dir)
		defer s.Close()
		diffLive(t, s)
		stop := start(s)
		s.Save(b, nil)
		time.Sleep(time.Minute)
		select {
		case <-s.Changed():
			t.Error("told of nothing")
		default:
		}
		if err := errors.Join(os.Remove(dir), os.Rename(dir+".away", dir)); err != nil {
			t.Fatal(err)
		}
		<-s.Changed()
		time.Sleep(time.Second)
		diffLive(t, s, a, b)
		diff(t, historyName, lines(a, b), read(t, dir, historyName))
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}
