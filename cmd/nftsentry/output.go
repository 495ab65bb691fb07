package main

// What the program says, and where:
//
//   - Data goes to standard output, nothing else does. A table is for a
//     terminal; in a pipe each row is one line with tabs between its fields
//     and no heading. --json prints one JSON value whose fields stay as they are.
//   - Messages go to standard error as "nftsentry: what is wrong: what to do".
//     No stack, no usage text: a hint names the help that would.
//   - Exit status 0: done. 1: could not be done. 2: asked for in a wrong way,
//     a wrong configuration included. 3: the daemon ended because it has lost
//     the right to nftables, and to start it again does not help.

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"go.uber.org/zap/zapcore"
	"golang.org/x/sys/unix"

	"nftsentry/conf"
	"nftsentry/conf/ignore"
	"nftsentry/controller"
	"nftsentry/controller/api"
)

const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
	exitDenied = 3
)

// output is where the program writes.
type output struct {
	data     io.Writer
	messages io.Writer
	terminal bool // data is for a person's eyes
	color    bool // data may have colors
}

func stdio() *output {
	terminal := isTerminal(os.Stdout)
	return &output{data: os.Stdout, messages: os.Stderr, terminal: terminal, color: colored(terminal)}
}

// isTerminal asks as isatty(3) does.
func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// A usageError is a command line that cannot be understood.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...)}
}

// errSilent ends the program with a failure that has been reported already.
var errSilent = errors.New("reported already")

// isUsage tells whether an error is the fault of who asked.
func isUsage(err error) bool {
	var usage *usageError
	var wrong conf.Errors
	var list ignore.Errors
	var request *api.RequestError
	var socket *api.SocketError
	return errors.As(err, &usage) || errors.As(err, &wrong) || errors.As(err, &list) || errors.As(err, &request) || errors.As(err, &socket)
}

// finish reports how a command ended and gives the exit status for it.
func (o *output) finish(err error) int {
	if err == nil {
		return exitDone
	}
	if !errors.Is(err, errSilent) {
		o.say(zapcore.ErrorLevel, err)
	}
	switch {
	case isUsage(err):
		return exitUsage
	case errors.Is(err, controller.ErrDenied):
		return exitDenied
	}
	return exitFailed
}

// message prints what is wrong and does not end the command, a line for each of
// its lines.
func (o *output) message(err error) { o.say(zapcore.WarnLevel, err) }

// say prints an error; the level is for the journal.
func (o *output) say(level zapcore.Level, err error) {
	prefix := "nftsentry: "
	if toJournal(o.messages) {
		prefix = priority(level) + prefix
	}
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(o.messages, "%s%s\n", prefix, strings.TrimSuffix(line, "\n"))
	}
}

// json prints a value for programs.
func (o *output) json(v any) error {
	enc := json.NewEncoder(o.data)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("write to standard output: %w", err)
	}
	return nil
}

// jsonLine prints a value for programs that read a line at a time.
func (o *output) jsonLine(v any) error {
	enc := json.NewEncoder(o.data)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("write to standard output: %w", err)
	}
	return nil
}

// raw prints what is ready to be printed.
func (o *output) raw(text []byte) error {
	if _, err := o.data.Write(text); err != nil {
		return fmt.Errorf("write to standard output: %w", err)
	}
	return nil
}

// table prints rows under a heading on a terminal, and as plain lines elsewhere.
func (o *output) table(heading []string, rows [][]string) error {
	var err error
	if o.terminal {
		w := tabwriter.NewWriter(o.data, 0, 0, 2, ' ', 0)
		for _, row := range append([][]string{heading}, rows...) {
			fmt.Fprintln(w, strings.Join(row, "\t"))
		}
		err = w.Flush()
	} else {
		var b strings.Builder
		for _, row := range rows {
			b.WriteString(strings.Join(row, "\t") + "\n")
		}
		_, err = io.WriteString(o.data, b.String())
	}
	if err != nil {
		return fmt.Errorf("write to standard output: %w", err)
	}
	return nil
}

// facts prints names and what they are, one a line.
func (o *output) facts(rows [][2]string) error {
	var b strings.Builder
	width := 0
	for _, r := range rows {
		width = max(width, len(r[0]))
	}
	for _, r := range rows {
		fmt.Fprintf(&b, "%-*s  %s\n", width, r[0], r[1])
	}
	if _, err := io.WriteString(o.data, b.String()); err != nil {
		return fmt.Errorf("write to standard output: %w", err)
	}
	return nil
}

// plural is "1 thing" or "3 things".
func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
