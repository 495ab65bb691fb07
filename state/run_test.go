package state

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	bolt "go.etcd.io/bbolt"
)

// calls records the calls of done functions.
type calls struct {
	mu  sync.Mutex
	got []string
}

// done returns a done function with this name.
func (c *calls) done(name string) func(error) {
	return func(err error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if err != nil {
			name += " failed"
		}
		c.got = append(c.got, name)
	}
}

// take returns the calls since the last take.
func (c *calls) take() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	got := c.got
	c.got = nil
	return got
}

func transactions(t testing.TB, s *Store) (id int) {
	t.Helper()
	if err := s.db.bolt.View(func(tx *bolt.Tx) error { id = tx.ID(); return nil }); err != nil {
		t.Fatal(err)
	}
	return id
}

func TestGroupCommit(t *testing.T) {
	s := mustOpen(t, t.TempDir())
	before := transactions(t, s)
	var c calls
	for i := range 1000 {
		a := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
		s.Save(block(a.String(), i), c.done("saved"))
		s.Save(block(a.String(), i), c.done("saved"))
	}
	if n := len(s.pending); n != 1000 {
		t.Errorf("want 1000 changes pending, got %d", n)
	}
	diff(t, "calls before Run", []string(nil), c.take())
	flushed(t, s)
	if n := len(c.take()); n != 2000 {
		t.Errorf("want 2000 calls, got %d", n)
	}
	if n := transactions(t, s) - before; n != 1 {
		t.Errorf("want 1 transaction, got %d", n)
	}
	flushed(t, s)
	if n := transactions(t, s) - before; n != 1 {
		t.Errorf("want no transaction for nothing, got %d", n-1)
	}
}

func TestDoneIsCalledAfterTheFilesHaveIt(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir)
	stop := start(s)
	b := block("192.0.2.1", 0)
	for _, all := range []string{lines(b), ""} {
		called := make(chan error)
		done := func(err error) {
			diff(t, "blocked", all, read(t, dir, tcpName))
			diff(t, "history", lines(b), read(t, dir, historyName))
			called <- err
		}
		if all != "" {
			s.Save(b, done)
		} else {
			s.End(b.Source, b.Until, false, done)
		}
		if err := <-called; err != nil {
			t.Fatal(err)
		}
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

func TestDoneMayCallSave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mustOpen(t, t.TempDir())
		stop := start(s)
		var c calls
		s.Save(block("192.0.2.1", 0), func(error) { s.Save(block("192.0.2.2", 0), c.done("second")) })
		synctest.Wait()
		diff(t, "calls", []string{"second"}, c.take())
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestTextFiles goes through the life of blocks; each step is committed.
func TestTextFiles(t *testing.T) {
	a, b, c := block("192.0.2.1", 0), block("192.0.2.2", 1), block("192.0.2.3", 2)
	longer, anotherPort, again, udp := a, a, block("192.0.2.1", 9), a
	longer.Until = longer.Until.Add(time.Hour)
	anotherPort.Port = 79
	udp.Protocol = "udp"
	prefix := Block{Source: netip.MustParsePrefix("192.0.2.0/24"), Since: a.Since}

	type step = func(s *Store)
	save := func(bs ...Block) step {
		return func(s *Store) {
			for _, b := range bs {
				s.Save(b, nil)
			}
		}
	}
	end := func(b Block) step { return func(s *Store) { s.End(b.Source, b.Until, false, nil) } }
	tests := []struct {
		name              string
		steps             []step
		tcp, udp, history string
	}{
		{"none", nil, "", "", ""},
		{"blocked", []step{save(a)}, lines(a), "", lines(a)},
		{"oldest first", []step{save(c, a, b)}, lines(a, b, c), "", lines(a, b, c)},
		{"by protocol", []step{save(udp, b)}, lines(b), lines(udp), lines(udp, b)},
		{"ended", []step{save(a, b, c), end(b)}, lines(a, c), "", lines(a, b, c)},
		{"all ended", []step{save(a, b), end(b), end(a), end(a)}, "", "", lines(a, b)},
		{"extended", []step{save(a), save(longer)}, lines(a), "", lines(a)},
		{"restored", []step{save(a), end(a), save(longer)}, lines(a), "", lines(a)},
		{"blocked again", []step{save(a), end(a), save(again)}, lines(again), "", lines(a, again)},
		{"replaced", []step{save(a), save(b), save(again)}, lines(b, again), "", lines(a, b, again)},
		{"another port", []step{save(a), save(anotherPort)}, lines(anotherPort), "", lines(a)},
		{"another protocol", []step{save(a), save(udp)}, "", lines(udp), lines(a)},
		{"prefix", []step{save(prefix), end(prefix)}, "", "", ""},
		{"came and went", []step{func(s *Store) { save(a)(s); end(a)(s); save(again)(s) }},
			lines(again), "", lines(a, again)},
		{"forgiven", []step{save(a), func(s *Store) { s.End(a.Source, a.Until, true, nil) }}, "", "", lines(a)},
		{"same line twice", []step{save(a), func(s *Store) { s.End(a.Source, a.Until, true, nil) }, save(a)},
			lines(a), "", lines(a, a)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			s := mustOpen(t, dir)
			for _, do := range test.steps {
				do(s)
				flushed(t, s)
			}
			check := func() {
				t.Helper()
				diff(t, tcpName, test.tcp, read(t, dir, tcpName))
				diff(t, udpName, test.udp, read(t, dir, udpName))
				diff(t, historyName, test.history, read(t, dir, historyName))
			}
			check()
			s.Close()
			mustOpen(t, dir)
			check()
		})
	}
}

func TestLinesTakenOutByHand(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir)
	a, b, c := block("192.0.2.1", 0), block("192.0.2.2", 1), block("192.0.2.3", 2)
	s.Save(a, nil)
	s.Save(b, nil)
	flushed(t, s)
	// sed -i: another file, with the line gone, takes its place.
	temp := filepath.Join(dir, "sedXXXX")
	if err := errors.Join(os.WriteFile(temp, []byte(lines(b)), 0o644), os.Rename(temp, filepath.Join(dir, tcpName))); err != nil {
		t.Fatal(err)
	}
	s.Save(c, nil)
	flushed(t, s)
	diff(t, "made anew for a new line", lines(a, b, c), read(t, dir, tcpName))
	if err := os.Remove(filepath.Join(dir, tcpName)); err != nil {
		t.Fatal(err)
	}
	s.End(b.Source, b.Until, false, nil)
	flushed(t, s)
	diff(t, "made anew for an end", lines(a, c), read(t, dir, tcpName))
}

// TestForeignEdits has others write to the mirrors: the next write makes them anew, and so does the next start.
func TestForeignEdits(t *testing.T) {
	a, b, c := block("192.0.2.1", 0), block("192.0.2.2", 1), block("192.0.2.3", 2)
	whole := lines(a, b)
	tests := map[string]string{
		"empty": "", "torn": whole[:len(whole)-9], "first torn": whole[9:], "note": "# a note\n" + whole,
		"crlf": strings.ReplaceAll(whole, "\n", "\r\n"), "nuls": whole + strings.Repeat("\x00", 4096),
		"nothing but nuls": strings.Repeat("\x00", len(whole)), "one line": lines(b), "twice": whole + whole,
		"same size": strings.ReplaceAll(whole, "TCP", "UDP"), "no newline": strings.Repeat("x", 200<<10),
	}
	ways := map[string]struct {
		do   func(s *Store)
		want string
	}{
		"start": {nil, lines(a, b)},
		"new":   {func(s *Store) { s.Save(c, nil) }, lines(a, b, c)},
		"end":   {func(s *Store) { s.End(b.Source, b.Until, false, nil) }, lines(a)},
	}
	for name, text := range tests {
		for way, test := range ways {
			t.Run(name+", "+way, func(t *testing.T) {
				dir := t.TempDir()
				s := mustOpen(t, dir)
				s.Save(a, nil)
				s.Save(b, nil)
				flushed(t, s)
				time.Sleep(5 * time.Millisecond) // the clock of some file systems is that coarse
				cut(t, filepath.Join(dir, tcpName), text, len(text))
				if test.do != nil {
					test.do(s)
					flushed(t, s)
				} else {
					s.Close()
					mustOpen(t, dir)
				}
				diff(t, tcpName, test.want, read(t, dir, tcpName))
			})
		}
	}
}

func TestRotatedHistory(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir)
	a, b := block("192.0.2.1", 0), block("192.0.2.2", 1)
	s.Save(a, nil)
	flushed(t, s)
	s.Save(b, nil)
	flushed(t, s)
	if err := os.Rename(filepath.Join(dir, historyName), filepath.Join(dir, historyName+".1")); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s = mustOpen(t, dir)
	diff(t, "after a start", "", read(t, dir, historyName))
	c := block("192.0.2.3", 2)
	s.Save(c, nil)
	flushed(t, s)
	diff(t, "after a block", lines(c), read(t, dir, historyName))
}

// TestRewritesWait holds the next rewrite back, and sees that new blocks are not held back by it.
func TestRewritesWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s := mustOpen(t, dir)
		a, b, c := block("192.0.2.1", 0), block("192.0.2.2", 1), block("192.0.2.3", 2)
		s.Save(a, nil)
		s.Save(b, nil)
		flushed(t, s)
		s.tcp.due = time.Now().Add(time.Minute)
		stop := start(s)
		var told calls
		s.End(a.Source, a.Until, false, told.done("end a"))
		synctest.Wait()
		s.Save(c, told.done("save c"))
		synctest.Wait()
		s.End(b.Source, b.Until, false, told.done("end b"))
		synctest.Wait()
		diff(t, "calls at once", []string{"save c"}, told.take())
		diff(t, "at once", lines(a, b, c), read(t, dir, tcpName))
		diffLive(t, s, c)
		time.Sleep(time.Minute - time.Millisecond)
		synctest.Wait()
		diff(t, "too soon", lines(a, b, c), read(t, dir, tcpName))
		time.Sleep(time.Millisecond)
		synctest.Wait()
		diff(t, "when due", lines(c), read(t, dir, tcpName))
		diff(t, "calls when due", []string{"end a", "end b"}, told.take())

		s.tcp.due = time.Now().Add(time.Minute)
		s.End(c.Source, c.Until, false, told.done("end c"))
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		diff(t, "at the end", "", read(t, dir, tcpName))
		diff(t, "calls at the end", []string{"end c"}, told.take())
	})
}

// TestSlowRewrites sees that nobody waits for a line to leave a large file.
func TestSlowRewrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s := mustOpen(t, dir)
		a, b := block("192.0.2.1", 0), block("192.0.2.2", 1)
		s.Save(a, nil)
		s.Save(b, nil)
		flushed(t, s)
		s.tcp.took = slowRewrite + 1
		s.tcp.due = time.Now().Add(time.Minute)
		stop := start(s)
		var told calls
		s.End(a.Source, a.Until, false, told.done("end a"))
		synctest.Wait()
		diff(t, "calls at once", []string{"end a"}, told.take())
		diff(t, "at once", lines(a, b), read(t, dir, tcpName))
		diffLive(t, s, b)
		time.Sleep(time.Minute)
		synctest.Wait()
		diff(t, "when due", lines(b), read(t, dir, tcpName))
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestNextRewrite(t *testing.T) {
	began := time.Unix(1000, 0)
	diff(t, "few blocks", began.Add(4*time.Millisecond), nextRewrite(began, 200*time.Microsecond))
	diff(t, "many blocks", began.Add(800*time.Millisecond), nextRewrite(began, 40*time.Millisecond))
}

func TestConcurrency(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir)
	stop := start(s)
	const workers, rounds = 8, 50
	var called sync.WaitGroup
	called.Add(workers * rounds * 3)
	done := func(err error) {
		if err != nil {
			t.Error(err)
		}
		called.Done()
	}
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range rounds {
				shared := block("192.0.2.99", w*rounds+i)
				s.Save(shared, done)
				own := block(netip.AddrFrom4([4]byte{10, 0, byte(w), byte(i)}).String(), i)
				s.Save(own, done)
				s.End(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(w), byte(i / 2)}), 32), own.Until, i%7 == 0, done)
				if _, _, err := s.Last(own.Source); err != nil {
					t.Error(err)
				}
				if err := s.Degraded(); err != nil {
					t.Error(err)
				}
				s.Forget(own.Since.Add(-time.Hour), 1000)
			}
		})
	}
	wg.Wait()
	called.Wait()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	diffMirrors(t, dir, s)
	if live, _ := s.Live(); len(live) != workers*rounds/2+1 {
		t.Errorf("want %d live, got %d", workers*rounds/2+1, len(live))
	}
}

// diffMirrors compares the mirrors with the store, in any order of the lines.
func diffMirrors(t *testing.T, dir string, s *Store) {
	t.Helper()
	live, err := s.Live()
	if err != nil {
		t.Fatal(err)
	}
	want := make(map[string]int)
	for line := range strings.Lines(lines(live...)) {
		want[line]++
	}
	got := make(map[string]int)
	for line := range strings.Lines(read(t, dir, tcpName) + read(t, dir, udpName)) {
		got[line]++
	}
	diff(t, "mirrors", want, got)
}
