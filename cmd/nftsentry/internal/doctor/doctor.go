package doctor

import (
	"context"
	"time"

	"go.uber.org/zap"

	"nftsentry/conf"
	"nftsentry/controller/api"
	"nftsentry/controller/host"
	"nftsentry/nft"
	"nftsentry/nft/survey"
)

// A Subject is what is examined, besides the host itself.
type Subject struct {
	Config   conf.Config
	File     string // "" for the built-in defaults
	Mistakes error  // in the file; Config then has the defaults
	Version  string // of this program
	// Table is what the configuration means for the kernel, with a decoy listener at a port.
	Table func(port uint16) nft.Config
	// LockGroup is the NFLOG group that the daemon of a network namespace holds.
	LockGroup uint16
	Panicked  bool           // blocks are suspended
	Hooks     int            // that are configured
	HooksErr  error          // what is wrong with the programs and files that hooks need
	Ignored   []string       // what is wrong with ignore.files
	Hidden    conf.PortRange // where the decoy listener looks for a port
}

// An exam is an examination under way: what several checks look at, each with the error of looking.
type exam struct {
	Subject
	proc   host.Proc
	rights rights

	daemon    api.Status
	daemonErr error
	blocks    []api.Block // that the daemon knows of

	ruleset    survey.Ruleset
	rulesetErr error

	facts    host.Facts
	factsErr error

	services    []host.Service
	servicesErr error

	holders map[uint64]host.Process // of sockets, those that the caller may know
}

// Examine makes all checks. It takes a second at the most, or as long as the daemon takes to answer, and changes
// nothing.
func Examine(ctx context.Context, s Subject) []Finding {
	e := &exam{Subject: s, proc: host.NewProc("/proc"), rights: ownRights()}
	e.look(ctx)
	var all []Finding
	for _, c := range []func(context.Context) []Finding{
		e.checkConfig, e.checkIgnored, e.checkHooks, e.checkRights, e.checkKernel, e.checkFeatures, e.checkTable, e.checkChains, e.checkPrograms, e.checkLegacy,
		e.checkIPv6, e.checkConntrack, e.checkGroups, e.checkState, e.checkDaemon, e.checkSandbox, e.checkClock, e.checkGuards, e.checkSSH,
		e.checkDecoys,
	} {
		all = append(all, c(ctx)...)
	}
	return all
}

// daemonTimeout is how long the daemon may take to answer.
const daemonTimeout = 5 * time.Second

// look gathers what several checks need.
func (e *exam) look(ctx context.Context) {
	asking, cancel := context.WithTimeout(ctx, daemonTimeout)
	defer cancel()
	client := api.NewClient(e.Config.Control.Socket)
	if e.daemon, e.daemonErr = client.Status(asking); e.running() {
		e.blocks, _ = client.List(asking) // the status has told whether it works
	}
	if e.rights.admin {
		e.ruleset, e.rulesetErr = survey.Read(0)
	}
	w := host.New(zap.NewNop())
	e.facts, e.factsErr = w.Read()
	e.services, e.servicesErr = w.Services()
	e.holders, _ = e.proc.Holders() // who is not found is "another program"
}

// running tells whether the daemon answers.
func (e *exam) running() bool { return e.daemonErr == nil }

// ours is our table as it is in the kernel.
func (e *exam) ours() (survey.Table, bool) { return e.ruleset.Table("inet", nft.TableName) }
