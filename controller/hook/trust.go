package hook

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks is how many symbolic links a path may lead through, as in the kernel.
const maxLinks = 40

// trust opens files that only root can have changed: the file, all folders that lead to it and all symbolic links are
// root's, and nobody else may write to the file and the folders. Each is looked at by what is open, so that what was looked
// at is what is used, and never by its name again.
//
// The zero value is what programs use. Tests, whose files are below folders that others may write to and perhaps not
// root's, name the folder below which the rules hold, and the owner.
type trust struct {
	base  string
	owner uint32
	also  uint32 // another owner; 0 for none besides root
}

// errLink is the error of a file that is a symbolic link where none may be.
var errLink = errors.New("is a symbolic link: name the file that it leads to")

// open opens the file at an absolute path by O_PATH, which reads nothing and can be executed. The caller closes it.
func (t trust) open(path string) (*os.File, error) {
	w := walk{trust: t, rest: names(path)}
	defer w.closeDir()
	if err := w.root(); err != nil {
		return nil, err
	}
	for len(w.rest) > 0 {
		f, err := w.step()
		if f != nil || err != nil {
			return f, err
		}
	}
	return nil, fmt.Errorf("%s: is a folder", path)
}

// openDir opens a folder at an absolute path as open does.
func (t trust) openDir(path string) (*os.File, error) {
	w := walk{trust: t, rest: append(names(path), ".")}
	defer w.closeDir()
	if err := w.root(); err != nil {
		return nil, err
	}
	for len(w.rest) > 1 || len(w.rest) == 1 && w.rest[0] != "." {
		f, err := w.step()
		if err != nil {
			return nil, err
		}
		if f != nil {
			return nil, errors.Join(fmt.Errorf("%s: is no folder", path), f.Close())
		}
	}
	dir := w.dir
	w.dir = nil
	return dir, nil
}

func closed(f *os.File) error {
	if f == nil {
		return nil
	}
	return f.Close()
}

// names are the parts of a path.
func names(path string) []string {
	return strings.FieldsFunc(filepath.Clean(path), func(r rune) bool { return r == '/' })
}

// A walk is on its way from the root to a file.
type walk struct {
	trust
	dir   *os.File
	at    string // the path of dir; "" for the root
	rest  []string
	links int
}

func (w *walk) closeDir() { _ = closed(w.dir) } // opened by O_PATH: nothing can be lost

// root begins at the root.
func (w *walk) root() error {
	f, err := os.OpenFile("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	w.closeDir()
	w.dir, w.at = f, ""
	return w.check(f, "/", false)
}

// step goes to the next name. It gives a file that is no folder.
func (w *walk) step() (*os.File, error) {
	name := w.rest[0]
	w.rest = w.rest[1:]
	path := filepath.Clean(w.at + "/" + name) // dir has no links in its path
	f, err := openAt(w.dir, name, unix.O_PATH|unix.O_NOFOLLOW, 0, path)
	if err != nil {
		return nil, denied(err, fmt.Sprintf("pass this folder: chmod o+x %s", cmp.Or(w.at, "/")))
	}
	info, err := f.Stat()
	if err == nil {
		err = w.check(f, path, info.Mode()&fs.ModeSymlink != 0)
	}
	switch {
	case err != nil:
		return nil, errors.Join(err, f.Close())
	case info.IsDir():
		w.closeDir()
		w.dir, w.at = f, strings.TrimSuffix(path, "/")
		return nil, nil
	case info.Mode()&fs.ModeSymlink != 0:
		return nil, errors.Join(w.follow(f, path), f.Close())
	case len(w.rest) > 0 && !(len(w.rest) == 1 && w.rest[0] == "."):
		return nil, errors.Join(fmt.Errorf("%s: is no folder", path), f.Close())
	}
	return f, nil
}

// follow goes on where a symbolic link leads.
func (w *walk) follow(f *os.File, path string) error {
	if w.links++; w.links > maxLinks {
		return fmt.Errorf("%s: too many symbolic links", path)
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(f.Fd()), "", buf)
	if err != nil {
		return fmt.Errorf("read the link %s: %w", path, err)
	}
	to := string(buf[:n])
	var parts []string
	for _, name := range strings.Split(to, "/") { // not cleaned: ".." after a link is not what it seems
		if name != "" && name != "." {
			parts = append(parts, name)
		}
	}
	w.rest = append(parts, w.rest...)
	if filepath.IsAbs(to) {
		return w.root()
	}
	return nil
}

// check refuses what somebody else than the owner can change.
func (w *walk) check(f *os.File, path string, link bool) error {
	if w.exempt(path) {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return w.judge(path, st, link)
}

// judge looks at the owner and the mode of a file. A symbolic link has no mode of its own.
func (t trust) judge(path string, st unix.Stat_t, link bool) error {
	kind := "file"
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		kind = "folder"
	}
	if st.Uid != t.owner && (t.also == 0 || st.Uid != t.also) {
		return fmt.Errorf("%s: this %s is not root's but that of uid %d, who could have it do anything: chown root %s", path, kind, st.Uid, path)
	}
	if !link && st.Mode&0o022 != 0 {
		return fmt.Errorf("%s: others than root may write to this %s (mode %04o): chmod go-w %s", path, kind, st.Mode&0o7777, path)
	}
	return nil
}

// exempt says whether a path is the base of a test, or above it.
func (t trust) exempt(path string) bool {
	return t.base != "" && (path == "/" || path == t.base || strings.HasPrefix(t.base, path+"/"))
}

// openAt is openat(2), with the path for the error.
func openAt(dir *os.File, name string, flags int, mode uint32, path string) (*os.File, error) {
	for {
		fd, err := unix.Openat(int(dir.Fd()), name, flags|unix.O_CLOEXEC, mode)
		if err == nil {
			return os.NewFile(uintptr(fd), path), nil
		}
		if !errors.Is(err, unix.EINTR) {
			return nil, &fs.PathError{Op: "open", Path: path, Err: err}
		}
	}
}

// program opens a program at an absolute path, to be executed by what is open.
func (t trust) program(path string) (*os.File, error) {
	f, err := t.open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: install %s, or name another program", err, path)
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = fmt.Errorf("%s: is no file", path)
	case info.Mode()&0o111 == 0:
		err = fmt.Errorf("%s: is no program: nobody may execute it (mode %04o): chmod +x %s", path, info.Mode().Perm(), path)
	default:
		err = executable(f, info.Mode(), path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// executable says whether this process may execute what is open.
func executable(f *os.File, mode fs.FileMode, path string) error {
	err := unix.Access(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), unix.X_OK)
	if err != nil {
		err = denied(&fs.PathError{Op: "execute", Path: path, Err: err}, toExecute(mode, path))
	}
	return err
}

// toExecute is what to do for a program that this process may not execute. One
// that everybody may is on a file system mounted noexec.
func toExecute(mode fs.FileMode, path string) string {
	if mode&0o005 == 0o005 {
		return "run it: its file system is mounted noexec, which a unit does by NoExecPaths=: empty it in a drop-in, or let nftsentry-hook.service run the hooks"
	}
	return fmt.Sprintf("run it: chmod o+rx %s", path)
}

// denied adds to an error for want of a right whose right it is, and what to do to let him.
func denied(err error, to string) error {
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return fmt.Errorf("%w: let user %s %s", err, userName(), to)
}

// userName is the user that we run as, by name if there is one.
func userName() string {
	id := strconv.Itoa(os.Geteuid())
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}

// groupName is the group that we run as, by name if there is one.
func groupName() string {
	id := strconv.Itoa(os.Getegid())
	if g, err := user.LookupGroupId(id); err == nil {
		return g.Name
	}
	return id
}

// readOpen reads so many bytes at most of a file that is open by O_PATH.
func readOpen(f *os.File, most int64) ([]byte, error) {
	r, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(r, most))
	return data, errors.Join(err, r.Close())
}

// maxSecret is how long a file with a password may be, in bytes.
const maxSecret = 4096

// secret reads the first line of a file at an absolute path that others than its owner and its group cannot read.
func (t trust) secret(path string) (string, error) {
	f, err := t.open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%w: write the password into %s, or name another file", err, path)
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return "", err
	case !info.Mode().IsRegular():
		return "", fmt.Errorf("%s: is no file", path)
	case info.Mode()&0o007 != 0:
		return "", fmt.Errorf("%s: everybody may read this password (mode %04o): chmod o= %s", path, info.Mode().Perm(), path)
	}
	data, err := readOpen(f, maxSecret)
	if err != nil {
		return "", denied(fmt.Errorf("read %s: %w", path, err), fmt.Sprintf("read it, by his group: chgrp %s %s && chmod 0640 %s", groupName(), path, path))
	}
	line, _, _ := strings.Cut(string(data), "\n")
	if line = strings.TrimSuffix(line, "\r"); line == "" {
		return "", fmt.Errorf("%s: has no password in its first line", path)
	}
	return line, nil
}
