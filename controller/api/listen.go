package api

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// ErrInUse means that another daemon has the socket.
var ErrInUse = errors.New("another nftsentry is running")

// folderMode is that of a folder that we make for the socket.
const folderMode = 0o750

// Listen opens the control socket at path, for root, for the user that runs
// the daemon, and for the members of group, if one is named; the connections of
// all others are refused, whatever the mode of the file. The folder is made if it is missing; one that was
// made by an earlier run becomes the group's. A socket that nobody answers on
// any more is replaced; any other file is not. Of many that start at once one
// gets the socket: it holds a lock on the file path.lock, which stays.
//
// Errors: ErrInUse, and those of the file system.
func Listen(path, group string, log *zap.Logger) (*Server, error) {
	gid, err := groupID(group)
	if err != nil {
		return nil, err
	}
	dir := filepath.Dir(path)
	if err := makeFolder(dir, gid); err != nil {
		return nil, fmt.Errorf("control socket: %w: set control.socket to a path in a folder that can be made", err)
	}
	if closed := closedTo(gid, dir); closed != "" {
		log.Warn("members of control.group cannot enter a folder of the control socket: let them in, or move the socket",
			zap.String("group", group), zap.String("folder", closed))
	}
	lock, err := lockFile(path + ".lock")
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("control socket: %w: %s", err, letIn(path+".lock"))
	}
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	l, err := listen(path, gid)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("control socket: %w", err), lock.Close())
	}
	return &Server{listener: newGate(l, gid, log), lock: lock, log: log}, nil
}

// groupID is the number of a group, -1 for none.
func groupID(name string) (int, error) {
	if name == "" {
		return -1, nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, fmt.Errorf("control.group: %w", err)
	}
	return strconv.Atoi(g.Gid)
}

// makeFolder makes the folder of the socket if it is missing, and gives it to
// the group, -1 for none. One that is there and is not ours is left as it is.
func makeFolder(dir string, gid int) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	err := os.Mkdir(dir, folderMode)
	switch {
	case err == nil:
		err = os.Chmod(dir, folderMode) // whatever the umask
	case errors.Is(err, fs.ErrExist) && (gid < 0 || !ours(dir)):
		return nil
	case errors.Is(err, fs.ErrExist):
		err = nil
	}
	if err != nil {
		return err
	}
	return give(dir, gid)
}

// give gives a file to a group, -1 for none, unless it has it already.
func give(path string, gid int) error {
	var st unix.Stat_t
	if gid < 0 || unix.Lstat(path, &st) == nil && int(st.Gid) == gid {
		return nil
	}
	err := os.Lchown(path, -1, gid)
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: only root can give it to the group: make that the group of the daemon, such as by Group= of its service", err)
	}
	return err
}

// ours tells whether a folder looks as one that an earlier run has made:
// never one of those that every system has, such as /run.
func ours(dir string) bool {
	var st unix.Stat_t
	return unix.Stat(dir, &st) == nil && st.Mode == unix.S_IFDIR|folderMode &&
		int(st.Uid) == os.Geteuid() && filepath.Dir(dir) != "/"
}

// closedTo is the folder on the way to dir, or dir itself, that the members
// of a group have no right to pass; "" if they may pass all, or without a group.
func closedTo(gid int, dir string) string {
	if gid < 0 {
		return ""
	}
	var st unix.Stat_t
	for ; ; dir = filepath.Dir(dir) {
		if unix.Stat(dir, &st) == nil && !mayPass(gid, st) {
			return dir
		}
		if dir == filepath.Dir(dir) {
			return ""
		}
	}
}

func mayPass(gid int, st unix.Stat_t) bool {
	if int(st.Gid) == gid {
		return st.Mode&unix.S_IXGRP != 0
	}
	return st.Mode&unix.S_IXOTH != 0
}

// lockFile makes a file if it is missing and locks it. The lock ends with the
// process, or when the file is closed. The file is never removed: another
// might have it open by then, and lock what nobody else can see.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = fmt.Errorf("%w: it holds %s; stop it first", ErrInUse, path)
	} else if err != nil {
		err = fmt.Errorf("lock %s: %w", path, err)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// letIn says what to do about a lock that this user may not make or write to.
func letIn(path string) string {
	if _, err := os.Lstat(path); err == nil {
		return "the file is another user's, such as of an earlier nftsentry of root's: give it to this user, or remove it if none runs"
	}
	return "let this user write to the folder, or set control.socket to a path in a folder of its own, such as /run/nftsentry/control.sock"
}

// listen opens the socket in the place of a stale one. The caller holds the lock.
func listen(path string, gid int) (*net.UnixListener, error) {
	if err := removeStale(path); err != nil {
		return nil, err
	}
	old := unix.Umask(0o177) // nobody may connect before the owner and mode are right
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	unix.Umask(old)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(give(path, gid), os.Chmod(path, 0o660)); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
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
		return fmt.Errorf("%s is not a socket: move it away, or set control.socket to another path", path)
	}
	conn, err := net.DialTimeout("unix", path, patience)
	if err == nil {
		return errors.Join(fmt.Errorf("%w: it answers on %s; stop it first", ErrInUse, path), conn.Close())
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return err
	}
	return os.Remove(path)
}
