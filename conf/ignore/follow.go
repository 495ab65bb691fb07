package ignore

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// How a Follower waits.
const (
	quiet     = 200 * time.Millisecond // without another change, before the files are looked at
	longest   = time.Second            // that it waits for such quiet
	lookEvery = time.Minute            // without any change, for what no event tells, as of a folder that was moved
	tryEvery  = time.Second            // after a failure
)

// A Follower notices that files have changed, by the events that the kernel sends of the folders they lie in. Without
// events it sleeps, but for a look at the files each minute. It never opens them.
type Follower struct {
	log   *zap.Logger
	moved chan struct{} // of size 1: that paths is another; filled by Follow; never closed

	mu    sync.Mutex
	paths []string // absolute; guarded by mu

	// All below belongs to Run.
	watcher *fsnotify.Watcher   // nil if there can be none
	names   map[string]struct{} // whose events count
	failed  string              // why a folder cannot be watched, which has been said
	stamps  []stamp             // of the files, as of the last look
}

// NewFollower makes a follower of files by their absolute paths, whether or not they exist.
func NewFollower(paths []string, log *zap.Logger) *Follower {
	return &Follower{log: log, moved: make(chan struct{}, 1), paths: paths}
}

// Follow has it follow other files from now on.
func (f *Follower) Follow(paths []string) {
	f.mu.Lock()
	f.paths = paths
	f.mu.Unlock()
	select {
	case f.moved <- struct{}{}:
	default: // it will see these
	}
}

// followed are the files to follow now.
func (f *Follower) followed() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.paths
}

// Run calls look once, and then whenever the files may have changed, until ctx ends; then it returns nil. Look tells
// whether it could do its work: if not it is called again a second later. Changes that come shortly one after another
// make one call. Run is called once.
func (f *Follower) Run(ctx context.Context, look func(context.Context) (done bool)) error {
	var err error
	if f.watcher, err = fsnotify.NewWatcher(); err != nil {
		f.complain(err)
	} else {
		defer f.watcher.Close()
	}
	done := false
	for first := true; ; first = false {
		paths := f.followed()
		f.watch(paths)
		stamps := stampsOf(paths) // before they are read: what changes meanwhile is seen the next time
		if first || !done || !slices.Equal(stamps, f.stamps) {
			f.stamps = stamps
			done = look(ctx)
		}
		pause := lookEvery
		if !done {
			pause = tryEvery
		}
		if !f.wait(ctx, pause) {
			return nil
		}
	}
}

// wait waits for a change and then for quiet, or for the end of a pause. It is false once ctx has ended.
func (f *Follower) wait(ctx context.Context, pause time.Duration) bool {
	var events <-chan fsnotify.Event
	var errs <-chan error
	if f.watcher != nil {
		events, errs = f.watcher.Events, f.watcher.Errors
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	var first time.Time // change since the wait began
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return true
		case <-f.moved:
			return true
		case e := <-events:
			if _, counts := f.names[e.Name]; !counts {
				continue
			}
		case <-errs: // events were lost
		}
		now := time.Now()
		if first.IsZero() {
			first = now
		}
		timer.Reset(min(quiet, first.Add(longest).Sub(now)))
	}
}

// watch has the kernel tell of the folders that matter now. What has become of them meanwhile is taken in, too.
func (f *Follower) watch(paths []string) {
	const rounds = 8 // nobody moves folders as fast as that but to annoy
	for range rounds {
		names, folders := placesOf(paths)
		if f.watcher != nil {
			f.add(folders)
		}
		same := maps.Equal(names, f.names)
		if f.names = names; same {
			return
		}
	}
}

// placesOf gives the names whose events count, and the folders they are in.
func placesOf(paths []string) (names, folders map[string]struct{}) {
	names, folders = make(map[string]struct{}), make(map[string]struct{})
	for _, path := range paths {
		for _, place := range places(path) {
			folder := filepath.Dir(place)
			folders[folder], names[place], names[folder] = struct{}{}, struct{}{}, struct{}{}
		}
	}
	return names, folders
}

// add watches folders and no others. One that has come in the place of another has its name, so that all are added
// each time.
func (f *Follower) add(folders map[string]struct{}) {
	for _, old := range f.watcher.WatchList() {
		if _, still := folders[old]; !still {
			_ = f.watcher.Remove(old) // an error says that it is gone already
		}
	}
	for folder := range folders {
		if err := f.watcher.Add(folder); err != nil && !errors.Is(err, fs.ErrNotExist) {
			f.complain(err)
			return
		}
	}
	f.failed = ""
}

// complain says once that changes are seen late.
func (f *Follower) complain(err error) {
	if f.failed == err.Error() {
		return
	}
	f.failed = err.Error()
	f.log.Warn("cannot be told at once of changes of ignore.files: they are looked at every "+lookEvery.String()+
		"; more fs.inotify.max_user_instances or max_user_watches may help, see sysctl(8)", zap.Error(err))
}

// A stamp changes whenever a file does.
type stamp struct {
	device, inode uint64
	size          int64
	mtime, ctime  unix.Timespec
	err           error // a unix.Errno
}

func stampsOf(paths []string) []stamp {
	out := make([]stamp, len(paths))
	for i, path := range paths {
		var s unix.Stat_t
		if err := unix.Stat(path, &s); err != nil {
			out[i] = stamp{err: err}
			continue
		}
		out[i] = stamp{device: uint64(s.Dev), inode: s.Ino, size: s.Size, mtime: s.Mtim, ctime: s.Ctim}
	}
	return out
}
