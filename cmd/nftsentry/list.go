package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"nftsentry/conf"
	"nftsentry/controller/api"
)

func newList(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "Show who is blocked, until when, and why",
		Long: `List shows the blocks in force, the oldest first.

On a terminal it is a table; in a pipe each block is a line of source, end,
comment, evidence, origin and strikes with tabs between. In observe mode, and
between panic and resume, none of them is in force, which a message says.`,
		Example: `  nftsentry list
  nftsentry list --json | jq -r '.[] | select(.strikes > 0) | .source'`,
		Args: arguments(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := o.client()
			if err != nil {
				return err
			}
			return o.list(cmd.Context(), client)
		},
	}
	return o.prints(o.asks(cmd))
}

// list prints blocks, how long each lasts for a person and its end for a
// program. Nothing is written before all has arrived: the daemon does not wait
// for whoever reads our output.
func (o *options) list(ctx context.Context, client *api.Client) error {
	if o.json {
		return o.listJSON(ctx, client)
	}
	var rows [][]string
	var lines bytes.Buffer
	n := 0
	err := client.EachBlock(ctx, func(b api.Block) error {
		n++
		if o.out.terminal {
			rows = append(rows, row(b, conf.FormatDuration(time.Until(b.Until))))
			return nil
		}
		lines.WriteString(strings.Join(row(b, b.Until.Format(time.RFC3339)), "\t") + "\n")
		return nil
	})
	if err == nil && n > 0 {
		err = o.warnSuspended(ctx, client)
	}
	if err != nil {
		return err
	}
	if o.out.terminal {
		return o.out.table(listHeading, rows)
	}
	return o.out.raw(lines.Bytes())
}

// listJSON prints one JSON array, laid out as all others are.
func (o *options) listJSON(ctx context.Context, client *api.Client) error {
	var all bytes.Buffer
	enc := json.NewEncoder(&all)
	enc.SetEscapeHTML(false)
	enc.SetIndent("  ", "  ")
	all.WriteString("[")
	err := client.EachBlock(ctx, func(b api.Block) error {
		if all.Len() > 1 {
			all.Truncate(all.Len() - 1) // the newline
			all.WriteString(",")
		}
		all.WriteString("\n  ")
		return enc.Encode(b)
	})
	if err != nil {
		return err
	}
	all.WriteString("]\n")
	return o.out.raw(all.Bytes())
}

// listHeading is for a person.
var listHeading = []string{"SOURCE", "LEFT", "WHY", "EVIDENCE", "ORIGIN", "STRIKES"}

// row is what is told of a block.
func row(b api.Block, end string) []string {
	return []string{b.Source, end, b.Comment, dash(b.Evidence), b.Origin, strconv.Itoa(b.Strikes)}
}

// warnSuspended says so if blocks are on record only.
func (o *options) warnSuspended(ctx context.Context, client *api.Client) error {
	s, err := client.Status(ctx)
	if err == nil && s.Mode != string(conf.Enforce) {
		o.out.message(fmt.Errorf("mode is %s: none of these blocks is in force", s.Mode))
	}
	return err
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
