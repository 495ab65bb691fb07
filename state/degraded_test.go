package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// TestDegraded puts a symbolic link in the place of each text file while the store runs.
func TestDegraded(t *testing.T) {
	for _, name := range []string{tcpName, historyName} {
		t.Run(name, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { testDegraded(t, name) }) })
	}
}

func testDegraded(t *testing.T, name string) {
	dir := t.TempDir()
	core, logs := observer.New(zap.DebugLevel)
	s, err := Open(dir, zap.New(core))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	a, b, c := block("192.0.2.1", 0), block("192.0.2.2", 1), block("192.0.2.3", 2)
	stop := start(s)
	var told calls
	s.Save(a, told.done("a"))
	synctest.Wait()
	diff(t, "calls when well", []string{"a"}, told.take())

	path, target := filepath.Join(dir, name), filepath.Join(t.TempDir(), "target")
	saved := path + ".saved"
	if err := errors.Join(os.Rename(path, saved), os.Symlink(target, path)); err != nil {
		t.Fatal(err)
	}
	s.Save(b, told.done("b"))
	synctest.Wait()
	diff(t, "calls when ill", []string{"b failed"}, told.take())
	s.End(a.Source, a.Until, false, told.done("end a"))
	synctest.Wait()
	diff(t, "calls before a retry", []string{"end a failed"}, told.take())
	time.Sleep(time.Second)
	synctest.Wait()
	s.Save(c, told.done("c"))
	synctest.Wait()
	diff(t, "calls after one", []string{"c failed"}, told.take())
	time.Sleep(time.Minute)
	synctest.Wait()
	diff(t, "calls at others", []string(nil), told.take())
	if err := s.Degraded(); err == nil || !strings.Contains(err.Error(), path+": is a symbolic link") {
		t.Errorf("degraded: got %v", err)
	}
	diffLive(t, s, b, c)
	if _, err := os.Lstat(target); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the link was followed: %v", err)
	}

	if err := os.Rename(saved, path); err != nil {
		t.Fatal(err)
	}
	time.Sleep(retryMax)
	synctest.Wait()
	if err := s.Degraded(); err != nil {
		t.Errorf("degraded when well again: %v", err)
	}
	diff(t, tcpName, lines(b, c), read(t, dir, tcpName))
	diff(t, historyName, lines(a, b, c), read(t, dir, historyName))
	var messages []string
	for _, e := range logs.All() {
		messages = append(messages, fmt.Sprint(e.Level, " ", e.Message))
	}
	diff(t, "log", []string{"warn state cannot be written", "info state can be written again"}, messages)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

// TestOpenDegraded opens a store whose text files are symbolic links.
func TestOpenDegraded(t *testing.T) {
	for _, name := range []string{tcpName, udpName, historyName} {
		t.Run(name, func(t *testing.T) {
			dir, target := t.TempDir(), filepath.Join(t.TempDir(), "target")
			path := filepath.Join(dir, name)
			if err := os.Symlink(target, path); err != nil {
				t.Fatal(err)
			}
			s := mustOpen(t, dir)
			if err := s.Degraded(); err == nil || !strings.Contains(err.Error(), path+": is a symbolic link") {
				t.Errorf("want a symbolic link, got %v", err)
			}
			if info, err := os.Lstat(path); err != nil || info.Mode().Type() != fs.ModeSymlink {
				t.Errorf("the link was replaced: %v, %v", info, err)
			}
			if _, err := os.Lstat(target); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the link was followed: %v", err)
			}
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			s.Save(block("192.0.2.1", 0), nil)
			flushed(t, s)
			if err := s.Degraded(); err != nil {
				t.Errorf("still degraded: %v", err)
			}
			diff(t, tcpName, lines(block("192.0.2.1", 0)), read(t, dir, tcpName))
		})
	}
}

func TestRetriesGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		if err := os.Symlink("nowhere", filepath.Join(dir, udpName)); err != nil {
			t.Fatal(err)
		}
		s := mustOpen(t, dir)
		stop := start(s)
		synctest.Wait() // the first attempt
		began := time.Now()
		var got []time.Duration
		for i := range 5 {
			s.Save(block("192.0.2.1", i), nil)
			for s.backlog() > 0 { // the store itself is well
				time.Sleep(time.Second)
				synctest.Wait()
			}
			got = append(got, time.Since(began))
		}
		want := []time.Duration{1 * time.Second, 3 * time.Second, 7 * time.Second, 11 * time.Second, 15 * time.Second}
		diff(t, "attempts", want, got)
		if err := stop(); err == nil || !strings.HasPrefix(err.Error(), "0 changes are not in the store: ") {
			t.Errorf("want the error of the text files, got %v", err)
		}
	})
}

func TestOwedHistoryIsBounded(t *testing.T) {
	h := history{path: filepath.Join(t.TempDir(), historyName)}
	line := lines(block("192.0.2.1", 0))
	h.owed.Lines = strings.Repeat(line, owedLimit/len(line)+10)
	o := h.owe("the newest\n")
	if n := len(o.Lines); n > owedLimit || n < owedLimit-len(line) {
		t.Errorf("want up to %d bytes, got %d", owedLimit, n)
	}
	if !strings.HasPrefix(o.Lines, line) || !strings.HasSuffix(o.Lines, line+"the newest\n") {
		t.Errorf("got %q", o.Lines[:200])
	}
}

// TestDoubtfulCommit has a commit of which it is not known whether it reached the disk: the mirrors are made anew.
func TestDoubtfulCommit(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir)
	a := block("192.0.2.1", 0)
	s.Save(a, nil)
	cs := s.take()
	if _, err := s.commit(cs); err != nil {
		t.Fatal(err)
	}
	s.putBack(cs, errors.New("input/output error"))
	flushed(t, s)
	diffLive(t, s, a)
	diff(t, tcpName, lines(a), read(t, dir, tcpName))
	diff(t, historyName, lines(a), read(t, dir, historyName))
}
