package selftest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"nftsentry/conf"
	"nftsentry/nft"
)

// A Subject is what is tested.
type Subject struct {
	Config conf.Config
	File   string         // "" for the built-in defaults
	Listed []netip.Prefix // by ignore.files
	Dir    string         // an empty folder, for the test alone
}

// Run tests a configuration. The caller is in namespaces of its own, and keeps no other goroutine that changes them. It
// takes some seconds; when ctx ends, nothing is left but the folder.
func Run(ctx context.Context, s Subject) (report Report, err error) {
	runtime.LockOSThread() // the daemon ends with the thread that starts it
	defer runtime.UnlockOSThread()
	report = Report{Config: s.File, Mode: string(s.Config.Mode), Notes: []string{}, Trials: []Trial{}}
	s.Config.Ignore.Sources = append(s.Config.Ignore.Sources, s.Listed...)
	if err := unix.Mount("", s.Dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=700"); err != nil {
		report.Notes = append(report.Notes, fmt.Sprintf("the folder of the test is on disk, and not in memory: %v", err))
	}
	notes, err := isolate(s)
	if err != nil {
		return report, err
	}
	report.Notes = append(report.Notes, notes...)
	err = run(ctx, s, &report)
	if ctx.Err() != nil {
		err = context.Cause(ctx) // whatever it has led to
	}
	if err == nil && !watches(report.Trials) {
		report.Notes = append(report.Notes, "no scan is noticed, as this configuration has neither decoys nor watched ports: see tcp.decoy, tcp.watch and tcp.exclude")
	}
	report.Passed = err == nil && passed(report.Trials)
	return report, err
}

// budget is how many blocks on unproven evidence a test may need.
var budget = 2 * len(kinds)

// isolate writes the configuration of the test: that of the host, but for what reaches others.
func isolate(s Subject) (notes []string, err error) {
	var data []byte
	if s.File != "" {
		info, err := os.Stat(s.File)
		if err == nil && !info.Mode().IsRegular() {
			err = fmt.Errorf("%s: not a regular file: a test reads it more than once: write it to a file first", s.File)
		}
		if err == nil {
			data, err = os.ReadFile(s.File)
		}
		if err != nil {
			return nil, fmt.Errorf("read the configuration: %w", err)
		}
	}
	values := map[string]any{
		"state.dir": filepath.Join(s.Dir, folder), "control.socket": filepath.Join(s.Dir, fileSocket), "control.group": "",
	}
	if b := s.Config.Trigger.Budget; b.Count < budget {
		values["trigger.budget"] = conf.Rate{Count: budget, Per: b.Per}.String()
		notes = append(notes, fmt.Sprintf("trigger.budget = %q is too small for a test of all kinds: %d for the test", b, budget))
	}
	data, err = conf.Rewrite(data, values, "hook", "metrics")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.File, err)
	}
	if _, err := conf.Parse("the configuration of the test", data); err != nil {
		return nil, err
	}
	return notes, os.WriteFile(filepath.Join(s.Dir, fileConfig), data, 0o600)
}

// run makes the hosts, starts the daemon and makes all trials.
func run(ctx context.Context, s Subject, report *Report) (err error) {
	l := &lab{cfg: s.Config, patience: waiting, settle: settling}
	if l.world, err = openWorld(s.Config, len(kinds)); err != nil {
		return fmt.Errorf("make a world to test in: %w", err)
	}
	defer func() { err = errors.Join(err, l.world.close()) }()
	if len(l.world.families) < 2 {
		report.Notes = append(report.Notes, "this host has no IPv6, which was left out")
	}
	if l.daemon, err = startDaemon(ctx, l.world.guarded, s.Dir); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.daemon.stop()) }()
	if l.table, err = nft.Open(l.world.guarded.FD(), s.Config.Block.Prefix6); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.table.Close()) }()
	for i, k := range kinds {
		for _, f := range l.world.families {
			t, err := l.try(ctx, k, f, i)
			if err = cmp.Or(err, ctx.Err()); err != nil {
				return err
			}
			report.Trials = append(report.Trials, t)
		}
	}
	return nil
}

// Longest is how long a test may take; on a machine with nothing else to do it takes some seconds.
const Longest = 2 * time.Minute

// ErrTooLong is the cause of the end of a context after that.
var ErrTooLong = fmt.Errorf("the test is not done after %s: try it again when this host has less to do, or with smaller trigger.ports and trigger.connects", Longest)
