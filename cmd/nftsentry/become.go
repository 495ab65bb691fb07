package main

import (
	"errors"
	"fmt"
	"io/fs"
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
	if _, _, err = o.load(); errors.Is(err, fs.ErrPermission) {
		return usagef("--user %s: the user has no right to read the configuration: %w", name, err)
	}
	return err
}

// giveFolders gives a user the folder of the state and that of the control
// socket, which are made if they are missing.
func giveFolders(cfg conf.Config, user sandbox.User) error {
	if err := sandbox.MakeFolder(cfg.State.Dir, 0o755, user.UID, user.GID); err != nil {
		return fmt.Errorf("state.dir: %w", err)
	}
	dir := filepath.Dir(cfg.Control.Socket)
	if !givable(dir) {
		return nil // others use it too: the user can write to it, or Listen says that he cannot
	}
	if err := sandbox.MakeFolder(dir, 0o750, user.UID, user.GID); err != nil {
		return fmt.Errorf("control.socket: %w", err)
	}
	return nil
}

// givable tells whether a folder is missing, or looks as one that an earlier
// run has made: never one that every system has, such as /run.
func givable(dir string) bool {
	var st unix.Stat_t
	err := unix.Stat(dir, &st)
	return errors.Is(err, fs.ErrNotExist) || err == nil && st.Mode == unix.S_IFDIR|0o750 && st.Uid == 0 && filepath.Dir(dir) != "/"
}
