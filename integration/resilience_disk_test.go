package integration

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// A disk is what may become of the state folder.
type disk struct {
	before func(t *testing.T, p *program) // before the daemon starts
	during func(t *testing.T, p *program) // while it runs
	heal   func(t *testing.T, p *program) // what somebody does about it; nil if nothing is needed
	want   string                         // in the log, once; and, unless all is well by itself, in the problems
}

var disks = map[string]disk{
	"full at the start": {
		before: func(t *testing.T, p *program) { tmpfs(t, p, "size=64k", 0); stuff(t, p) },
		heal:   func(t *testing.T, p *program) { must(t, os.Remove(p.state("filler"))) },
		want:   "no space left on device",
	},
	"full later": {
		before: func(t *testing.T, p *program) { tmpfs(t, p, "size=64k", 0) },
		during: stuff,
		heal:   func(t *testing.T, p *program) { must(t, os.Remove(p.state("filler"))) },
		want:   "no space left on device",
	},
	"read-only": {
		before: func(t *testing.T, p *program) { tmpfs(t, p, "size=1m", unix.MS_RDONLY) },
		heal: func(t *testing.T, p *program) {
			must(t, unix.Mount("", p.state(""), "", unix.MS_REMOUNT, "size=1m"))
		},
		want: "read-only file system",
	},
	"written by a newer version": {
		before: func(t *testing.T, p *program) {
			p.remember()
			db, err := bolt.Open(p.state("nftsentry.db"), 0o600, nil)
			must(t, err, db.Update(func(tx *bolt.Tx) error { return tx.Bucket([]byte("meta")).Put([]byte("format"), []byte("3")) }), db.Close())
		},
		heal: func(t *testing.T, p *program) { must(t, os.Rename(p.state("nftsentry.db"), p.state("newer"))) },
		want: "written by a newer nftsentry",
	},
	"deleted": {
		during: func(t *testing.T, p *program) { // all that is in the folder: the folder itself a daemon in its sandbox cannot make anew
			files, err := filepath.Glob(p.state("*"))
			must(t, err)
			for _, file := range files {
				must(t, os.Remove(file))
			}
		},
		want: "the store was gone from its place: it was written anew",
	},
	"garbage": {
		before: func(t *testing.T, p *program) {
			p.remember()
			must(t, os.WriteFile(p.state("nftsentry.db"), bytes.Repeat([]byte("garbage\n"), 5000), 0o600))
		},
		want: "the store was damaged",
	},
}

// TestResilienceDisk blocks while the disk does not take it, and sees that
// nothing is missing when it does.
func TestResilienceDisk(t *testing.T) {
	for name, disk := range disks {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			everywhere(t, w)
			p := newProgram(t, w.server, "")
			if disk.before != nil {
				disk.before(t, p)
			}
			d := p.run()
			d.must("list")
			open := d.descriptors()
			if disk.during != nil {
				disk.during(t, p)
			}
			all := blockOn(t, w, d, disk.heal != nil)
			if disk.heal != nil {
				eventually(t, "status tells of it", patience, func() bool {
					s := d.health()
					return len(s.Problems) == 1 && strings.Contains(s.Problems[0], "not all on disk") && strings.Contains(s.Problems[0], disk.want)
				})
			}
			if got := d.lines(disk.want); got != 1 {
				t.Errorf("%q is logged in %d lines, want one", disk.want, got)
			}
			if disk.heal != nil {
				disk.heal(t, p)
			}
			caughtUp(t, d, all)
			eventually(t, fmt.Sprintf("%d descriptors are open, not %d", open, d.descriptors()), patience, func() bool { return d.descriptors() <= open+2 })
			d.end(unix.SIGKILL)
			if got := p.recorded(); !slices.Equal(got, all) {
				t.Errorf("on record %v, want %v", got, all)
			}
		})
	}
}

// blockOn blocks by a decoy and by commands, and returns the sources in order.
func blockOn(t *testing.T, w *world, d *daemon, unsaved bool) (all []string) {
	t.Helper()
	const touches, commands = 15, 5
	for i := range touches {
		source := fmt.Sprintf("10.16.0.%d", i+1)
		_, _ = touch(w.client, source, server4, 23)
		all = append(all, source)
	}
	var g errgroup.Group
	for i := range commands {
		source := fmt.Sprintf("203.0.113.%d", i+1)
		all = append(all, source)
		g.Go(func() error {
			r := d.command("block", source)
			if !unsaved && r.code != 0 || unsaved && (r.code != 1 || !strings.Contains(r.stderr, "done in the kernel, but not yet on disk")) {
				t.Errorf("block %s: %+v", source, r)
			}
			return nil
		})
	}
	_ = g.Wait()
	slices.Sort(all)
	kernel := held(t, w.server, "blocked4")
	for _, source := range all {
		if kernel[netip.MustParseAddr(source)] == 0 {
			t.Errorf("%s is not in the kernel", source)
		}
	}
	return all
}

// lines is how many lines of the log have a text.
func (d *daemon) lines(text string) (n int) {
	for line := range strings.Lines(d.log.String()) {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

// caughtUp waits until all that is blocked is in the text file, and nothing
// is wrong any more.
func caughtUp(t *testing.T, d *daemon, all []string) {
	t.Helper()
	began := time.Now()
	eventually(t, "all is on the disk", patience, func() bool {
		text, _ := os.ReadFile(d.state("portsentry.blocked.tcp"))
		return bytes.Count(text, []byte("\n")) == len(all) && len(d.health().Problems) == 0
	})
	t.Logf("all is on the disk after %v", time.Since(began).Round(time.Millisecond))
	text := d.file("portsentry.blocked.tcp")
	for _, source := range all {
		if !strings.Contains(text, "Host: "+source+"/"+source+" ") {
			t.Errorf("the file lacks %s", source)
		}
	}
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// tmpfs mounts a file system of its own as the state folder.
func tmpfs(t *testing.T, p *program, data string, flags uintptr) {
	t.Helper()
	must(t, os.MkdirAll(p.state(""), 0o755), unix.Mount("tmpfs", p.state(""), "tmpfs", flags, data))
	t.Cleanup(func() { _ = unix.Unmount(p.state(""), unix.MNT_DETACH) })
}

// stuff fills the file system of the state folder to the last byte.
func stuff(t *testing.T, p *program) {
	t.Helper()
	f, err := os.Create(p.state("filler"))
	must(t, err)
	for size := 4096; size > 0; {
		if _, err := f.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
	must(t, f.Close())
}
