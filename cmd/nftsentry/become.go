package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"

	"nftsentry/cmd/nftsentry/internal/sandbox"
	"nftsentry/conf"
)

// become makes this process, which is root's, one of a user's, with no rights
// but those of a guard. Before that the user gets the folders that he has to
// write to.
func (o *options) become(name string) error {
	if os.Geteuid() != 0 {
		return usagef("--user %s: only root can become another user: start it as root, or leave the flag out", name)
	}
	user, err := sandbox.FindUser(name)
	if err != nil {
		return usagef("--user %s: %w", name, err)
	}
	cfg, _, err := o.load()
	if err != nil {
		return err
	}
	if err := giveFolders(cfg, user); err != nil {
		return fmt.Errorf("--user %s: %w", name, err)
	}
	if err := sandbox.Become(user, cap.NET_ADMIN, cap.NET_BIND_SERVICE); err != nil {
		return fmt.Errorf("--user %s: %w", name, err)
	}
	if err := enterable(cfg.State.Dir); err != nil {
		return usagef("--user %s: state.dir: %w: let the user pass the folders above it, such as by chmod o+x, or name another", name, err)
	}
	if _, _, err = o.load(); errors.Is(err, fs.ErrPermission) {
		return usagef("--user %s: the user has no right to read the configuration: %w: let him read it, and pass the folders above it, "+
			"such as by chmod o+r if it has no secrets", name, pathError(err))
	}
	return err
}

// dropStale removes a socket on which nobody answers any more: the user could
// not find that out of one of root's.
func dropStale(path string) error {
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Type() != fs.ModeSocket {
		return nil // Listen says what is wrong with it, if anything
	}
	conn, err := net.Dial("unix", path)
	if err == nil {
		return conn.Close()
	}
	if errors.Is(err, unix.ECONNREFUSED) {
		return os.Remove(path)
	}
	return nil
}

// enterable tells why this process may not use a folder; nil if it may.
func enterable(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return f.Close()
}

// pathError is what the file system says, without advice for those who can
// become root.
func pathError(err error) error {
	var bare *fs.PathError
	if errors.As(err, &bare) {
		return bare
	}
	return err
}

// giveFolders gives a user the folder of the state and that of the control
// socket, which are made if they are missing, with what a daemon of root's has
// left in them.
func giveFolders(cfg conf.Config, user sandbox.User) error {
	if err := sandbox.MakeFolder(cfg.State.Dir, 0o755, user.UID, user.GID); err != nil {
		return fmt.Errorf("state.dir: %w", err)
	}
	if err := sandbox.Adopt(cfg.State.Dir); err != nil {
		return fmt.Errorf("state.dir: %w", err)
	}
	dir := filepath.Dir(cfg.Control.Socket)
	if ownedBy(dir, user.UID) {
		if err := sandbox.Adopt(dir); err != nil {
			return fmt.Errorf("control.socket: %w", err)
		}
		return dropStale(cfg.Control.Socket)
	}
	if !givable(dir) {
		return nil // others use it too: the user can write to it, or Listen says that he cannot
	}
	if err := sandbox.MakeFolder(dir, 0o750, user.UID, user.GID); err != nil {
		return fmt.Errorf("control.socket: %w", err)
	}
	return nil
}

// ownedBy tells whether a folder is there, and is a user's.
func ownedBy(dir string, uid int) bool {
	var st unix.Stat_t
	return unix.Stat(dir, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR && int(st.Uid) == uid
}

// givable tells whether a folder is missing, or looks as one that an earlier
// run has made: never one that every system has, such as /run.
func givable(dir string) bool {
	var st unix.Stat_t
	err := unix.Stat(dir, &st)
	return errors.Is(err, fs.ErrNotExist) || err == nil && st.Mode == unix.S_IFDIR|0o750 && st.Uid == 0 && filepath.Dir(dir) != "/"
}
