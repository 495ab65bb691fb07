package main

import (
	"context"
	"fmt"
	"strconv"
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
			all, err := client.List(cmd.Context())
			if err != nil {
				return err
			}
			if o.json {
				return o.out.json(all)
			}
			if len(all) > 0 {
				if err := o.warnSuspended(cmd.Context(), client); err != nil {
					return err
				}
			}
			return o.out.blocks(all)
		},
	}
	return o.prints(o.asks(cmd))
}

// warnSuspended says so if blocks are on record only.
func (o *options) warnSuspended(ctx context.Context, client *api.Client) error {
	s, err := client.Status(ctx)
	if err == nil && s.Mode != string(conf.Enforce) {
		o.out.message(fmt.Errorf("mode is %s: none of these blocks is in force", s.Mode))
	}
	return err
}

// blocks prints blocks; how long each lasts for a person, its end for a program.
func (o *output) blocks(all []api.Block) error {
	rows := make([][]string, len(all))
	for i, b := range all {
		end := b.Until.Format(time.RFC3339)
		if o.terminal {
			end = conf.FormatDuration(time.Until(b.Until))
		}
		rows[i] = []string{b.Source, end, b.Comment, dash(b.Evidence), b.Origin, strconv.Itoa(b.Strikes)}
	}
	return o.table([]string{"SOURCE", "LEFT", "WHY", "EVIDENCE", "ORIGIN", "STRIKES"}, rows)
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
