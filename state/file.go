package state

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// openFile opens a regular file, and nothing that somebody put in its place: no symbolic link is followed, no FIFO is
// waited for. It fits bbolt's Options.OpenFile.
func openFile(path string, flag int, perm os.FileMode) (*os.File, error) {
	f, err := os.OpenFile(path, flag|unix.O_NOFOLLOW|unix.O_NONBLOCK, perm)
	if errors.Is(err, unix.ELOOP) {
		return nil, fmt.Errorf("%s: is a symbolic link, which is not followed: remove it: %w", path, unix.ELOOP)
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s: is not a regular file: remove it", path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// appendLines appends whole lines to the file, which is opened by its name each time, as other programs may have
// replaced it. Flag may be os.O_CREATE, which makes the file with perm. It cuts off a line without its newline that the
// file ends in, and after an error takes back what it has written, so that the file never keeps a torn line.
func appendLines(path string, flag int, perm os.FileMode, lines []byte, sync bool) (err error) {
	f, err := openFile(path, os.O_RDWR|os.O_APPEND|flag, perm)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size, err := cutTorn(f)
	if err != nil {
		return err
	}
	_, err = f.Write(lines)
	if err == nil && sync {
		err = f.Sync()
	}
	if err != nil {
		return errors.Join(err, f.Truncate(size))
	}
	return nil
}

// cutTorn cuts off what follows the last newline of the file, at most one line, and returns the size that is left.
func cutTorn(f *os.File) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	size := info.Size()
	good, err := lastNewline(f, size)
	if err != nil || good == size {
		return size, err
	}
	return good, f.Truncate(good)
}

// lastNewline returns the offset after the last newline in the first size bytes of r; 0 if there is none.
func lastNewline(r io.ReaderAt, size int64) (int64, error) {
	buf := make([]byte, 4096)
	for n := int64(1); size > 0; n = int64(len(buf)) { // one byte will do as a rule
		n = min(n, size)
		if _, err := r.ReadAt(buf[:n], size-n); err != nil {
			return 0, err
		}
		if i := bytes.LastIndexByte(buf[:n], '\n'); i >= 0 {
			return size - n + int64(i) + 1, nil
		}
		size -= n
	}
	return 0, nil
}

// replaceFile puts a file with what write writes in the place of path, all at once. It is not synced: what it is used
// for is made anew at each start.
func replaceFile(path string, perm os.FileMode, write func(w *bufio.Writer) error) error {
	if info, err := os.Lstat(path); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("%s: is a symbolic link or no file at all, which is not replaced: remove it", path)
	}
	temp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".tmp")
	err := writeFile(temp, perm, write)
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		return errors.Join(err, removeFile(temp))
	}
	return nil
}

// writeFile makes a new file with exactly these permissions, whatever the umask; what a crash left there goes first.
func writeFile(path string, perm os.FileMode, write func(w *bufio.Writer) error) (err error) {
	if err := removeFile(path); err != nil {
		return err
	}
	f, err := openFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Chmod(perm); err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 64<<10)
	if err := write(w); err != nil {
		return err
	}
	return w.Flush()
}

// removeFile removes the file if it is there.
func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
