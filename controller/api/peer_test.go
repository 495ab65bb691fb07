package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"
	"unsafe"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

func TestPeerMay(t *testing.T) {
	for name, tt := range map[string]struct {
		peer      peer
		self, gid int
		want      bool
	}{
		"root":                    {peer{uid: 0, groups: []uint32{7}}, 1000, -1, true},
		"the daemon's user":       {peer{uid: 1000, groups: []uint32{7}}, 1000, -1, true},
		"another user":            {peer{uid: 1001, groups: []uint32{7}}, 1000, -1, false},
		"a member":                {peer{uid: 1001, groups: []uint32{7}}, 0, 7, true},
		"a member among others":   {peer{uid: 1001, groups: []uint32{5, 6, 7}}, 0, 7, true},
		"a member of others":      {peer{uid: 1001, groups: []uint32{5, 6}}, 0, 7, false},
		"the group of root":       {peer{uid: 1001, groups: []uint32{0}}, 0, -1, false},
		"user 2^32-1, no group":   {peer{uid: 1<<32 - 1, groups: []uint32{1<<32 - 1}}, 0, -1, false},
		"user with a group's gid": {peer{uid: 7, groups: []uint32{6}}, 0, 7, false},
	} {
		if got := tt.peer.may(tt.self, tt.gid); got != tt.want {
			t.Errorf("%s may come: %v, want %v", name, got, tt.want)
		}
	}
}

// A login is who a test connects as.
type login struct {
	uid, gid int
	groups   []uint32
}

// connectAs connects to path as another user. Credentials are those of a
// thread, for the kernel, and this one ends with them.
func connectAs(t testing.TB, path string, u login) net.Conn {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can be somebody else")
	}
	var conn net.Conn
	var g errgroup.Group
	g.Go(func() (err error) {
		runtime.LockOSThread()
		if err := become(u); err != nil {
			return err
		}
		conn, err = dial(context.Background(), path)
		return err
	})
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func become(u login) error {
	groups := append(slices.Clone(u.groups), 0)
	for _, call := range [][4]uintptr{
		{unix.SYS_SETGROUPS, uintptr(len(u.groups)), uintptr(unsafe.Pointer(&groups[0])), 0},
		{unix.SYS_SETRESGID, uintptr(u.gid), uintptr(u.gid), uintptr(u.gid)},
		{unix.SYS_SETRESUID, uintptr(u.uid), uintptr(u.uid), uintptr(u.uid)},
	} {
		if _, _, errno := unix.RawSyscall(call[0], call[1], call[2], call[3]); errno != 0 {
			return errno
		}
	}
	runtime.KeepAlive(groups)
	return nil
}

// clientAs is a client that connects as another user.
func clientAs(t testing.TB, path string, u login) *Client {
	t.Helper()
	c := NewClient(path)
	conn := connectAs(t, path, u)
	c.http.Transport = &http.Transport{
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return conn, nil },
		DisableKeepAlives: true,
	}
	return c
}

// openToAll gives everybody the right to connect to the socket: what a wrong
// mode does.
func openToAll(t testing.TB, path string) {
	t.Helper()
	err := os.Chmod(path, 0o777)
	for dir := filepath.Dir(path); dir != os.TempDir() && dir != "/" && err == nil; dir = filepath.Dir(dir) {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestPeers connects as users of all kinds to a socket that is open to all.
func TestPeers(t *testing.T) {
	const self, group = 4711, 4712
	many := make([]uint32, 1000)
	for i := range many {
		many[i] = uint32(10000 + i)
	}
	core, logs := observer.New(zap.DebugLevel)
	s := serveAs(t, zap.New(core), fakeGuard{}, func(g *gate) { g.self, g.gid = self, group })
	openToAll(t, s.path)
	for name, tt := range map[string]struct {
		user login
		want bool
	}{
		"nobody":                            {login{65534, 65534, nil}, false},
		"root's group is not root":          {login{65534, 0, nil}, false},
		"a member of many":                  {login{65534, 65534, many}, false},
		"root":                              {login{0, 0, nil}, true},
		"root in no group":                  {login{0, 65534, nil}, true},
		"the daemon's user":                 {login{self, 65534, nil}, true},
		"a member by its group":             {login{65534, group, nil}, true},
		"a member by a supplementary group": {login{65534, 65534, []uint32{7, group}}, true},
		"a member of this and many others":  {login{65534, 65534, append(slices.Clone(many), group)}, true},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := clientAs(t, s.path, tt.user).List(t.Context())
			if tt.want {
				if err != nil {
					t.Errorf("List: %v", err)
				}
				return
			}
			if want := "no right to use " + s.path + ": run as root, or as a member of control.group"; !errors.Is(err, fs.ErrPermission) || err.Error() != want+": permission denied" {
				t.Errorf("List: error %v, want %s", err, want)
			}
		})
	}
	for _, entry := range logs.All() {
		if entry.Level > zap.DebugLevel {
			t.Errorf("logged: %+v", entry)
		}
	}
	if n := logs.FilterMessage("control connection refused").Len(); n != 3 {
		t.Errorf("%d refusals in the log, want 3", n)
	}
}

// TestPeerUnheard shows that a refused client is answered and closed without
// having sent anything.
func TestPeerUnheard(t *testing.T) {
	s := serveAs(t, zap.NewNop(), fakeGuard{}, nil)
	openToAll(t, s.path)
	conn := connectAs(t, s.path, login{65534, 65534, nil}).(*patientConn).Conn
	if err := conn.SetDeadline(time.Now().Add(patience / 2)); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(conn)
	const body = `{"error":"no right to use the control socket: run as root"}` + "\n"
	want := "HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nContent-Length: 60\r\nConnection: close\r\n\r\n" + body
	if string(got) != want || err != nil || !json.Valid([]byte(body)) {
		t.Errorf("answer %q, %v, want %q", got, err, want)
	}
	if _, err := conn.Write([]byte("GET")); !errors.Is(err, unix.EPIPE) {
		t.Errorf("Write afterwards: %v, want EPIPE", err)
	}
}

// TestPeerOf asks the kernel about this process.
func TestPeerOf(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	conn, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	p, err := peerOf(conn)
	if err != nil || int(p.pid) != os.Getpid() || int(p.uid) != os.Geteuid() || int(p.groups[0]) != os.Getegid() {
		t.Errorf("peer %+v, %v", p, err)
	}
	groups, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	for _, gid := range groups {
		if !slices.Contains(p.groups, uint32(gid)) {
			t.Errorf("groups %v, want %v too", p.groups, gid)
		}
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	if p, err := peerOf(conn); err == nil {
		t.Errorf("the peer of a closed connection is %+v", p)
	}
}
