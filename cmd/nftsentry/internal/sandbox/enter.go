package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// Rights of Landlock, https://docs.kernel.org/userspace-api/landlock.html
const (
	// handled are all rights on files of ABI 5. What no rule gives back is refused; to execute is in no rule.
	handled landlock.AccessFSSet = ll.AccessFSIoctlDev<<1 - 1

	read   landlock.AccessFSSet = ll.AccessFSReadFile
	list   landlock.AccessFSSet = ll.AccessFSReadFile | ll.AccessFSReadDir
	write  landlock.AccessFSSet = list | ll.AccessFSWriteFile | ll.AccessFSTruncate | ll.AccessFSMakeReg | ll.AccessFSRemoveFile
	remove landlock.AccessFSSet = ll.AccessFSRemoveFile
	mkdir  landlock.AccessFSSet = ll.AccessFSMakeDir
)

// ErrUnsupported means that this kernel has no Landlock, or was booted without it.
var ErrUnsupported = errors.New("this kernel has no Landlock")

// ABI is the version of Landlock's interface that the kernel has, 1 or more, or an error: ErrUnsupported, or why it
// cannot be asked.
func ABI() (int, error) {
	abi, err := ll.LandlockGetABIVersion()
	switch {
	case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EOPNOTSUPP):
		return 0, ErrUnsupported
	case err != nil:
		return 0, fmt.Errorf("ask for Landlock's version: %w", err)
	}
	return abi, nil
}

// A Sandbox is one that the process is in. It is not changed once it is made.
type Sandbox struct {
	abi     int
	folders map[place]struct{} // that are readable with all below them
	held    []*os.File
}

// A place is a folder, whatever it is called.
type place struct{ device, inode uint64 }

// Enter restricts all threads of the process to some files, for good. An older kernel restricts less, as ABI tells.
//
// Errors: ErrUnsupported, and whatever else keeps the process out of the sandbox; it is then as it was, but that it can
// get no new privileges by programs that it starts.
func Enter(r Rules) (*Sandbox, error) {
	abi, err := ABI()
	if err != nil {
		return nil, err
	}
	s := &Sandbox{abi: abi, folders: make(map[place]struct{})}
	rules := make([]landlock.Rule, 0, len(r.Follow)+len(r.Await)+len(r.Read)+len(r.Write)+len(r.Remove))
	for _, dir := range r.readable() {
		if at, err := placeOf(dir); err == nil {
			s.folders[at] = struct{}{}
		}
		rules = append(rules, landlock.PathAccess(read, dir).IgnoreIfMissing())
	}
	for _, path := range r.Read {
		rule, err := s.hold(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, errors.Join(err, s.release())
		}
		rules = append(rules, rule)
	}
	for _, path := range r.Write {
		rules = append(rules, writable(path))
	}
	rules = append(rules, landlock.PathAccess(remove, r.Remove...))
	if err := landlock.MustConfig(handled).BestEffort().RestrictPaths(rules...); err != nil {
		return nil, errors.Join(fmt.Errorf("keep this process from files that it does not need (Landlock): %w: "+
			"if a filter of system calls forbids it, have it allow landlock_create_ruleset, landlock_add_rule and landlock_restrict_self", err), s.release())
	}
	return s, nil
}

// hold keeps a file or folder open, and gives the rule that lets it be read.
func (s *Sandbox) hold(path string) (landlock.Rule, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	s.held = append(s.held, f)
	about, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if about.IsDir() {
		return landlock.PathAccess(list, path), nil
	}
	return landlock.PathAccess(read, path), nil
}

func writable(dir string) landlock.Rule {
	real, there := nearest(dir)
	if !there {
		return landlock.PathAccess(write|mkdir, real)
	}
	return landlock.PathAccess(write, real)
}

func (s *Sandbox) release() error {
	var errs []error
	for _, f := range s.held {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// ABI is the version of Landlock's interface that is in force, 1 or more.
func (s *Sandbox) ABI() int { return s.abi }

// Reads tells whether a file may be read where it lies now, or where it would be made, as far as the sandbox goes: its
// folder is readable, by itself and not by a name that another has now. It is true as long as the folder is missing.
func (s *Sandbox) Reads(path string) bool {
	dir, there := folderOf(path)
	if !there {
		return true
	}
	for {
		if at, err := placeOf(dir); err == nil {
			if _, ok := s.folders[at]; ok {
				return true
			}
		}
		if dir == filepath.Dir(dir) {
			return false
		}
		dir = filepath.Dir(dir)
	}
}

func placeOf(path string) (place, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return place{}, err
	}
	return place{uint64(st.Dev), st.Ino}, nil
}
