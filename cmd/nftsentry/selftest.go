package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"nftsentry/cmd/nftsentry/internal/selftest"
	"nftsentry/conf/ignore"
	"nftsentry/integration/namespace"
)

// Variables by which selftest tells itself that it is in namespaces of its
// own, and where its folder is.
const (
	selftestEnv    = "NFTSENTRY_SELFTEST_PARENT_NETNS"
	selftestDirEnv = "NFTSENTRY_SELFTEST_DIR"
)

func newSelftest(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "selftest",
		Short: "Scan yourself, in a network of its own, and tell what comes of it",
		Long: `Selftest runs this program with your configuration in a network namespace of its
own, and sends it each kind of scan from another one, over IPv4 and IPv6: what
was noticed, after how many probes it was blocked and how fast, whether the
source got no answer any more, and whether it was let go again.

Nothing of this host is changed: not its network, not its firewall, not a daemon
that runs. Hooks, metrics, state.dir and control.socket are not those of the
configuration. It needs root, or a kernel that allows user namespaces.

What the configuration does not watch is told as "not watched", and what it only
logs as "would be". Exit status: 0 if all is as configured, 1 if not.`,
		Example: "  nftsentry selftest\n  nftsentry selftest -c ./nftsentry.toml\n  nftsentry selftest --json | jq '.trials[] | select(.outcome == \"failed\")'",
		Args:    arguments(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if parent := os.Getenv(selftestEnv); parent != "" {
				return o.selftestInside(cmd.Context(), parent)
			}
			return selftestOutside()
		},
	}
	return o.prints(cmd)
}

// selftestOutside runs the same command again in namespaces of its own. The
// folder is made here, and taken away whatever becomes of the other.
func selftestOutside() (err error) {
	dir, err := os.MkdirTemp("", "nftsentry-selftest-")
	if err != nil {
		return fmt.Errorf("make a folder for the test: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.Setenv(selftestDirEnv, dir); err != nil {
		return err
	}
	code, err := namespace.Again(selftestEnv, namespace.RootFirst)
	switch {
	case err != nil:
		return fmt.Errorf("no network of its own for the test: %w: run it as root, or allow user namespaces (sysctl user.max_user_namespaces)", err)
	case code == exitDone:
		return nil
	case code == exitUsage:
		return &usageError{errSilent}
	case code == 128+int(unix.SIGPIPE):
		return errSilent // who reads has seen enough
	case code > 128:
		return fmt.Errorf("the test was ended by signal %d", code-128)
	}
	return errSilent
}

// selftestInside makes the test.
func (o *options) selftestInside(ctx context.Context, parent string) error {
	if err := namespace.Enter(selftestEnv, parent); err != nil {
		return fmt.Errorf("%w: run it as root (sysctl kernel.apparmor_restrict_unprivileged_userns=0 would allow others, too)", err)
	}
	cfg, file, err := o.load()
	if err != nil {
		return err
	}
	list, err := ignore.Read(cfg.Ignore.Files)
	if err != nil {
		return err
	}
	var listed []netip.Prefix
	for _, f := range list {
		for _, p := range f.All() {
			listed = append(listed, p)
		}
	}
	ctx, stop := signal.NotifyContext(ctx, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)
	defer stop()
	ctx, cancel := context.WithTimeoutCause(ctx, selftest.Longest, selftest.ErrTooLong)
	defer cancel()
	report, err := selftest.Run(ctx, selftest.Subject{Config: cfg, File: file, Listed: listed, Dir: os.Getenv(selftestDirEnv)})
	if err != nil {
		return err
	}
	if err := o.printSelftest(report); err != nil {
		return err
	}
	if !report.Passed {
		return errSilent
	}
	return nil
}

func (o *options) printSelftest(r selftest.Report) error {
	if o.json {
		return o.out.json(r)
	}
	heading := []string{"KIND", "FAMILY", "RESULT", "NOTICED", "BLOCKED", "PROBES", "TIME", "DROPPED", "RELEASED"}
	var rows [][]string
	for _, t := range r.Trials {
		rows = append(rows, trialRow(t))
	}
	if err := o.out.table(heading, rows); err != nil {
		return err
	}
	for _, note := range r.Notes {
		o.out.message(errors.New(note))
	}
	for _, t := range r.Trials {
		if t.Problem != "" {
			o.out.message(fmt.Errorf("%s over %s: %s", t.Kind, t.Family, t.Problem))
		}
	}
	return nil
}

// trialRow has "-" for what does not apply.
func trialRow(t selftest.Trial) []string {
	row := []string{t.Kind, t.Family, strings.ReplaceAll(string(t.Outcome), " ", "-"), "-", "-", "-", "-", "-", "-"}
	if t.Outcome == selftest.NotWatched {
		return row
	}
	row[3], row[4] = yesNo(t.Noticed), strings.ReplaceAll(string(t.Blocked), " ", "-")
	if t.Probes > 0 {
		row[5] = strconv.Itoa(t.Probes)
	}
	if t.Microseconds > 0 {
		row[6] = strconv.FormatInt(t.Microseconds, 10) + "us"
	}
	if t.Blocked == selftest.Yes {
		row[7], row[8] = yesNo(t.Dropped), yesNo(t.Released)
	}
	return row
}

func yesNo(yes bool) string {
	if yes {
		return "yes"
	}
	return "no"
}
