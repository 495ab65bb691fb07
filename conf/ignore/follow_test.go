package ignore

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/sync/errgroup"
)

// do is a step of a test that must succeed.
func do(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestFollow changes a file in all the ways in which people and programs do.
func TestFollow(t *testing.T) {
	for _, test := range []struct {
		name          string
		path          string // followed, in the folder of the test
		setup, change func(t *testing.T, dir string)
	}{
		{"written in place", "list", func(t *testing.T, dir string) { write(t, dir+"/list", "192.0.2.1\n") },
			func(t *testing.T, dir string) { write(t, dir+"/list", "192.0.2.2\n") }},
		{"another moved over it", "list", func(t *testing.T, dir string) { write(t, dir+"/list", "192.0.2.1\n") },
			func(t *testing.T, dir string) {
				write(t, dir+"/list.new", "192.0.2.2\n")
				do(t, os.Rename(dir+"/list.new", dir+"/list"))
			}},
		{"deleted and made again", "list", func(t *testing.T, dir string) { write(t, dir+"/list", "192.0.2.1\n") },
			func(t *testing.T, dir string) {
				do(t, os.Remove(dir+"/list"))
				write(t, dir+"/list", "192.0.2.2\n")
			}},
		{"comes later", "list", func(*testing.T, string) {},
			func(t *testing.T, dir string) { write(t, dir+"/list", "192.0.2.2\n") }},
		{"comes later with its folders", "a/b/list", func(*testing.T, string) {},
			func(t *testing.T, dir string) {
				do(t, os.MkdirAll(dir+"/a/b", 0o700))
				write(t, dir+"/a/b/list", "192.0.2.2\n")
			}},
		{"link to another", "list", func(t *testing.T, dir string) {
			write(t, dir+"/one", "192.0.2.1\n")
			write(t, dir+"/two", "192.0.2.2\n")
			do(t, os.Symlink("one", dir+"/list"))
		}, func(t *testing.T, dir string) {
			do(t, os.Symlink("two", dir+"/list.new"))
			do(t, os.Rename(dir+"/list.new", dir+"/list"))
		}},
		{"written behind a link", "list", func(t *testing.T, dir string) {
			do(t, os.Mkdir(dir+"/far", 0o700))
			write(t, dir+"/far/one", "192.0.2.1\n")
			do(t, os.Symlink(dir+"/far/one", dir+"/list"))
		}, func(t *testing.T, dir string) { write(t, dir+"/far/one", "192.0.2.2\n") }},
		{"link comes before its target", "list", func(t *testing.T, dir string) { do(t, os.Symlink("far/one", dir+"/list")) },
			func(t *testing.T, dir string) {
				do(t, os.Mkdir(dir+"/far", 0o700))
				write(t, dir+"/far/one", "192.0.2.2\n")
			}},
		{"link on the way", "now/list", func(t *testing.T, dir string) {
			for _, name := range []string{"one", "two"} {
				do(t, os.Mkdir(filepath.Join(dir, name), 0o700))
			}
			write(t, dir+"/one/list", "192.0.2.1\n")
			write(t, dir+"/two/list", "192.0.2.2\n")
			do(t, os.Symlink("one", dir+"/now"))
		}, func(t *testing.T, dir string) {
			do(t, os.Symlink("two", dir+"/now.new"))
			do(t, os.Rename(dir+"/now.new", dir+"/now"))
		}},
		{"its folder in the place of another", "now/list", func(t *testing.T, dir string) {
			for _, name := range []string{"now", "two"} {
				do(t, os.Mkdir(filepath.Join(dir, name), 0o700))
			}
			write(t, dir+"/now/list", "192.0.2.1\n")
			write(t, dir+"/two/list", "192.0.2.2\n")
		}, func(t *testing.T, dir string) {
			do(t, os.Rename(dir+"/now", dir+"/old"))
			do(t, os.Rename(dir+"/two", dir+"/now"))
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			test.setup(t, dir)
			file := filepath.Join(dir, test.path)
			looks := follow(t, file)
			<-looks // the first comes without a change
			test.change(t, dir)
			await(t, looks, "192.0.2.2/32")
			write(t, file, "192.0.2.3\n") // it goes on after the change
			await(t, looks, "192.0.2.3/32")
		})
	}
}

// follow has a file followed until the test ends. What is read at each look is sent.
func follow(t *testing.T, file string) <-chan string {
	t.Helper()
	looks := make(chan string, 100)
	f := NewFollower([]string{file}, zap.NewNop())
	ctx, cancel := context.WithCancel(context.Background())
	var g errgroup.Group
	g.Go(func() error {
		return f.Run(ctx, func(context.Context) bool {
			list, err := Read([]string{file})
			var found []string
			if err == nil {
				for _, e := range list[0].Entries {
					found = append(found, e.Prefix.String())
				}
			}
			looks <- strings.Join(found, " ")
			return true
		})
	})
	t.Cleanup(func() {
		cancel()
		if err := g.Wait(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return looks
}

func await(t *testing.T, looks <-chan string, want string) {
	t.Helper()
	late := time.After(50 * time.Second) // less than the look each minute
	for {
		select {
		case got := <-looks:
			if got == want {
				return
			}
		case <-late:
			t.Fatalf("not seen within 50 s: %s", want)
		}
	}
}

// TestFollowOthers has a follower turn to other files.
func TestFollowOthers(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/one", "")
	looks := make(chan []stamp, 100)
	f := NewFollower([]string{dir + "/one"}, zap.NewNop())
	ctx, cancel := context.WithCancel(context.Background())
	var g errgroup.Group
	g.Go(func() error {
		return f.Run(ctx, func(context.Context) bool {
			looks <- f.stamps
			return true
		})
	})
	first := <-looks
	f.Follow([]string{dir + "/one", dir + "/two"})
	if second := <-looks; len(first) != 1 || len(second) != 2 {
		t.Errorf("%d files, then %d, want 1 and 2", len(first), len(second))
	}
	write(t, dir+"/two", "")
	if third := <-looks; third[1].err != nil {
		t.Errorf("the file that came later: %v", third[1].err)
	}
	cancel()
	if err := g.Wait(); err != nil {
		t.Errorf("Run: %v", err)
	}
}

// TestWait shows that a burst of changes wakes once, that others' changes do not, and that nothing happens at rest.
func TestWait(t *testing.T) {
	const name = "/etc/list"
	for _, test := range []struct {
		name  string
		sends func(events chan fsnotify.Event, errs chan error)
		want  time.Duration
	}{
		{"rest", func(chan fsnotify.Event, chan error) {}, lookEvery},
		{"others", func(events chan fsnotify.Event, _ chan error) {
			for range 100 {
				events <- fsnotify.Event{Name: "/etc/other"}
				time.Sleep(time.Second)
			}
		}, lookEvery},
		{"one", func(events chan fsnotify.Event, _ chan error) { events <- fsnotify.Event{Name: name} }, quiet},
		{"burst", func(events chan fsnotify.Event, _ chan error) {
			for range 3 {
				events <- fsnotify.Event{Name: name}
				time.Sleep(quiet / 2)
			}
		}, 2 * quiet},
		{"no end", func(events chan fsnotify.Event, _ chan error) {
			for range 100 {
				select {
				case events <- fsnotify.Event{Name: name}:
				case <-time.After(time.Second):
					return
				}
				time.Sleep(quiet / 2)
			}
		}, longest},
		{"events lost", func(_ chan fsnotify.Event, errs chan error) { errs <- fsnotify.ErrEventOverflow }, quiet},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				events, errs := make(chan fsnotify.Event, 200), make(chan error, 1)
				f := NewFollower(nil, zap.NewNop())
				f.watcher = &fsnotify.Watcher{Events: events, Errors: errs}
				f.names = map[string]struct{}{name: {}}
				var g errgroup.Group
				g.Go(func() error { test.sends(events, errs); return nil })
				began := time.Now()
				if !f.wait(t.Context(), lookEvery) || time.Since(began) != test.want {
					t.Errorf("woke after %v, want %v", time.Since(began), test.want)
				}
				_ = g.Wait()
			})
		})
	}
}

// TestRetry shows that a look that could not do its work is made again a second later, without a change.
func TestRetry(t *testing.T) {
	dir := t.TempDir()
	f := NewFollower([]string{dir + "/list"}, zap.NewNop())
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	looks := 0
	began := time.Now()
	if err := f.Run(ctx, func(context.Context) bool {
		if looks++; looks == 2 {
			cancel()
		}
		return false
	}); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); looks != 2 || took < tryEvery || took > lookEvery/2 {
		t.Errorf("%d looks in %v, want the second after %v", looks, took, tryEvery)
	}
}

// TestComplain says once that the kernel does not tell of changes, and looks all the same.
func TestComplain(t *testing.T) {
	core, logs := observer.New(zap.WarnLevel)
	f := NewFollower(nil, zap.New(core))
	for range 3 {
		f.complain(fsnotify.ErrClosed)
	}
	if logs.Len() != 1 {
		t.Errorf("said %d times, want once", logs.Len())
	}
	f.watch([]string{"/list"}) // without a watcher
}

func TestPlaces(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	do(t, err)
	do(t, os.MkdirAll(dir+"/a/b", 0o700))
	write(t, dir+"/a/b/file", "")
	do(t, os.Symlink("b/../b/file", dir+"/a/link"))
	do(t, os.Symlink(dir+"/a", dir+"/way"))
	do(t, os.Symlink("loop", dir+"/loop"))
	do(t, os.Symlink("gone/file", dir+"/dangling"))
	for path, want := range map[string]string{
		"a/b/file":    "a/b/file",
		"a/link":      "a/link a/b/file",
		"way/link":    "way a/link a/b/file",
		"dangling":    "dangling gone",
		"none":        "none",
		"none/at/all": "none",
		"a/b/file/x":  "a/b/file",
		"loop":        strings.TrimSpace(strings.Repeat("loop ", maxLinks+1)),
	} {
		got := places(filepath.Join(dir, path))
		for i := range got {
			got[i], _ = filepath.Rel(dir, got[i])
		}
		if diff := cmp.Diff(strings.Fields(want), got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
	}
	if !slices.Equal(places("/"), nil) {
		t.Errorf("places of the root: %v", places("/"))
	}
}
