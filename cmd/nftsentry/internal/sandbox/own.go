package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// MakeFolder makes a folder with all above it, if it is missing, and gives it with the files in it to a user. One that
// is his already is left as it is with all that is in it, see Adopt.
// One with folders in it, or where others may write, is an error.
//
// Errors: those of the file system, with a path.
func MakeFolder(path string, mode fs.FileMode, uid, gid int) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(path, mode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return fmt.Errorf("%s is a file or a symbolic link: a folder is needed here", path)
	}
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	folder := os.NewFile(uintptr(fd), path)
	return errors.Join(own(folder, uid, gid), folder.Close())
}

// own gives the files in a folder to a user, and then the folder itself.
func own(folder *os.File, uid, gid int) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(folder.Fd()), &st); err != nil {
		return err
	}
	if int(st.Uid) == uid {
		return nil
	}
	entries, err := folder.ReadDir(-1)
	if err != nil {
		return err
	}
	if st.Mode&0o022 != 0 || filepath.Dir(folder.Name()) == "/" || slices.ContainsFunc(entries, fs.DirEntry.IsDir) {
		return fmt.Errorf("%s looks like a folder of others too, and is left as it is: name one of its own, which need not be there yet", folder.Name())
	}
	for _, e := range entries {
		if e.Type() == fs.ModeSocket { // of a daemon that is gone; only root can have put it here
			err = unix.Fchownat(int(folder.Fd()), e.Name(), uid, gid, unix.AT_SYMLINK_NOFOLLOW)
		} else {
			err = ownFile(folder, e.Name(), uid, gid, false)
		}
		if err != nil {
			return err
		}
	}
	return folder.Chown(uid, gid)
}

// ownFile gives a regular file that has no other name to a user; perhaps only one of root's.
func ownFile(folder *os.File, name string, uid, gid int, ofRoot bool) error {
	fd, err := unix.Openat(int(folder.Fd()), name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENOENT) {
		return nil // a symbolic link, a socket, or gone
	}
	path := filepath.Join(folder.Name(), name)
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	if err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Nlink == 1 && (!ofRoot || st.Uid == 0) {
		err = f.Chown(uid, gid)
	}
	return errors.Join(err, f.Close())
}

// Adopt gives the files of root's in a folder to the owner of the folder, if that is another: those that root has made
// for a daemon that is to write to them. A file with a second name, or behind a symbolic link, is none of them: the owner of
// the folder could have root give him any file in that way.
func Adopt(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	folder := os.NewFile(uintptr(fd), path)
	return errors.Join(adopt(folder), folder.Close())
}

func adopt(folder *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(folder.Fd()), &st); err != nil || st.Uid == 0 || os.Geteuid() != 0 {
		return err
	}
	names, err := folder.Readdirnames(-1)
	for _, name := range names {
		err = errors.Join(err, ownFile(folder, name, int(st.Uid), int(st.Gid), true))
	}
	return err
}
