//go:build bench

package bench

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// How the rest is observed: some half-minutes, each of which has whatever the
// tools do once in a while. A look that is over in a millisecond may make fifty
// wake-ups instead of six if a thread of a runtime falls into other work of the
// machine, so the median counts.
const (
	restStarts  = 5
	restSettles = 10 * time.Second
	restWatched = 30 * time.Second
	restTimes   = 3
	restCase    = "at rest"
)

// TestBenchRest measures how long each tool takes from the start of its
// commands until it guards, and what it uses then, and later when nothing
// happens: all at the same time, each on a host of its own.
func TestBenchRest(t *testing.T) {
	r := record(t, "rest")
	guards := all()[1:]
	for range restStarts {
		each(t, guards, func(t *testing.T, g guard) {
			host := newWorld(t).server
			began := time.Now()
			running := g.start(t, host)
			r.add("start", g.name, "until it guards", "ms", milliseconds(time.Since(began)))
			r.add("start", g.name, "resident memory", "MiB", mebibytes(usageOf(t, running.pids).rss))
		})
	}
	resting := make(map[string]*running)
	for _, g := range guards {
		if len(g.absent()) == 0 {
			resting[g.name] = g.start(t, newWorld(t).server)
			r.add(restCase, g.name, "on disk, program or package", "MiB", mebibytes(sizeOf(t, g)))
		}
	}
	time.Sleep(restSettles)
	for range restTimes {
		watch(t, r, resting)
	}
}

// watch observes all that rest for a while.
func watch(t *testing.T, r *recorder, resting map[string]*running) {
	t.Helper()
	before := make(map[string]usage)
	for name, running := range resting {
		before[name] = usageOf(t, running.pids)
	}
	time.Sleep(restWatched)
	for _, g := range all()[1:] {
		running := resting[g.name]
		if running == nil {
			continue
		}
		was, is := before[g.name], usageOf(t, running.pids)
		if is.processes < len(running.pids) {
			t.Fatalf("%s has %d processes, want at least %d", g.name, is.processes, len(running.pids))
		}
		r.add(restCase, g.name, "resident memory", "MiB", mebibytes(is.rss))
		r.add(restCase, g.name, "resident memory, its own", "MiB", mebibytes(is.own))
		r.add(restCase, g.name, "processes", "", float64(is.processes))
		r.add(restCase, g.name, "wake-ups", "/s", float64(is.wakeups-was.wakeups)/restWatched.Seconds())
		r.add(restCase, g.name, "CPU", "% of a core", 100*(is.cpu-was.cpu).Seconds()/restWatched.Seconds())
	}
}

// sizeOf is the size of the program, or of a peer's package as dpkg has it,
// which is without what interprets it.
func sizeOf(t testing.TB, g guard) int {
	t.Helper()
	if g.name == sentry.name {
		info, err := os.Stat(os.Getenv(programEnv))
		if err != nil {
			t.Fatal(err)
		}
		return int(info.Size())
	}
	name, _, _ := strings.Cut(g.name, " ")
	out, err := exec.Command("dpkg-query", "-W", "-f", "${Installed-Size}", name).Output()
	if err != nil {
		t.Fatalf("dpkg-query %s: %v", name, err)
	}
	kib, err := strconv.Atoi(string(out))
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}
