package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"nftsentry/conf"
	"nftsentry/controller/api"
)

func newExplain(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "explain ADDRESS",
		Short: "Show all that is known of one source, and why it is or is not blocked",
		Long: `Explain shows what the daemon and the kernel know of one address: what was
noticed of it lately and what came of that, where it stands against the trigger,
which rule ignores it, its earlier blocks, and the block in force as it is on
record and as the kernel has it.

An IPv6 address is explained with the prefix that would be blocked for it. On a
terminal the last probes are a table; in a pipe each is a line of time, port,
kind, evidence, outcome and address with tabs between. The outcomes are those
events of "nftsentry watch" that are about a probe; besides, overspent (the
budget of blocks was spent) and crowded (a set of the kernel was full).`,
		Example: `  nftsentry explain 203.0.113.7
  nftsentry explain --json 2001:db8::7 | jq -r .why`,
		Args: arguments(1, 1, "one address"),
		RunE: func(cmd *cobra.Command, args []string) error {
			addr, err := api.ParseAddress(args[0])
			if err != nil {
				return &usageError{err}
			}
			client, err := o.client()
			if err != nil {
				return err
			}
			x, err := client.Explain(cmd.Context(), addr)
			if err != nil {
				return err
			}
			if o.json {
				return o.out.json(x)
			}
			return o.out.explanation(x)
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return o.blockedSources(cmd.Context(), begun, func(b api.Block) string {
				address, _, _ := strings.Cut(b.Source, "/")
				return address
			})
		},
	}
	return o.prints(o.asks(cmd))
}

// What a shell waits for, and shows, at the most.
const (
	completionPatience = 500 * time.Millisecond
	maxCompletions     = 1000
)

// blockedSources completes what is blocked, in the form of a word. Without an
// answer of the daemon there is nothing to complete.
func (o *options) blockedSources(ctx context.Context, begun string, word func(api.Block) string) ([]string, cobra.ShellCompDirective) {
	var out []string
	ctx, cancel := context.WithTimeout(ctx, completionPatience)
	defer cancel()
	client, err := o.client()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	all, _ := client.List(ctx)
	for _, b := range all {
		if w := word(b); strings.HasPrefix(w, begun) && len(out) < maxCompletions {
			out = append(out, cobra.CompletionWithDesc(w, b.Comment))
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// explanation prints facts, and the probes as a table.
func (o *output) explanation(x api.Explanation) error {
	rows := [][2]string{{"address", x.Address}}
	add := func(name, text string) {
		if text != "" {
			rows = append(rows, [2]string{name, text})
		}
	}
	if x.Source != x.Address {
		add("source", x.Source+", which is counted and blocked for it")
	}
	yes := map[bool]string{true: "yes", false: "no"}
	add("blocked", yes[x.Blocked]+": "+x.Why)
	if x.Ignored != nil {
		add("ignored", fmt.Sprintf("by %s: %s", x.Ignored.Prefix, x.Ignored.Reason))
	}
	if x.Peer != nil {
		add("peer", "for another "+left(x.Time, *x.Peer))
	}
	add("on record", recordLine(x))
	add("in the kernel", kernelLine(x))
	add("dropped", droppedLine(x.Kernel))
	add("last block", lastLine(x.Last))
	add("strikes", strconv.Itoa(x.Strikes))
	add("connections", countedLine(x, x.Trigger.Connects, x.Trigger.OfConnects, "proven"))
	add("ports", countedLine(x, x.Trigger.Ports, x.Trigger.OfPorts, "unproven"))
	add("probes", probesLine(x.Probes))
	for _, note := range x.Notes {
		add("note", note)
	}
	if err := o.facts(rows); err != nil || len(x.Probes.Last) == 0 {
		return err
	}
	return o.table([]string{"TIME", "PORT", "KIND", "EVIDENCE", "OUTCOME", "FROM"}, probeRows(x.Probes.Last))
}

// left is how long there is to a moment.
func left(now, until time.Time) string { return conf.FormatDuration(max(0, until.Sub(now))) }

func recordLine(x api.Explanation) string {
	if x.Block == nil {
		return ""
	}
	return fmt.Sprintf("%s, since %s, %s left (%s)", x.Block.Source, x.Block.Since.Format(time.RFC3339), left(x.Time, x.Block.Until), x.Block.Comment)
}

func kernelLine(x api.Explanation) string {
	e := x.Kernel
	if e == nil {
		return ""
	}
	text := e.Set + ", " + e.First
	if e.Last != e.First {
		text += " to " + e.Last
	}
	if e.Until == nil {
		return text + ", for ever"
	}
	return text + ", " + left(x.Time, *e.Until) + " left"
}

func droppedLine(e *api.Element) string {
	if e == nil || e.Dropped == nil {
		return ""
	}
	return fmt.Sprintf("%s, %s since the element was last changed", plural(int(e.Dropped.Packets), "packet"), plural(int(e.Dropped.Bytes), "byte"))
}

func lastLine(l *api.LastBlock) string {
	if l == nil {
		return ""
	}
	text := fmt.Sprintf("%s, ended at %s", l.Comment, l.Until.Format(time.RFC3339))
	if l.Reason != "" {
		text += " (" + l.Reason + ")"
	}
	return text + ", a strike until " + l.Forgotten.Format(time.RFC3339)
}

// countedLine tells how far it is to the trigger, and what counts.
func countedLine(x api.Explanation, n, of int, evidence string) string {
	text := fmt.Sprintf("%d of %d within %s", n, of, conf.FormatDuration(time.Duration(x.Trigger.Window)*time.Second))
	var which []string
	for _, c := range x.Trigger.Counted {
		if c.Evidence == evidence {
			which = append(which, fmt.Sprintf("%s/%d (forgotten in %s)", dash(c.Protocol), c.Port, left(x.Time, c.Forgotten)))
		}
	}
	if len(which) > 0 {
		text += ": " + strings.Join(which, ", ")
	}
	return text
}

func probesLine(p api.Probes) string {
	if p.First == nil {
		return "none"
	}
	text := fmt.Sprintf("%d since %s", p.Total, p.First.Format(time.RFC3339))
	if n := len(p.Last); uint64(n) < p.Total {
		text += fmt.Sprintf(", of which the last %d:", n)
	}
	return text
}

func probeRows(probes []api.Probe) [][]string {
	rows := make([][]string, len(probes))
	for i, p := range probes {
		port := "-"
		if p.Protocol != "" {
			port = fmt.Sprintf("%s/%d", p.Protocol, p.Port)
		}
		rows[i] = []string{p.Time.Format(time.RFC3339), port, dash(p.Kind), p.Evidence, p.Outcome, p.Address}
	}
	return rows
}
