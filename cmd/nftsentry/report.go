package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"nftsentry/controller/api"
	"nftsentry/state"
)

// Rows of each list.
const (
	textRows = 10
	htmlRows = 15
)

// reportFlags are those of the command report.
type reportFlags struct {
	last, since, until string
	html               string // file; "-" for standard output, "" for none
}

func newReport(o *options) *cobra.Command {
	var f reportFlags
	cmd := &cobra.Command{
		Use:   "report [FILE]",
		Short: "Show what happened in the last day, week or month",
		Long: `Report shows what happened in the last day, week or month, compared with the
one before: blocks, probes and drops over time, and the ports, scan kinds,
sources and networks that they were about.

It is a text, or with --json an object, or with --html one page that needs
nothing else and no script: on standard output, or in FILE, which is replaced
all at once. Totals are exact; long lists hold what comes most often. Times are
local. What is counted by the hour is kept for 35 days, then by the day for 400.`,
		Example: `  nftsentry report
  nftsentry report --last week --html /var/www/scans.html
  nftsentry report --since 2026-11-02 --until 2026-11-09
  nftsentry report --last month --json | jq '.ports.rows[0]'
  nftsentry report | mail -s "scans of $(hostname)" root     # in /etc/cron.daily`,
		Args: arguments(0, 1, "one file at most"),
		RunE: func(cmd *cobra.Command, args []string) error { return o.showReport(cmd, f, args) },

		ValidArgsFunction: completeFile,
	}
	cmd.Flags().StringVar(&f.last, "last", "day", "the last `day`, week or month")
	cmd.Flags().StringVar(&f.since, "since", "", "from a `time` on: a date, date and hour, or how long ago, such as 36h")
	cmd.Flags().StringVar(&f.until, "until", "", "up to a `time`, with --since (default: now)")
	cmd.Flags().StringVar(&f.html, "html", "", "write HTML to the `file` that follows, or to standard output")
	cmd.Flags().Lookup("html").NoOptDefVal = "-"
	_ = cmd.RegisterFlagCompletionFunc("html", completeFile) // the flag is there
	return o.prints(o.asks(cmd))
}

// file is where the HTML goes: "" if none is wanted, "-" for standard output.
func (f reportFlags) file(args []string, json bool) (string, error) {
	switch {
	case f.html == "" && len(args) > 0:
		return "", usagef("what is %q for? write --html %s to have the report in that file, or --last %[1]s for that time", args[0], args[0])
	case f.html != "" && json:
		return "", usagef("--html and --json are two forms of the report: write one of them")
	case f.html != "" && f.html != "-" && len(args) > 0:
		return "", usagef("two files, %s and %s: write one of them", f.html, args[0])
	case len(args) > 0 && args[0] == "":
		return "", usagef("--html \"\": write the name of a file")
	case len(args) > 0:
		return args[0], nil
	}
	return f.html, nil
}

// period is the one that the flags ask for.
func (f reportFlags) period(lastGiven bool, now time.Time) (period, error) {
	switch {
	case f.since == "" && f.until != "":
		return period{}, usagef("--until %q needs --since: write both", f.until)
	case f.since != "" && lastGiven:
		return period{}, usagef("--last and --since are two ways to say which time: write one of them")
	case f.since != "":
		return spanPeriod(f.since, f.until, now)
	}
	return lastPeriod(f.last, now)
}

// showReport asks for a report and writes it in the form that is wanted.
func (o *options) showReport(cmd *cobra.Command, f reportFlags, args []string) error {
	file, err := f.file(args, o.json)
	if err != nil {
		return err
	}
	p, err := f.period(cmd.Flags().Changed("last"), time.Now())
	if err != nil {
		return err
	}
	r, err := o.askReport(cmd.Context(), p.ReportRequest)
	if err != nil {
		return err
	}
	switch {
	case o.json:
		return o.out.json(r)
	case file == "":
		return newReportView(r, p, time.Local, textRows).text(o.out.data)
	}
	var page bytes.Buffer
	if err := newReportView(r, p, time.Local, htmlRows).html(&page); err != nil {
		return err
	}
	if file != "-" {
		return writeWhole(file, page.Bytes())
	}
	if _, err := o.out.data.Write(page.Bytes()); err != nil {
		return fmt.Errorf("write to standard output: %w", err)
	}
	return nil
}

// askReport asks the daemon. If none runs, and no socket was named, it reads
// what the last one has left.
func (o *options) askReport(ctx context.Context, r api.ReportRequest) (api.Report, error) {
	client, err := o.client()
	if err != nil {
		return api.Report{}, err
	}
	out, err := client.Report(ctx, r)
	if !errors.Is(err, api.ErrNoDaemon) || o.socket != "" {
		return out, err
	}
	cfg, _, loadErr := o.load()
	if loadErr != nil {
		return api.Report{}, loadErr
	}
	left, readErr := state.OpenTally(cfg.State.Dir)
	if errors.Is(readErr, fs.ErrNotExist) || errors.Is(readErr, state.ErrLocked) {
		return api.Report{}, err
	}
	if errors.Is(readErr, fs.ErrPermission) {
		return api.Report{}, fmt.Errorf("%w; no right to read what it has left: run as root: %w", api.ErrNoDaemon, readErr)
	}
	if readErr != nil {
		return api.Report{}, fmt.Errorf("%w, and what it has left cannot be read: %w", api.ErrNoDaemon, readErr)
	}
	out, err = readReport(left, r)
	return out, errors.Join(err, left.Close())
}

// writeWhole puts a file with these contents in the place of another, all at
// once: who reads it sees the old one or the new one.
func writeWhole(path string, data []byte) (err error) {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return usagef("%s: is not a regular file, and is not replaced: name another, or use --html alone for standard output", path)
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real // the file behind a link is replaced, not the link
	}
	temp := filepath.Join(filepath.Dir(path), fmt.Sprintf(".%s.%d.tmp", filepath.Base(path), os.Getpid()))
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("write %s: %w", path, errors.Join(err, os.Remove(temp)))
		}
	}()
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(temp, path)
}
