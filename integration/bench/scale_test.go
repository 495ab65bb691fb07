//go:build bench

package bench

import (
	"cmp"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nftsentry/integration/netns"
)

// scaleEnv names other numbers of blocks than the usual, and how often all is
// done with each, such as "1000x5,50000x2".
const scaleEnv = "NFTSENTRY_BENCH_SCALE"

// scaleUsual is what is done otherwise.
const scaleUsual = "1000x5,10000x5,100000x5,1000000x1"

// tooLong is after how long whatever is measured here is cut off.
const tooLong = time.Minute

// A keeper is a tool that holds many blocks, or a way to have it do so.
type keeper struct {
	name  string
	needs []string // programs without which it is left out
	// open makes it ready to block a crowd on the server.
	open func(t testing.TB, w *world, c *crowd) *keeping
}

// A keeping is a keeper at work. What it has no means for is nil.
type keeping struct {
	// block blocks all of the crowd at once, of whom nobody is blocked yet.
	block func(t testing.TB) cost
	// lists are its ways to list them all.
	lists []listing
	// restart ends and starts it, while the kernel keeps what it has.
	restart func(t testing.TB) cost
	// reboot ends it, and takes all that it has in the kernel.
	reboot func(t testing.TB)
	// restore has it block all of them again after that.
	restore func(t testing.TB) cost
	// more measures what else it does beside so many.
	more func(t testing.TB, add func(measure, unit string, values ...float64))
	pids func() []int // the processes that last
	dir  string       // where it keeps them on disk
}

// A listing is a command that lists all that are blocked.
type listing struct {
	tool string
	form string // such as " as JSON"; "" is for people
	args []string
}

// keepers are in the order of tables.
var keepers = []keeper{keepSentry, keepTable, keepNft, keepIPSet, keepBouncer}

// TestBenchScale measures how all grows with the number of blocked sources: to
// block them all at once, to restore them after a reboot, to list them, what
// each takes in memory and on disk, to block one more, and what a packet costs.
// IPv4 addresses from all over the world are blocked for an hour each.
//
// What takes longer than a minute is cut off and recorded as "time, more than";
// it is not tried again, nor with more blocks.
func TestBenchScale(t *testing.T) {
	s := &scale{recorder: record(t, "scale"), slow: make(map[string]bool)}
	present := s.present()
	most := 0
	for _, step := range steps(t) {
		most = max(most, step.blocks)
		for range step.rounds {
			for _, k := range present {
				t.Run(fmt.Sprintf("%s, %d blocks", k.name, step.blocks), func(t *testing.T) { s.round(t, k, step.blocks) })
			}
		}
	}
	t.Run("packets", func(t *testing.T) { s.packets(t, most) })
}

// A step is a number of blocks, and how often all is done with so many.
type step struct{ blocks, rounds int }

// steps are those that are asked for.
func steps(t *testing.T) (all []step) {
	t.Helper()
	for word := range strings.SplitSeq(cmp.Or(os.Getenv(scaleEnv), scaleUsual), ",") {
		var s step
		if _, err := fmt.Sscanf(word, "%dx%d", &s.blocks, &s.rounds); err != nil || s.blocks < 100 {
			t.Fatalf("%s: %q: want at least 100 blocks and how often, such as %s", scaleEnv, word, scaleUsual)
		}
		all = append(all, s)
	}
	return all
}

// A scale is the experiment under way.
type scale struct {
	*recorder
	slow map[string]bool // what was cut off
}

// present are the keepers that are installed; the others are named.
func (s *scale) present() (present []keeper) {
	for _, k := range keepers {
		if missing := (guard{needs: k.needs}).absent(); len(missing) > 0 {
			s.t.Logf("%s is left out: %v is not installed; make bench-deps installs it", k.name, missing)
			continue
		}
		present = append(present, k)
	}
	return present
}

// round has a keeper do all once.
func (s *scale) round(t *testing.T, k keeper, n int) {
	if s.slow[k.name+" block"] {
		t.Skip("it took too long before")
	}
	w, c := newWorld(t), newCrowd(t, n)
	g := k.open(t, w, c)
	add := func(kase string) func(measure, unit string, values ...float64) {
		return func(measure, unit string, values ...float64) { s.add(kase, k.name, measure, unit, values...) }
	}
	unix.Sync() // what the files of the crowd leave to be written is no part of it
	before := g.held(t)
	defer func() { g.reboot(t); vacate(t, before.kernel, n) }()
	took := s.timed(t, fmt.Sprintf("block %d sources", n), k.name, "block", g.block)
	if took == 0 {
		return
	}
	s.add(fmt.Sprintf("block %d sources", n), k.name, "rate", "sources/s", float64(n)/took.Seconds())
	g.held(t).since(before, n, add(fmt.Sprintf("%d blocks in place", n)))
	s.lists(t, g, w.server, c)
	if g.more != nil {
		g.more(t, add(fmt.Sprintf("%d blocks in place", n)))
	}
	if g.restart != nil {
		s.timed(t, fmt.Sprintf("start with %d blocks in the kernel", n), k.name, "restart", g.restart)
	}
	g.reboot(t)
	vacate(t, before.kernel, n)
	s.timed(t, fmt.Sprintf("restore %d blocks after a reboot", n), k.name, "restore", g.restore)
}

// timed records what something has taken; 0 if it was cut off.
func (s *scale) timed(t testing.TB, kase, tool, what string, do func(testing.TB) cost) time.Duration {
	t.Helper()
	if s.slow[tool+" "+what] {
		return 0
	}
	c := do(t)
	if c.cut = c.cut || c.took > tooLong; c.cut {
		s.slow[tool+" "+what] = true
		s.t.Logf("%s: %s is cut off after %v, and left out from here on", kase, tool, tooLong)
		s.add(kase, tool, "time, more than", "s", c.took.Seconds())
		return 0
	}
	s.add(kase, tool, "time", "s", c.took.Seconds())
	if c.peak > 0 {
		s.add(kase, tool, "peak memory", "MiB", mebibytes(c.peak))
	}
	return c.took
}

// lists has a keeper list all, and sees that it does.
func (s *scale) lists(t *testing.T, g *keeping, host *netns.Host, c *crowd) {
	t.Helper()
	for _, l := range g.lists {
		s.timed(t, fmt.Sprintf("list %d blocks%s", len(c.addrs), l.form), l.tool, "list", func(t testing.TB) cost {
			out := c.path("list")
			c1 := spend(t, host, "", out, l.args...)
			if got := dots(t, out); !c1.cut && got < 3*len(c.addrs) {
				t.Fatalf("%s lists %d addresses, want %d", l.tool, got/3, len(c.addrs))
			}
			return c1
		})
	}
}
