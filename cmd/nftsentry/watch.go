package main

import (
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"nftsentry/conf"
	"nftsentry/controller/api"
)

func newWatch(o *options) *cobra.Command {
	var events, kinds, sources, ports []string
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "Show what happens, as it happens",
		Long: `Watch shows events as they come, until it is interrupted or the daemon ends:

  probe        a tripwire was touched; that is not enough for a block yet
  exempted     likewise, by a peer, whose unproven evidence does not count
  ignored      a tripwire was touched by a source that is never blocked
  repeated     a tripwire was touched by a source that is blocked already
  sentence     a source is about to be blocked
  block        a source is blocked
  extend       a block that is in force got another end
  unblock      a block has ended
  would-block  what would be blocked, in observe mode or by respond = "log"
  run          what is left to the hooks by respond = "run"
  doubt        unproven evidence is not trusted for now, as its budget is spent
  trust        it is trusted again
  heal         our table was mended after others had touched it
  reload       another configuration holds; one that is refused changes nothing
  panic        nothing is noticed or blocked from now on
  resume       that is over
  stop         the daemon ends, and this command with it
  lost         this reader was too slow for so many events

Each filter may be given several times, and as a list with commas; an event
must pass all filters that are given.`,
		Example: `  nftsentry watch
  nftsentry watch --event block,unblock
  nftsentry watch --kind syn --source 203.0.113.0/24 --port 23
  nftsentry watch --json | jq -r 'select(.event == "block") | .source'`,
		Args: arguments(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			filter, err := api.ParseEventFilter(events, kinds, sources, ports)
			if err != nil {
				return usagef("--%w", err)
			}
			client, err := o.client()
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), unix.SIGINT, unix.SIGTERM)
			defer stop()
			return client.Watch(ctx, filter, o.event)
		},
	}
	cmd.Flags().StringSliceVar(&events, "event", nil, "only these `events`")
	cmd.Flags().StringSliceVar(&kinds, "kind", nil, "only these `kinds` of probes: "+strings.Join(api.KindNames, ", "))
	cmd.Flags().StringSliceVar(&sources, "source", nil, "only sources that lie in these `addresses` and prefixes")
	cmd.Flags().StringSliceVar(&ports, "port", nil, "only these `ports`")
	completes(cmd, "event", api.EventNames)
	completes(cmd, "kind", api.KindNames)
	return o.prints(o.asks(cmd))
}

// completes has the shell complete the words of a flag, each of a list with
// commas.
func completes(cmd *cobra.Command, flag string, words []string) {
	_ = cmd.RegisterFlagCompletionFunc(flag, func(_ *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) { // the flag is there
		before := begun[:strings.LastIndexByte(begun, ',')+1]
		var out []string
		for _, w := range words {
			if strings.HasPrefix(before+w, begun) {
				out = append(out, before+w)
			}
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	})
}

// event prints one event.
func (o *options) event(e api.Event) error {
	if o.json {
		return o.out.jsonLine(e)
	}
	line := eventLine(e)
	if o.out.color {
		line = paint(eventColors[e.Event], line)
	}
	if _, err := fmt.Fprintln(o.out.data, line); err != nil {
		return fmt.Errorf("write to standard output: %w", err)
	}
	return nil
}

// eventLine is an event as a person reads it, in columns that a program can
// tell apart by blanks.
func eventLine(e api.Event) string {
	when := e.Time.Local().Format("15:04:05.000")
	if e.Lost > 0 {
		return fmt.Sprintf("%s  %-11s  %d events: this reader is too slow", when, e.Event, e.Lost)
	}
	if e.Source == "" {
		return fmt.Sprintf("%s  %-11s  %s", when, e.Event, printable(e.Reason))
	}
	line := fmt.Sprintf("%s  %-11s  %-15s  %-9s  %-7s  %-8s", when, e.Event, e.Source, portOf(e), dash(e.Kind), dash(e.Evidence))
	for _, more := range eventDetails(e) {
		line += "  " + more
	}
	return strings.TrimRight(line, " ")
}

func portOf(e api.Event) string {
	if e.Protocol == "" {
		return "-"
	}
	return fmt.Sprintf("%s/%d", e.Protocol, e.Port)
}

// eventDetails are what a line says behind its columns.
func eventDetails(e api.Event) (all []string) {
	if b := e.Block; b != nil && (e.Event == "block" || e.Event == "extend" || e.Event == "would-block" || e.Event == "run") {
		if b.Source != e.Source {
			all = append(all, b.Source)
		}
		left := b.Until.Sub(e.Time) + time.Second - 1 // the end has whole seconds, the event has not
		all = append(all, "for "+conf.FormatDuration(left))
		if b.Strikes > 0 {
			all = append(all, plural(b.Strikes, "strike"))
		}
		all = append(all, "by "+b.Origin)
	}
	if e.Seconds > 0 {
		took := time.Duration(e.Seconds * float64(time.Second))
		all = append(all, "took "+took.Round(time.Microsecond).String())
	}
	if e.Reason != "" {
		all = append(all, printable(e.Reason))
	}
	return all
}

// A color is a parameter of SGR, ECMA-48 section 8.3.117; "" is none.
type color string

const (
	red     color = "31"
	green   color = "32"
	yellow  color = "33"
	magenta color = "35"
	faint   color = "2"
)

var eventColors = map[string]color{
	"block": red, "extend": red, "unblock": green, "would-block": yellow, "run": yellow,
	"doubt": magenta, "trust": magenta, "heal": magenta, "lost": magenta,
	"reload": magenta, "panic": red, "resume": green, "stop": magenta,
	"ignored": faint, "exempted": faint, "repeated": faint,
}

func paint(c color, text string) string {
	if c == "" {
		return text
	}
	return "\x1b[" + string(c) + "m" + text + "\x1b[0m"
}

// colored tells whether a terminal may have colors, see no-color.org.
func colored(terminal bool) bool {
	return terminal && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}
