package hook

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode"

	"golang.org/x/sys/unix"
)

const (
	// maxDeny is how large hosts.deny may be, in bytes.
	maxDeny = 16 << 20
	// denyTries is how often a rewriting begins anew because somebody else has changed the file meanwhile.
	denyTries = 3
)

// A denier is a sink that keeps lines in hosts.deny.
type denier struct {
	HostsDeny
	trust trust
	// between is for tests: it is called between the reading and the writing.
	between func()
}

var _ sink = (*denier)(nil)

func newDenier(c HostsDeny, t trust) (*denier, error) {
	t.also = c.Owner
	d := &denier{HostsDeny: c, trust: t, between: func() {}}
	switch {
	case !filepath.IsAbs(c.File):
		return nil, errors.New("file must be an absolute path")
	case !strings.Contains(c.Line, token) || strings.ContainsFunc(c.Line, unicode.IsControl) || strings.HasSuffix(c.Line, `\`):
		return nil, fmt.Errorf("line must be one line with %s in it", token)
	}
	dir, err := t.openDir(filepath.Dir(c.File))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	old, err := d.read(dir)
	if err != nil {
		return nil, err
	}
	if _, _, err := parseSection(old.text); err != nil {
		return nil, fmt.Errorf("%s: %w", c.File, err)
	}
	return d, d.writable(dir, old)
}

// writable says whether the file can be replaced by this process, and if not how to keep the addresses elsewhere.
func (d *denier) writable(dir *os.File, old denyFile) error {
	err := unix.Access(fmt.Sprintf("/proc/self/fd/%d", dir.Fd()), unix.W_OK)
	self := os.Geteuid()
	switch {
	case err == nil && old.there && self != 0 && int(old.stat.Uid) != self:
		return fmt.Errorf("%s: this file is of uid %d, and user %s cannot put another of his in its place: chown %s %s",
			d.File, old.stat.Uid, userName(), userName(), d.File)
	case errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EROFS):
		return fmt.Errorf("%s: user %s cannot write in this folder (%w): keep the addresses in a file of his own, by "+
			"file = %q and line = %q in [hook.hosts_deny], and put the line \"ALL: %s : DENY\" into %s yourself, once",
			d.File, userName(), err, ownDeny, token, ownDeny, d.File)
	case err != nil:
		return fmt.Errorf("%s: %w", filepath.Dir(d.File), err)
	}
	return nil
}

// ownDeny is where a user without rights can keep addresses for hosts.deny.
const ownDeny = "/var/lib/nftsentry-hook/hosts"

// errChanged is the error of a file that somebody else has changed in between.
var errChanged = errors.New("somebody else goes on changing the file")

// do changes the lines as a job says, in one rewriting.
func (d *denier) do(ctx context.Context, j *job) error {
	dir, err := d.trust.openDir(filepath.Dir(d.File))
	if err != nil {
		return err
	}
	defer dir.Close()
	for range denyTries {
		err = d.rewrite(dir, j)
		if !errors.Is(err, errChanged) || ctx.Err() != nil {
			break
		}
	}
	return err
}

// rewrite reads the file, and puts a new one in its place if it has to be another.
func (d *denier) rewrite(dir *os.File, j *job) error {
	old, err := d.read(dir)
	if err != nil {
		return err
	}
	ours, rest, err := parseSection(old.text)
	if err != nil {
		return fmt.Errorf("%s: %w", d.File, err)
	}
	if j.only {
		ours = make(section)
	}
	for p, there := range j.changes {
		if there {
			ours[p] = true
		} else {
			delete(ours, p)
		}
	}
	text := ours.text(d.Line, rest)
	if text == old.text {
		return nil
	}
	if len(text) > maxDeny {
		return fmt.Errorf("%s: would be larger than 16 MiB: shorten the line of hook.hosts_deny, or let blocks end sooner", d.File)
	}
	d.between()
	if err := d.replace(dir, old, text); err != nil {
		return fmt.Errorf("write %s: %w", d.File, err)
	}
	return nil
}

// A denyFile is what was read: the text of the file and what it was.
type denyFile struct {
	there bool
	stat  unix.Stat_t
	text  string
}

// read reads the file, which need not be there. It must be a file that only root can change, and no symbolic link.
func (d *denier) read(dir *os.File) (denyFile, error) {
	f, err := openAt(dir, filepath.Base(d.File), unix.O_PATH|unix.O_NOFOLLOW, 0, d.File)
	if errors.Is(err, fs.ErrNotExist) {
		return denyFile{}, nil
	}
	if err != nil {
		return denyFile{}, err
	}
	defer f.Close()
	out := denyFile{there: true}
	if err := unix.Fstat(int(f.Fd()), &out.stat); err != nil {
		return denyFile{}, fmt.Errorf("%s: %w", d.File, err)
	}
	switch out.stat.Mode & unix.S_IFMT {
	case unix.S_IFREG:
	case unix.S_IFLNK:
		return denyFile{}, fmt.Errorf("%s: %w", d.File, errLink)
	default:
		return denyFile{}, fmt.Errorf("%s: is no file", d.File)
	}
	if err := d.trust.judge(d.File, out.stat, false); err != nil {
		return denyFile{}, err
	}
	data, err := readOpen(f, maxDeny+1)
	if err == nil && len(data) > maxDeny {
		err = fmt.Errorf("larger than %d MiB", maxDeny>>20)
	}
	if err != nil {
		return denyFile{}, fmt.Errorf("read %s: %w", d.File, err)
	}
	out.text = string(data)
	return out, nil
}

// replace puts a new file with a text in the place of the old one, with its owner and mode: whoever reads it finds either.
func (d *denier) replace(dir *os.File, old denyFile, text string) error {
	temp := "." + filepath.Base(d.File) + ".nftsentry"
	if err := unix.Unlinkat(int(dir.Fd()), temp, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	real, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", dir.Fd())) // to sync it
	if err != nil {
		return err
	}
	defer real.Close()
	if err := d.fill(dir, temp, old, text); err != nil {
		return errors.Join(err, ignoreMissing(unix.Unlinkat(int(dir.Fd()), temp, 0)))
	}
	if !d.same(dir, old) {
		return errors.Join(errChanged, ignoreMissing(unix.Unlinkat(int(dir.Fd()), temp, 0)))
	}
	if err := unix.Renameat(int(dir.Fd()), temp, int(dir.Fd()), filepath.Base(d.File)); err != nil {
		return errors.Join(err, ignoreMissing(unix.Unlinkat(int(dir.Fd()), temp, 0)))
	}
	return real.Sync()
}

func ignoreMissing(err error) error {
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// fill writes the new file, and has it on the disk.
func (d *denier) fill(dir *os.File, temp string, old denyFile, text string) error {
	f, err := openAt(dir, temp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, 0o600, d.File)
	if err != nil {
		return err
	}
	mode := fs.FileMode(0o644)
	if old.there {
		mode = fs.FileMode(old.stat.Mode & 0o777)
		err = giveTo(f, old.stat)
	}
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		_, err = f.WriteString(text)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// giveTo makes a new file that of the owner of an old one. One who has no right to do so need not, if it is.
func giveTo(f *os.File, old unix.Stat_t) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	if st.Uid == old.Uid && st.Gid == old.Gid {
		return nil
	}
	return f.Chown(int(old.Uid), int(old.Gid))
}

// same says whether the file is still what was read.
func (d *denier) same(dir *os.File, old denyFile) bool {
	var st unix.Stat_t
	err := unix.Fstatat(int(dir.Fd()), filepath.Base(d.File), &st, unix.AT_SYMLINK_NOFOLLOW)
	if !old.there {
		return errors.Is(err, unix.ENOENT)
	}
	return err == nil && st.Ino == old.stat.Ino && st.Dev == old.stat.Dev && st.Size == old.stat.Size && st.Mtim == old.stat.Mtim &&
		st.Ctim == old.stat.Ctim
}
