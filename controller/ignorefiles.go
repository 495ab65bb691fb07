package controller

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"strconv"
	"time"

	"github.com/gaissmai/bart"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// ErrUnlisted means that nobody is blocked because it is not known who is to
// be ignored.
var ErrUnlisted = errors.New("nothing is blocked while ignore.files cannot be read: \"nftsentry check\" says what is wrong with them")

// A ListedFile is a file that lists sources that are never blocked.
type ListedFile struct {
	Name string // for a person
	// Sources are masked prefixes without a zone, IPv4 as IPv4, and the line of
	// each, from 1.
	Sources iter.Seq2[int, netip.Prefix]
}

// Listed are the sources that files list. It never changes and may be used by
// many at once. A nil one is empty.
type Listed struct {
	table    *bart.Table[place]
	prefixes []netip.Prefix // in order
	files    []string       // their names
}

// A place is a line of one of the files.
type place struct{ file, line uint32 }

// NewListed takes in files. Of a prefix that is listed more than once, the
// first place counts.
func NewListed(files ...ListedFile) *Listed {
	l := &Listed{table: new(bart.Table[place])}
	for i, f := range files {
		l.files = append(l.files, f.Name)
		for number, p := range f.Sources {
			at := place{uint32(i), uint32(number)}
			l.table.Modify(p, func(first place, there bool) (place, bool) {
				if there {
					return first, false
				}
				return at, false
			})
		}
	}
	l.prefixes = make([]netip.Prefix, 0, l.table.Size())
	for p := range l.table.AllSorted() {
		l.prefixes = append(l.prefixes, p)
	}
	return l
}

// Size is how many different ones there are.
func (l *Listed) Size() int {
	if l == nil {
		return 0
	}
	return len(l.prefixes)
}

// covers finds the most special of them around a prefix.
func (l *Listed) covers(p netip.Prefix) (by netip.Prefix, at place, ok bool) {
	if l == nil {
		return netip.Prefix{}, place{}, false
	}
	return l.table.LookupPrefixLPM(p)
}

// reason is what a place is called, such as "portsentry.ignore.static:12".
func (l *Listed) reason(at place) string {
	return l.files[at.file] + ":" + strconv.FormatUint(uint64(at.line), 10)
}

// SetListed takes over what files list of sources that are never blocked, all
// of it in one transaction. Those that are listed now are unblocked; those that
// are not any more can be blocked again. It ends the time in which nothing is
// noticed or blocked because the files could not be read, but no panic.
//
// An error is the kernel's: the list is taken over all the same, and the kernel
// is brought in line with it as soon as it lets us.
func (c *Controller) SetListed(ctx context.Context, l *Listed) error {
	return c.call(ctx, func(answer func(error)) {
		began, waited := time.Now(), c.cfg.Unlisted
		c.cfg.Listed, c.cfg.Unlisted = l, false
		c.setHost(c.host)
		err := c.tellListed(waited)
		if err != nil {
			c.harm("it may ignore others than are listed", err)
			err = fmt.Errorf("tell the kernel who is ignored: %w", err)
		}
		c.endIgnored()
		c.log.Info("ignored sources", zap.Int("listed", l.Size()), zap.Int("all", c.ignored.size()), zap.Duration("took", time.Since(began)))
		answer(err)
	})
}

// tellListed tells the kernel who is ignored. After a time in which it had no
// blocks, it gets all of them.
func (c *Controller) tellListed(waited bool) error {
	if waited {
		c.rediscover()
		if err := c.load(); err != nil {
			return err
		}
		if !c.panicked {
			c.log.Info("it is known who is ignored: blocks and sensors are in force", zap.Int("blocks", c.blocks.len()))
			c.tell(Notice{What: Resumed, Reason: "it is known who is ignored: " + c.stance()})
		}
		return nil
	}
	err := c.kernel.SetHost(c.cfg.Table.Ignored, c.cfg.Table.OnLink6)
	if errors.Is(err, unix.ENOENT) {
		return c.makeAgain(err)
	}
	return err
}
