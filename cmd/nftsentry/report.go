package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

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
	if file == "-" || isStdout(file) {
		return o.out.raw(page.Bytes())
	}
	return writeWhole(file, page.Bytes())
}

// isStdout tells whether a file is what standard output goes to, under another
// name such as /dev/stdout: to replace it would take it from the shell.
func isStdout(path string) bool {
	there, err := os.Stat(path)
	out, outErr := os.Stdout.Stat()
	return err == nil && outErr == nil && os.SameFile(there, out)
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
// once: who reads it sees the old one or the new one. Who may read it, and whose
// it is, stays as it was.
func writeWhole(path string, data []byte) error {
	real, err := filepath.EvalSymlinks(path) // the file behind a link is replaced, not the link
	if errors.Is(err, fs.ErrNotExist) {
		real, err = path, nil
	}
	var old fs.FileInfo
	if err == nil {
		old, err = os.Stat(real)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		old, err = nil, nil
	case err == nil && !old.Mode().IsRegular():
		return usagef("%s: is not a regular file, and is not replaced: name another, or use --html alone for standard output", path)
	}
	if err == nil {
		err = replace(real, old, data)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w: %s", path, bareError(err), remedy(err))
	}
	return nil
}

// bareError is an error of the system without the names of temporary files.
func bareError(err error) error {
	var number syscall.Errno
	if errors.As(err, &number) {
		return number
	}
	return err
}

// remedy is what to do about a file that cannot be written.
func remedy(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		return "make its folder first, or name another file"
	case errors.Is(err, fs.ErrPermission), errors.Is(err, unix.EROFS):
		return "run as a user who may write to its folder, or name another file"
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return "make room, or name a file elsewhere"
	}
	return "name another file, or use --html alone for standard output"
}

// replace writes a new file beside the old one, and gives it its name. Old is
// nil if there is none.
func replace(path string, old fs.FileInfo, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".nftsentry-report-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(data)
	if err == nil {
		err = resemble(f, old)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// resemble gives a file the owner and the rights of another; nil is for one
// that is made anew.
func resemble(f *os.File, old fs.FileInfo) error {
	if old == nil {
		mask := unix.Umask(0o077) // there is no other way to ask
		unix.Umask(mask)
		return f.Chmod(0o644 &^ fs.FileMode(mask))
	}
	if stat, ok := old.Sys().(*syscall.Stat_t); ok {
		if err := f.Chown(int(stat.Uid), int(stat.Gid)); err != nil {
			return err
		}
	}
	return f.Chmod(old.Mode().Perm())
}
