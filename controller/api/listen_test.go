package api

import (
	"context"
	"errors"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

func TestListen(t *testing.T) {
	path := serve(t)
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("mode %v, %v, want 0660", info.Mode(), err)
	}
	if info, err = os.Lstat(filepath.Dir(path)); err != nil || info.Mode().Perm() != 0o750 {
		t.Errorf("mode of the folder %v, %v, want 0750", info.Mode(), err)
	}
	if _, err := Listen(path, "", zaptest.NewLogger(t)); !errors.Is(err, ErrInUse) {
		t.Errorf("Listen on a socket that is answered = %v, want ErrInUse", err)
	}

	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(file, "", zaptest.NewLogger(t)); err == nil || !strings.Contains(err.Error(), "is not a socket: move it away") {
		t.Errorf("Listen on a file = %v", err)
	}
	if data, err := os.ReadFile(file); string(data) != "precious" || err != nil {
		t.Errorf("the file has %q, %v", data, err)
	}
	if _, err := Listen(filepath.Join(dir, "sock"), "no-such-group-here", zaptest.NewLogger(t)); err == nil {
		t.Error("Listen for a group that is not there: no error")
	}

	for _, folder := range []string{"/proc/nowhere", "/proc/nowhere/at/all", file, filepath.Join(file, "below")} {
		if _, err := Listen(filepath.Join(folder, "sock"), "", zaptest.NewLogger(t)); err == nil || !strings.Contains(err.Error(), "control socket: ") {
			t.Errorf("Listen in %s = %v, want an error", folder, err)
		}
	}

	stale := filepath.Join(dir, "stale")
	leaveStale(t, stale)
	s, err := Listen(stale, "", zaptest.NewLogger(t))
	if err != nil {
		t.Fatalf("Listen on a stale socket: %v", err)
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
}

// TestListenTaken shows that what is not a stale socket stays as it is: a
// socket that another program answers on, and a link to a stale one.
func TestListenTaken(t *testing.T) {
	dir := t.TempDir()
	taken, link := filepath.Join(dir, "taken"), filepath.Join(dir, "link")
	l, err := net.Listen("unix", taken)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	leaveStale(t, filepath.Join(dir, "stale"))
	if err := os.Symlink("stale", link); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(taken, "", zaptest.NewLogger(t)); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "it answers on "+taken) {
		t.Errorf("Listen on a socket of another program = %v, want ErrInUse", err)
	}
	if _, err := Listen(link, "", zaptest.NewLogger(t)); err == nil || !strings.Contains(err.Error(), "is not a socket: move it away") {
		t.Errorf("Listen on a link to a stale socket = %v", err)
	}
	for _, path := range []string{taken, link} {
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("%s is gone: %v", path, err)
		}
	}
}

// leaveStale leaves a socket as a killed daemon does.
func leaveStale(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestListenAtOnce starts many daemons at once in the place of one that was
// killed: one of them gets the socket, and answers on it.
func TestListenAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sock")
	for range 20 {
		leaveStale(t, path)
		winner, err := race(path, 16)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var g errgroup.Group
		g.Go(func() error {
			return winner.Run(ctx, fakeGuard{}, fakeDaemon{})
		})
		if s, err := NewClient(path).Status(t.Context()); s.PID != 42 || err != nil {
			t.Errorf("Status of the winner = %+v, %v", s, err)
		}
		cancel()
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
	}
}

// race starts n daemons at once and returns the one that gets the socket.
func race(path string, n int) (*Server, error) {
	var winner atomic.Pointer[Server]
	start := make(chan struct{})
	var g errgroup.Group
	for range n {
		g.Go(func() error {
			<-start
			s, err := Listen(path, "", zap.NewNop())
			if errors.Is(err, ErrInUse) {
				return nil
			}
			if err == nil && !winner.CompareAndSwap(nil, s) {
				return errors.Join(errors.New("two have the socket"), s.Close())
			}
			return err
		})
	}
	close(start)
	err := g.Wait()
	if err == nil && winner.Load() == nil {
		err = errors.New("nobody has the socket")
	}
	return winner.Load(), err
}

// TestListenGroup shows who may come to the socket of a group, in a folder
// that an earlier run has made and in one of somebody else.
func TestListenGroup(t *testing.T) {
	group, gid := otherGroup(t)
	defer unix.Umask(unix.Umask(0o077)) // a careful administrator's
	for name, tt := range map[string]struct {
		mode   os.FileMode // of the folder that is there; 0 for none
		gid    int         // its group afterwards
		closed bool        // to the group
	}{
		"new":               {0, gid, false},
		"of an earlier run": {0o750, gid, false},
		"open to all":       {0o755, os.Getegid(), false},
		"closed":            {0o700, os.Getegid(), true},
	} {
		top := t.TempDir()
		dir := filepath.Join(top, "run")
		for _, d := range []string{filepath.Dir(top), top} {
			if err := os.Chmod(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if tt.mode != 0 {
			if err := errors.Join(os.Mkdir(dir, tt.mode), os.Chmod(dir, tt.mode)); err != nil {
				t.Fatal(err)
			}
		}
		core, logs := observer.New(zap.WarnLevel)
		s, err := Listen(filepath.Join(dir, "sock"), group, zap.New(core))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for path, want := range map[string]int{dir: tt.gid, filepath.Join(dir, "sock"): gid} {
			var st unix.Stat_t
			if err := unix.Stat(path, &st); err != nil || int(st.Gid) != want {
				t.Errorf("%s: %s has group %d, %v, want %d", name, path, st.Gid, err, want)
			}
			if want == gid && st.Mode&0o060 == 0 {
				t.Errorf("%s: %s has mode %o, which is closed to its group", name, path, st.Mode)
			}
		}
		warned := logs.FilterField(zap.String("folder", dir)).FilterField(zap.String("group", group)).Len()
		if want := map[bool]int{true: 1}[tt.closed]; warned != want || logs.Len() != want {
			t.Errorf("%s: %d warnings of the folder, want %d: %v", name, warned, want, logs.All())
		}
		if err := s.Close(); err != nil {
			t.Errorf("%s: Close: %v", name, err)
		}
	}
}

// otherGroup is a group that files may be given to, and that new ones do not have.
func otherGroup(t *testing.T) (string, int) {
	t.Helper()
	mine, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		mine = append(mine, 1) // daemon
	}
	for _, gid := range mine {
		if g, err := user.LookupGroupId(strconv.Itoa(gid)); err == nil && gid != os.Getegid() {
			return g.Name, gid
		}
	}
	t.Skip("no group to give files to: run the tests as root, or as a member of two groups")
	return "", 0
}

func TestOurs(t *testing.T) {
	for _, dir := range []string{"/", "/run", "/tmp", "/proc/self", "/nowhere"} {
		if ours(dir) {
			t.Errorf("%s is taken for one that we made", dir)
		}
	}
}
