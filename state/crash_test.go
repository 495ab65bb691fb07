package state

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// TestCutTextFiles stops the daemon, as it were, between the commit and any byte of the text files, and sees that the
// next start completes them. Of what was written before the last commit a cut history loses one line at most.
func TestCutTextFiles(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir)
	a, b, c, d := block("192.0.2.1", 0), block("192.0.2.2", 1), block("192.0.2.3", 2), block("2001:db8::5", 3)
	s.Save(a, nil)
	flushed(t, s)
	committed := len(lines(a))
	s.Save(b, nil)
	s.Save(c, nil)
	s.Save(d, nil)
	s.End(a.Source, a.Until, false, nil)
	flushed(t, s)
	s.Close()
	history, blocked := lines(a, b, c, d), lines(b, c, d)
	for n := range len(history) + 1 {
		want := history
		if n < committed {
			want = "" // the file was damaged, not cut short by a crash
		}
		cut(t, filepath.Join(dir, historyName), history, n)
		cut(t, filepath.Join(dir, tcpName), blocked, min(n, len(blocked)))
		cut(t, filepath.Join(dir, udpName), blocked, min(n, len(blocked)))
		s := mustOpen(t, dir)
		if got := read(t, dir, historyName); got != want {
			t.Errorf("history cut at %d: want %q, got %q", n, want, got)
		}
		if got := read(t, dir, tcpName); got != blocked {
			t.Errorf("mirror cut at %d: want %q, got %q", n, blocked, got)
		}
		if got := read(t, dir, udpName); got != "" {
			t.Errorf("mirror cut at %d: want nothing, got %q", n, got)
		}
		s.Close()
	}
}

func cut(t *testing.T, path, text string, n int) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text[:n]), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestTornHistory(t *testing.T) {
	line := lines(block("192.0.2.9", 0))
	long := strings.Repeat("x", 10000)
	tests := []struct{ name, before, want string }{
		{"empty", "", ""},
		{"whole", line + line, line + line},
		{"torn", line + line[:20], line},
		{"nothing but torn", line[:20], ""},
		{"torn and long", line + long, line},
		{"long and whole", long + "\n", long + "\n"},
		{"nothing but newlines", "\n\n", "\n\n"},
		{"crlf", line + "a\r\n" + line[:9], line + "a\r\n"},
		{"nuls", line + strings.Repeat("\x00", 5000), line},
		{"nothing but nuls", strings.Repeat("\x00", 5000), ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			cut(t, filepath.Join(dir, historyName), test.before, len(test.before))
			mustOpen(t, dir)
			diff(t, "history", test.want, read(t, dir, historyName))
		})
	}
}

// childEnv makes the test binary run one test as a child, with the state directory as its value.
const childEnv = "NFTSENTRY_TEST_STATE"

// child is the command that runs the calling test again, in a process of its own.
func child(ctx context.Context, t *testing.T, dir string) *exec.Cmd {
	t.Helper()
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, binary, "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), childEnv+"="+dir)
	return cmd
}

// TestKill kills a process that writes blocks, again and again, and sees that what it had been told was written is.
// Its sources are never the same; every second one is ended again.
func TestKill(t *testing.T) {
	if dir := os.Getenv(childEnv); dir != "" {
		writeForEver(t, dir)
	}
	dir := t.TempDir()
	acked := make(map[string]bool)
	for round := range 8 {
		for _, ack := range killed(t, dir, round) {
			acked[ack] = true
		}
		checkAcked(t, dir, acked)
	}
	if len(acked) < 100 {
		t.Errorf("want some acknowledgements, got %d", len(acked))
	}
}

// killed starts a child, kills it a little after its first acknowledgement and returns all of them.
func killed(t *testing.T, dir string, round int) (acks []string) {
	t.Helper()
	cmd := child(t.Context(), t, dir)
	cmd.Env = append(cmd.Env, fmt.Sprintf("%s_ROUND=%d", childEnv, round))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(out)
	for {
		ack, err := r.ReadString('\n')
		if errors.Is(err, io.EOF) {
			break
		}
		if len(acks) == 0 {
			time.AfterFunc(rand.N(50*time.Millisecond), func() { cmd.Process.Kill() })
		}
		acks = append(acks, strings.TrimSpace(ack))
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != -1 {
		t.Fatalf("the child was not killed: %v: %q", err, acks)
	}
	return acks
}

// writeForEver is the child: it prints the source when it is told that the block is written, with a minus when it is
// told that it has ended.
func writeForEver(t *testing.T, dir string) {
	var round byte
	fmt.Sscan(os.Getenv(childEnv+"_ROUND"), &round)
	s := mustOpen(t, dir)
	start(s)
	window := make(chan struct{}, 20)
	for i := range 1 << 16 {
		b := block(netip.AddrFrom4([4]byte{10, round, byte(i >> 8), byte(i)}).String(), i)
		b.Since = time.Now()
		window <- struct{}{}
		s.Save(b, func(err error) {
			ack("", b.Source, err)
			if <-window; i%2 == 0 {
				s.End(b.Source, time.Now(), false, func(err error) { ack("-", b.Source, err) })
			}
		})
	}
	t.Fatal("was not killed")
}

func ack(sign string, source netip.Prefix, err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(2)
	}
	os.Stdout.WriteString(sign + source.String() + "\n")
}

func checkAcked(t *testing.T, dir string, acked map[string]bool) {
	t.Helper()
	s := mustOpen(t, dir)
	defer s.Close()
	if err := s.Degraded(); err != nil {
		t.Fatal(err)
	}
	known := make(map[netip.Prefix]bool) // and whether it is live
	blocks, err := s.Live()
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range blocks {
		known[b.Source] = true
	}
	diff(t, "mirror", lines(blocks...), read(t, dir, tcpName))
	for line := range strings.Lines(read(t, dir, historyName)) {
		l, err := ParseLine(strings.TrimSuffix(line, "\n"))
		if err != nil {
			t.Fatal(err)
		}
		source := netip.PrefixFrom(l.Address, 32)
		_, ended, _ := s.Last(source)
		if ended == known[source] {
			t.Errorf("%s: in the history, live %v, ended %v", source, known[source], ended)
		}
		if ended && !acked[source.String()] {
			t.Errorf("%s: ended, but not acknowledged", source)
		}
		if _, twice := known[source]; twice && !known[source] {
			t.Errorf("%s: twice in the history", source)
		}
		known[source] = false
	}
	for source, live := range known {
		if live {
			t.Errorf("%s: not in the history", source)
		}
	}
	for a := range acked {
		source := netip.MustParsePrefix(strings.TrimPrefix(a, "-"))
		if _, ok := known[source]; !ok {
			t.Errorf("%s: acknowledged and lost", source)
		}
	}
}

// TestDiskFull runs the store where files may only grow up to a limit. A write beyond it is cut short and fails, as on
// a full disk, for root too. The limit is the process's, so the test runs in one of its own.
func TestDiskFull(t *testing.T) {
	dir := os.Getenv(childEnv)
	if dir == "" {
		out, err := child(t.Context(), t, t.TempDir()).CombinedOutput()
		if err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	t.Run("store", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { testStoreFull(t, filepath.Join(dir, "store")) })
	})
	t.Run("history", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { testHistoryFull(t, filepath.Join(dir, "history")) })
	})
	t.Run("stop", func(t *testing.T) {
		s := mustOpen(t, filepath.Join(dir, "stop"))
		stop := start(s)
		limitFiles(t, 4096)
		s.Save(block("192.0.2.1", 0), nil)
		s.Save(block("192.0.2.2", 0), nil)
		if err := stop(); err == nil || !strings.HasPrefix(err.Error(), "2 changes are not in the store: write nftsentry.db: ") {
			t.Errorf("want an error, got %v", err)
		}
	})
}

// limitFiles limits the size of files until the test ends or the returned function is called.
func limitFiles(t *testing.T, size uint64) (lift func()) {
	t.Helper()
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	set := func(cur uint64) {
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: cur, Max: before.Max}); err != nil {
			t.Fatal(err)
		}
	}
	set(size)
	t.Cleanup(func() { set(before.Cur) })
	return func() { set(before.Cur) }
}

// testStoreFull has room for the text files but none for the store.
func testStoreFull(t *testing.T, dir string) {
	s := mustOpen(t, dir)
	stop := start(s)
	var told calls
	a, b := block("192.0.2.1", 0), block("192.0.2.2", 1)
	s.Save(a, told.done("a"))
	synctest.Wait()
	lift := limitFiles(t, 4096)
	s.End(a.Source, a.Until, false, told.done("end a"))
	synctest.Wait()
	s.Save(b, told.done("b"))
	time.Sleep(time.Hour)
	synctest.Wait()
	diff(t, "calls when full", []string{"a", "end a failed", "b failed"}, told.take())
	if err := s.Degraded(); !errors.Is(err, unix.EFBIG) {
		t.Errorf("degraded: want %v, got %v", unix.EFBIG, err)
	}
	diffLive(t, s, b) // what waits is in it
	diffLast(t, s, a.Source, a)
	diff(t, "blocked when full", lines(a), read(t, dir, tcpName))

	lift()
	time.Sleep(retryMax)
	synctest.Wait()
	if err := s.Degraded(); err != nil {
		t.Errorf("degraded when there is room again: %v", err)
	}
	diffLive(t, s, b)
	diffLast(t, s, a.Source, a)
	diff(t, "blocked", lines(b), read(t, dir, tcpName))
	diff(t, "history", lines(a, b), read(t, dir, historyName))
	diff(t, "later calls", []string(nil), told.take())
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

// testHistoryFull has room for the store but only for a part of the next line of the history.
func testHistoryFull(t *testing.T, dir string) {
	old := strings.Repeat(lines(block("192.0.2.9", 0)), 20000)
	if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(filepath.Join(dir, historyName), []byte(old), 0o600)); err != nil {
		t.Fatal(err)
	}
	s, err := Open(dir, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	stop := start(s)
	var told calls
	a, b := block("192.0.2.1", 0), block("192.0.2.2", 1)
	lift := limitFiles(t, uint64(len(old)+30))
	s.Save(a, told.done("a"))
	synctest.Wait()
	s.Save(b, told.done("b"))
	time.Sleep(time.Hour)
	synctest.Wait()
	diff(t, "calls when full", []string{"a failed", "b failed"}, told.take())
	if err := s.Degraded(); !errors.Is(err, unix.EFBIG) {
		t.Errorf("degraded: want %v, got %v", unix.EFBIG, err)
	}
	diffLive(t, s, a, b)
	diff(t, "history when full", len(old), len(read(t, dir, historyName)))

	if err := stop(); err == nil { // and a start with a full disk
		t.Error("want Run to report the history, got nil")
	}
	s.Close()
	s = mustOpen(t, dir)
	stop = start(s)
	synctest.Wait()
	if err := s.Degraded(); !errors.Is(err, unix.EFBIG) {
		t.Errorf("degraded after a start: want %v, got %v", unix.EFBIG, err)
	}
	lift()
	time.Sleep(retryMax)
	synctest.Wait()
	if err := s.Degraded(); err != nil {
		t.Errorf("degraded when there is room again: %v", err)
	}
	diff(t, "history", lines(a, b), strings.TrimPrefix(read(t, dir, historyName), old))
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}
