//go:build bench

package bench

import (
	"math"
	"net/netip"
	"os/exec"
	"slices"
	"testing"
	"time"

	"nftsentry/integration/netns"
)

// A guard is a tool that guards a host, or a way to run one, with its own
// default configuration or the one that its documentation tells to use.
type guard struct {
	name  string   // as in all tables, such as "portsentry stcp"
	needs []string // programs without which it is left out
	// version is what the tool says of itself, without its name: "1.2".
	version func(t testing.TB) string
	// lag is how long it may take the tool to look at what has come; 0 where it
	// does so at once.
	lag time.Duration
	// lasts is how many seconds a first block on forged packets is, with the
	// settings that start has; forever where nothing ends it.
	lasts float64
	// start has it guard a host until the test ends, and returns when it does.
	start func(t testing.TB, host *netns.Host) *running
}

// forever is what nothing ends.
var forever = math.Inf(1)

// A running is a guard at work.
type running struct {
	// pids are the processes that were started for it; their descendants
	// count with them. It is empty where only the kernel works.
	pids []int
	// ports are TCP ports that no service owns, and of which connecting to one
	// makes it block: for guards that need several, in the order to touch.
	ports []uint16
	// closed are TCP ports that no service owns, and of which a SYN to each, in
	// this order, makes it block. It is empty where only connections do, or nothing.
	closed []uint16
	// watched are the TCP ports whose closed ones make it block when they are
	// touched, as often as ports or closed say. It is nil where that is not known.
	watched func(t testing.TB) map[uint16]bool
	// fail has the log of sshd, where the tool reads it, tell of as many failed
	// logins of a source as make it block. It is nil for tools that read no log.
	fail func(t testing.TB, source netip.Addr)
	// block has the kernel hold blocks of the strangers from one number to
	// another, in the form in which the tool blocks. It is nil for those that
	// block nobody.
	block func(t testing.TB, from, to int)
	// forgive ends all blocks and has it forget all that it knows of sources.
	forgive func(t testing.TB)
}

// absent names the programs that a guard needs and that are not installed.
func (g guard) absent() (missing []string) {
	for _, name := range g.needs {
		if _, err := exec.LookPath(name); err != nil {
			missing = append(missing, name)
		}
	}
	return missing
}

// each runs f with each of the guards that is installed, the others are named.
// It is a test of its own for each, so that what one has started is gone before
// the next begins.
func each(t *testing.T, guards []guard, f func(t *testing.T, g guard)) {
	t.Helper()
	for _, g := range guards {
		t.Run(g.name, func(t *testing.T) {
			if missing := g.absent(); len(missing) > 0 {
				t.Skipf("%s is left out: %v is not installed; make bench-deps installs it", g.name, missing)
			}
			f(t, g)
		})
	}
}

// unguarded is the floor: a host with an empty ruleset.
var unguarded = guard{
	name: "none", version: func(testing.TB) string { return "" },
	start: func(testing.TB, *netns.Host) *running { return &running{forgive: func(testing.TB) {}} },
}

// all are the guards in the order of tables.
func all() []guard { return slices.Concat([]guard{unguarded, sentry}, peers) }

// peers are the tools that people use today; the file of each adds it.
var peers []guard
