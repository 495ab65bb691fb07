package remote

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

const (
	maxConns   = 16 // connections at once
	maxRefused = 8  // connections of strangers, besides
	nobody     = 65534
)

// Listen makes the socket, on which only root and the user with the number peer are heard: the kernel says who connects,
// whatever the mode of the file. One that nobody answers on any more is replaced; any other file is not.
func Listen(path string, peer uint32, log *zap.Logger) (*Server, error) {
	if err := removeStale(path); err != nil {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("socket of the hook service: %w: make the folder %s and give it to the user who runs this (uid %d), "+
			"or name another path with --socket", err, filepath.Dir(path), os.Geteuid())
	}
	if err := os.Chmod(path, 0o666); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return newServer(&door{UnixListener: l, log: log, users: []uint32{0, peer}}), nil
}

// Inherit takes a socket that the service manager has made, on which only root and the user with the number peer are heard.
//
// In a user namespace that does not know the peer (PrivateUsers=yes) the kernel cannot say who connects. Then the socket must
// be one that only its owner and its group may use, and whoever is unknown is heard.
func Inherit(l *net.UnixListener, peer uint32, log *zap.Logger) (*Server, error) {
	l.SetUnlinkOnClose(false)
	d := &door{UnixListener: l, log: log, users: []uint32{0, peer}}
	known, err := knows("/proc/self/uid_map", peer)
	if err != nil {
		return nil, err
	}
	if !known {
		path := l.Addr().String()
		info, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		if info.Mode()&0o007 != 0 {
			return nil, fmt.Errorf("%s: everybody may use this socket (mode %04o), and who does cannot be told in a user namespace: "+
				"set SocketMode=0600 and SocketUser= in the socket's unit", path, info.Mode().Perm())
		}
		d.users = append(d.users, nobody)
	}
	return newServer(d), nil
}

// knows says whether a user namespace has a user, by its map, user_namespaces(7).
func knows(file string, user uint32) (bool, error) {
	f, err := os.Open(file)
	if err != nil {
		return false, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var inside, outside, n uint64
		if _, err := fmt.Sscan(lines.Text(), &inside, &outside, &n); err != nil {
			return false, fmt.Errorf("%s: %q: %w", file, lines.Text(), err)
		}
		if uint64(user) >= inside && uint64(user) < inside+n {
			return true, nil
		}
	}
	return false, lines.Err()
}

// removeStale removes a socket that nobody answers on.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s is not a socket: move it away, or name another path", path)
	}
	conn, err := net.DialTimeout("unix", path, patience)
	if err == nil {
		return errors.Join(fmt.Errorf("another hook service answers on %s: stop it first", path), conn.Close())
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return err
	}
	return os.Remove(path)
}

// A door lets in those who have a right to the socket.
type door struct {
	*net.UnixListener
	log   *zap.Logger
	users []uint32

	mu      sync.Mutex // guards what follows
	free    *sync.Cond // some place may be free, or the door is closed
	inside  int
	closed  bool
	refused []*net.UnixConn // of strangers, the oldest first; some may be closed
}

// Accept returns the next connection: of somebody who has a right to one, once there is a place for it, or of a stranger, who
// takes no place and is told that he has none.
func (d *door) Accept() (net.Conn, error) {
	if err := d.place(); err != nil {
		return nil, err
	}
	conn, err := d.AcceptUnix()
	if err != nil {
		d.leave()
		return nil, err
	}
	user, err := userOf(conn)
	if err == nil && slices.Contains(d.users, user) {
		return &guest{Conn: conn, leave: d.leave}, nil
	}
	d.leave()
	d.log.Debug("connection refused", zap.Uint32("uid", user), zap.Error(err))
	return d.refuse(conn, user), nil
}

// place waits until another connection may come in.
func (d *door) place() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for d.inside >= maxConns && !d.closed {
		d.free.Wait()
	}
	if d.closed {
		return net.ErrClosed
	}
	d.inside++
	return nil
}

func (d *door) leave() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.inside--
	d.free.Signal()
}

// Close closes the socket.
func (d *door) Close() error {
	d.mu.Lock()
	d.closed = true
	for _, conn := range d.refused {
		_ = conn.Close()
	}
	d.refused = nil
	d.free.Broadcast()
	d.mu.Unlock()
	return d.UnixListener.Close()
}

// userOf asks the kernel who has made a connection, socket(7).
func userOf(conn *net.UnixConn) (user uint32, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var cerr error
	err = raw.Control(func(fd uintptr) { cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err = errors.Join(err, cerr); err != nil {
		return 0, fmt.Errorf("SO_PEERCRED: %w", err)
	}
	return cred.Uid, nil
}

// refuse remembers a stranger's connection, in the place of the oldest one if there are too many.
func (d *door) refuse(conn *net.UnixConn, user uint32) *guest {
	g := &guest{Conn: conn, leave: func() {}, stranger: fmt.Errorf("the hook service hears root and the user that --peer names, and not uid %d", user)}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.refused = append(d.refused, conn)
	if len(d.refused) > maxRefused {
		_ = d.refused[0].Close()
		d.refused = d.refused[1:]
	}
	return g
}

// A guest is a connection that was let in.
type guest struct {
	net.Conn
	leave    func()
	once     sync.Once
	stranger error // why its requests are refused; nil if they are not
}

// Close closes the connection, and gives its place to another.
func (g *guest) Close() error {
	g.once.Do(g.leave)
	return g.Conn.Close()
}
