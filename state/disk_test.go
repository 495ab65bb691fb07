package state

import (
	"errors"

	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"nftsentry/integration/netns"
)

// newer makes the store in dir one of a newer nftsentry.
func newer(t *testing.T, dir string) {
	t.Helper()
	s := mustOpen(t, dir)
	put := func(tx *bolt.Tx) error { return tx.Bucket(metaBucket).Put(formatKey, []byte("3")) }
	if err := errors.Join(s.db.update(put), s.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestOpenInMemory opens stores that cannot be on the disk, and sees that nothing is lost when they can.
func TestOpenInMemory(t *testing.T) {
	must := func(t *testing.T, errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name      string
		break_    func(t *testing.T, dir string)
		repair    func(t *testing.T, dir string)
		want      string // in Degraded
		untouched bool   // the file must stay as it is
	}{
		{"symlink", func(t *testing.T, dir string) { must(t, os.Symlink("nowhere", filepath.Join(dir, storeName))) },
			nil, "nftsentry.db: is a symbolic link, which is not followed", true},
		{"fifo", func(t *testing.T, dir string) { must(t, unix.Mkfifo(filepath.Join(dir, storeName), 0o600)) },
			nil, "nftsentry.db: is not a regular file", true},
		{"directory", func(t *testing.T, dir string) { must(t, os.Mkdir(filepath.Join(dir, storeName), 0o700)) },
			nil, "is a directory", true},
		{"newer", newer, nil, "written by a newer nftsentry: install that, or move the file away", true},
		{"no directory", func(t *testing.T, dir string) {
			must(t, os.Remove(dir), os.WriteFile(dir, nil, 0o600))
		}, func(t *testing.T, dir string) { must(t, os.Remove(dir)) }, "not a directory", false},
		{"no parent", func(t *testing.T, dir string) {
			must(t, os.Remove(dir), os.Remove(filepath.Dir(dir)), os.WriteFile(filepath.Dir(dir), nil, 0o600))
		}, func(t *testing.T, dir string) { must(t, os.Remove(filepath.Dir(dir))) }, "not a directory", false},
		{"read-only", func(t *testing.T, dir string) { netns.Require(t); mount(t, dir, unix.MS_RDONLY, "") },
			func(t *testing.T, dir string) { remount(t, dir, 0, "") }, "read-only file system", false},
		{"full", func(t *testing.T, dir string) {
			netns.Require(t)
			mount(t, dir, 0, "size=64k")
			fill(t, dir, 0)
		}, func(t *testing.T, dir string) { must(t, os.Remove(filepath.Join(dir, "filler"))) }, "no space left on device", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "parent", "state")
			must(t, os.MkdirAll(dir, 0o755))
			path := filepath.Join(dir, storeName)
			test.break_(t, dir)
			before, _ := os.Lstat(path)
			if test.repair == nil {
				test.repair = func(t *testing.T, _ string) { must(t, os.RemoveAll(path)) }
			}
			synctest.Test(t, func(t *testing.T) {
				testOpenInMemory(t, dir, test.want, func() {
					after, err := os.Lstat(path)
					if test.untouched && (err != nil || !os.SameFile(before, after) || !before.ModTime().Equal(after.ModTime())) {
						t.Errorf("the file was touched: %v", err)
					}
					test.repair(t, dir)
				})
			})
		})
	}
}

func testOpenInMemory(t *testing.T, dir, want string, repair func()) {
	s := mustOpen(t, dir)
	defer s.Close()
	degraded := func() {
		t.Helper()
		if err := s.Degraded(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want degraded by %q, got %v", want, err)
		}
	}
	degraded()
	a, b, c := block("192.0.2.1", 0), block("192.0.2.2", 1), block("192.0.2.3", 2)
	diffLive(t, s)
	stop := start(s)
	var told calls
	s.Save(a, told.done("a"))
	s.Save(b, told.done("b"))
	s.SaveServed([]Service{{"tcp", 22, b.Until}})
	time.Sleep(retryMax)
	s.End(b.Source, b.Until, false, nil)
	s.Forget(a.Since.Add(-time.Hour), 1000)
	time.Sleep(time.Hour)
	synctest.Wait()
	degraded()
	diffLive(t, s, a)
	diffLast(t, s, b.Source, b)
	if services, err := s.Served(); err != nil || len(services) != 1 {
		t.Errorf("services %v, %v", services, err)
	}
	if got := told.take(); len(got) != 2 || !strings.HasSuffix(got[0], "failed") {
		t.Errorf("told %v", got)
	}
	repair()
	s.Save(c, nil)
	time.Sleep(5 * time.Second)
	synctest.Wait()
	if err := s.Degraded(); err != nil {
		t.Errorf("still degraded: %v", err)
	}
	if err := errors.Join(stop(), s.Close()); err != nil {
		t.Error(err)
	}
	s = mustOpen(t, dir)
	diffLive(t, s, a, c)
	diffLast(t, s, b.Source, b)
	diff(t, tcpName, lines(a, c), read(t, dir, tcpName))
	diff(t, historyName, lines(a, b, c), read(t, dir, historyName))
	if services, err := s.Served(); err != nil || len(services) != 1 {
		t.Errorf("services %v, %v", services, err)
	}
	s.Close()
}

// mount mounts a tmpfs at dir until the test ends.
func mount(t *testing.T, dir string, flags uintptr, data string) {
	t.Helper()
	if err := unix.Mount("tmpfs", dir, "tmpfs", flags, data); err != nil {
		t.Fatalf("mount: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
}

func remount(t *testing.T, dir string, flags uintptr, data string) {
	t.Helper()
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|flags, data); err != nil {
		t.Fatalf("remount: %v", err)
	}
}

// fill fills the disk that dir is on, but for so many bytes.
func fill(t *testing.T, dir string, but int64) {
	t.Helper()
	path := filepath.Join(dir, "filler")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	info, err := f.Stat()
	if err != nil || f.Truncate(info.Size()-but) != nil {
		t.Fatalf("fill: %v", err)
	}
}

// TestReadOnlyStore starts on a file system that cannot be written, whose blocks can be read still.
func TestReadOnlyStore(t *testing.T) {
	netns.Require(t)
	for _, name := range []string{"whole", "damaged"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			mount(t, dir, 0, "")
			a, b, c, d := block("192.0.2.1", 0), block("192.0.2.2", 1), block("192.0.2.3", 2), block("192.0.2.4", 3)
			s := mustOpen(t, dir)
			for _, b := range []Block{a, b, d} {
				s.Save(b, nil)
			}
			s.End(d.Source, d.Until, false, nil)
			flushed(t, s)
			high := int64(0)
			_ = s.db.view(func(tx *bolt.Tx) error { high = tx.Size(); return nil })
			s.Close()
			if name == "damaged" { // the last page is free, or of no matter
				if err := os.Truncate(filepath.Join(dir, storeName), high-1); err != nil {
					t.Fatal(err)
				}
			}
			remount(t, dir, unix.MS_RDONLY, "")
			synctest.Test(t, func(t *testing.T) {
				s := mustOpen(t, dir)
				diffLive(t, s, a, b)
				if err := s.Degraded(); !errors.Is(err, unix.EROFS) {
					t.Errorf("degraded: %v", err)
				}
				stop := start(s)
				s.Save(c, nil)
				s.End(b.Source, b.Until, false, nil)
				time.Sleep(time.Hour)
				synctest.Wait()
				diffLast(t, s, b.Source, b)
				if err := s.Degraded(); !errors.Is(err, unix.EROFS) {
					t.Errorf("degraded: %v", err)
				}
				remount(t, dir, 0, "")
				time.Sleep(5 * time.Second)
				synctest.Wait()
				if err := s.Degraded(); err != nil {
					t.Errorf("still degraded: %v", err)
				}
				diffLive(t, s, a, c)
				diffLast(t, s, b.Source, b)
				diffLast(t, s, d.Source, d)
				diff(t, tcpName, lines(a, c), read(t, dir, tcpName))
				diff(t, historyName, lines(a, b, c), strings.ReplaceAll(read(t, dir, historyName), lines(d), ""))
				if err := errors.Join(stop(), s.Close()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestTinyDisk runs the store on 64 KiB that fill up, for hours, while blocks come and go.
func TestTinyDisk(t *testing.T) {
	netns.Require(t)
	dir := t.TempDir()
	mount(t, dir, 0, "size=64k")
	synctest.Test(t, func(t *testing.T) {
		s := mustOpen(t, dir)
		defer s.Close()
		stop := start(s)
		s.Save(block("198.51.100.1", 0), nil)
		synctest.Wait()
		before := files(t)
		fill(t, dir, 0)
		var live []Block
		for i := range 400 {
			b := block("10.0."+itoa(i/250)+"."+itoa(i%250), i)
			s.Save(b, nil)
			if i%4 == 0 {
				s.End(b.Source, b.Until, false, nil)
			} else {
				live = append(live, b)
			}
			if i%8 == 7 {
				time.Sleep(30 * time.Second)
			}
		}
		synctest.Wait()
		if err := s.Degraded(); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("degraded: %v", err)
		}
		if n := files(t); n != before {
			t.Errorf("%d files open, before %d", n, before)
		}
		for line := range strings.Lines(read(t, dir, historyName) + read(t, dir, tcpName)) {
			if _, err := ParseLine(strings.TrimSuffix(line, "\n")); err != nil {
				t.Error(err)
			}
		}
		remount(t, dir, 0, "size=16m")
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if err := s.Degraded(); err != nil {
			t.Errorf("still degraded: %v", err)
		}
		want := append([]Block{block("198.51.100.1", 0)}, live...)
		sortBlocks(want)
		diffLive(t, s, want...)
		diffMirrors(t, dir, s)
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

// TestInputOutputError gives the database a file that neither reads nor writes, and then the old one again, or another
// at the same path.
func TestInputOutputError(t *testing.T) {
	for _, name := range []string{"for a while", "for good"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testInputOutputError(t, name == "for good") })
		})
	}
}

func testInputOutputError(t *testing.T, forGood bool) {
	dir := t.TempDir()
	s := mustOpen(t, dir)
	defer s.Close()
	a, b, c := block("192.0.2.1", 0), block("192.0.2.2", 1), block("192.0.2.3", 2)
	stop := start(s)
	s.Save(a, nil)
	synctest.Wait()
	bad, err := os.OpenFile("/proc/self/mem", os.O_RDWR, 0) // nothing is mapped where it is read
	if err != nil {
		t.Fatal(err)
	}
	defer bad.Close()
	fd := int(s.db.file.Fd())
	good, err := unix.Dup(fd)
	if err == nil {
		err = unix.Dup3(int(bad.Fd()), fd, unix.O_CLOEXEC)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.Save(b, nil)
	synctest.Wait()
	if err := s.Degraded(); !errors.Is(err, unix.EIO) {
		t.Errorf("degraded: %v", err)
	}
	if forGood {
		_ = unix.Flock(good, unix.LOCK_UN)
		time.Sleep(time.Minute)
	} else if err := unix.Dup3(good, fd, unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	_ = unix.Close(good)
	s.Save(c, nil)
	time.Sleep(5 * time.Second)
	synctest.Wait()
	if err := s.Degraded(); err != nil {
		t.Errorf("still degraded: %v", err)
	}
	diffLive(t, s, a, b, c)
	diff(t, tcpName, lines(a, b, c), read(t, dir, tcpName))
	if err := errors.Join(stop(), s.Close()); err != nil {
		t.Error(err)
	}
	diffLive(t, mustOpen(t, dir), a, b, c)
	if there, _ := filepath.Glob(filepath.Join(dir, storeName+".*")); len(there) > 0 {
		t.Errorf("moved aside: %v", there)
	}
}

// TestManyWait has more changes wait for the disk than go into one transaction.
func TestManyWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "state")
		cut(t, dir, "", 0)
		s := mustOpen(t, dir)
		defer s.Close()
		stop := start(s)
		const n = 2*commitChunk + 100
		told := 0
		for i := range n {
			s.Save(block("10.0."+itoa(i/250)+"."+itoa(i%250), i), func(err error) {
				if err != nil {
					told++
				}
			})
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if told != n {
			t.Errorf("want %d told, got %d", n, told)
		}
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if live, err := s.Live(); len(live) != n || err != nil {
			t.Errorf("want %d, got %d: %v", n, len(live), err)
		}
		if got := strings.Count(read(t, dir, tcpName), "\n"); got != n {
			t.Errorf("want %d lines, got %d", n, got)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

// TestMemoryIsBounded has no disk while many blocks come and go.
func TestMemoryIsBounded(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	cut(t, dir, "", 0)
	s := mustOpen(t, dir)
	for i := range 3 * maxOver {
		b := block("10."+itoa(i>>16)+"."+itoa(i>>8&255)+"."+itoa(i&255), i)
		s.Save(b, nil)
		s.End(b.Source, b.Until, false, nil)
		if i%10000 == 0 {
			_ = s.flush(false)
		}
	}
	_ = s.flush(false)
	if n := s.backlog(); n > maxOver {
		t.Errorf("%d changes wait", n)
	}
	last := block("10.1.127.255", 0)
	if _, there, _ := s.Last(last.Source); !there {
		t.Error("the newest is forgotten")
	}
}

func itoa(n int) string { return strconv.Itoa(n) }

// TestFormatBeforeTheFirst moves a store aside whose records only a nftsentry of before the first release can read.
func TestFormatBeforeTheFirst(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir)
	s.Save(block("192.0.2.1", 0), nil)
	flushed(t, s)
	put := func(tx *bolt.Tx) error { return tx.Bucket(metaBucket).Put(formatKey, []byte("1")) }
	if err := errors.Join(s.db.update(put), s.Close()); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, dir)
	if err := s.Degraded(); err != nil {
		t.Error(err)
	}
	if aside, _ := filepath.Glob(filepath.Join(dir, storeName+".damaged-*")); len(aside) != 1 {
		t.Errorf("want one file aside, got %v", aside)
	}
	if version, err := checkFile(s.db.file); err != nil || version != itoa(format) {
		t.Errorf("want format %d, got %q: %v", format, version, err)
	}
}
