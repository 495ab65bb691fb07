package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"nftsentry/state"
)

// A disk is what is known of the folder for the state, or of the one where it would be made.
type disk struct {
	path     string // of the folder
	at       string // what was looked at: path, or the nearest folder above that is there
	folder   bool   // at is a folder
	mode     fs.FileMode
	writable error // nil if the caller may write there
	readOnly bool
	memory   bool   // tmpfs or ramfs
	free     uint64 // bytes for everybody
	inodes   uint64
	counted  bool // the file system has a number of inodes
}

func (e *exam) checkState(context.Context) []Finding {
	d, err := lookAt(e.Config.State.Dir)
	if err != nil {
		return []Finding{check("state").fail("run it as root, or set state.dir to a folder elsewhere", "%v", err)}
	}
	return judgeState(d)
}

// lookAt looks at a folder. It writes nothing.
func lookAt(path string) (disk, error) {
	d := disk{path: path, at: path}
	info, err := os.Stat(path)
	for errors.Is(err, fs.ErrNotExist) && d.at != "/" {
		d.at = filepath.Dir(d.at)
		info, err = os.Stat(d.at)
	}
	if err != nil {
		return d, err
	}
	d.folder, d.mode = info.IsDir(), info.Mode().Perm()
	d.writable = unix.Faccessat(unix.AT_FDCWD, d.at, unix.W_OK|unix.X_OK, unix.AT_EACCESS)
	var s unix.Statfs_t
	if err := unix.Statfs(d.at, &s); err != nil {
		return d, fmt.Errorf("%s: %w", d.at, err)
	}
	d.readOnly = s.Flags&unix.ST_RDONLY != 0
	d.memory = s.Type == unix.TMPFS_MAGIC || s.Type == unix.RAMFS_MAGIC
	d.free, d.inodes, d.counted = s.Bavail*uint64(s.Bsize), s.Ffree, s.Files > 0
	return d, nil
}

// Room below which the store may soon fail, and below which it does.
const (
	lowRoom    = 64 << 20 // bytes
	noRoom     = 1 << 20
	lowInodes  = 64
	leastFiles = 8
)

func judgeState(d disk) []Finding {
	const c check = "state"
	const elsewhere = "or set state.dir to a folder elsewhere"
	switch {
	case !d.folder:
		return []Finding{c.fail("move it away, "+elsewhere, "%s is not a folder", d.at)}
	case d.readOnly:
		return []Finding{c.fail("mount it for writing, "+elsewhere, "%s is on a file system that is read-only", d.at)}
	case d.writable != nil:
		return []Finding{c.fail("run it as root, or as the owner of the folder", "%s cannot be written to: %v", d.at, d.writable)}
	case d.free < noRoom, d.counted && d.inodes < leastFiles:
		return []Finding{c.fail("make room, "+elsewhere, "%s is full: %d KiB and %d files are left; blocks would be lost at a restart", d.at, d.free>>10, d.inodes)}
	}
	return append(judgeRoom(c, d), judgeFolder(c, d)...)
}

func judgeRoom(c check, d disk) []Finding {
	if d.free < lowRoom || d.counted && d.inodes < lowInodes {
		return []Finding{c.warn("make room", "little room for %s: %d KiB and %d files are left", d.path, d.free>>10, d.inodes)}
	}
	return nil
}

func judgeFolder(c check, d disk) []Finding {
	var all []Finding
	if d.memory {
		all = append(all, c.warn("set state.dir to a folder on a disk", "%s is in memory: all blocks are forgotten at a reboot", d.path))
	}
	if d.at == d.path && d.mode&0o022 != 0 {
		all = append(all, c.warn("chmod go-w "+d.path, "%s (mode %#o) can be written to by others, who could unblock themselves", d.path, uint32(d.mode)))
	}
	if len(all) > 0 {
		return all
	}
	if d.at != d.path {
		return []Finding{c.ok("%s is not there yet; it can be made, with %d MiB left", d.path, d.free>>20)}
	}
	return []Finding{c.ok("%s can be written to, with %d MiB left", d.path, d.free>>20)}
}

// newestLine is the time of the newest block that the history tells of; zero for none.
func newestLine(dir string) time.Time {
	var newest time.Time
	f, err := os.Open(filepath.Join(dir, "portsentry.history"))
	if err != nil {
		return newest
	}
	defer f.Close()
	const tail = 64 << 10 // bytes; a few hundred blocks
	info, err := f.Stat()
	if err != nil {
		return newest
	}
	data, err := io.ReadAll(io.NewSectionReader(f, max(0, info.Size()-tail), tail))
	if err != nil {
		return newest
	}
	for line := range bytes.Lines(data) {
		if l, err := state.ParseLine(string(bytes.TrimSuffix(line, []byte("\n")))); err == nil && l.Time.After(newest) {
			newest = l.Time
		}
	}
	return newest
}
