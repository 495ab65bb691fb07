package main

import (
	"fmt"
	"math"
	"time"

	"github.com/spf13/cobra"

	"nftsentry/conf"
	"nftsentry/controller/api"
)

func newBlock(o *options) *cobra.Command {
	var timeout, comment string
	cmd := &cobra.Command{
		Use:   "block ADDRESS|PREFIX...",
		Short: "Block sources now, or change how long they are blocked",
		Long: `Block blocks addresses and prefixes. One that is blocked already gets the new
end, sooner or later. Without --timeout a block lasts as long as one that a
decoy makes, longer with each strike.

Ignored sources are never blocked: their names are refused, and in a prefix
that lies around them they are spared.`,
		Example: `  nftsentry block 192.0.2.7
  nftsentry block --timeout 7d --comment "abuse desk" 198.51.100.0/24 2001:db8:1::/48`,
		Args: arguments(1, math.MaxInt, "one address or prefix or more"),
		RunE: func(cmd *cobra.Command, args []string) error {
			requests, err := blockRequests(args, timeout, comment)
			if err != nil {
				return err
			}
			client, err := o.client()
			if err != nil {
				return err
			}
			return o.each(len(requests), func(i int) (string, error) {
				b, err := client.Block(cmd.Context(), requests[i])
				return fmt.Sprintf("blocked %s until %s", b.Source, b.Until.Format(time.RFC3339)), err
			})
		},
	}
	cmd.Flags().StringVar(&timeout, "timeout", "", "how long, such as 1h30m or 7d")
	cmd.Flags().StringVar(&comment, "comment", "", "why, shown by list and by nft; at most 100 bytes")
	return o.asks(cmd)
}

// blockRequests reads all of the command line before anything is done.
func blockRequests(args []string, timeout, comment string) ([]api.BlockRequest, error) {
	var seconds int64
	if timeout != "" {
		d, err := conf.ParseDuration(timeout)
		if err != nil {
			return nil, usagef("--timeout %s: %w", timeout, err)
		}
		if seconds = int64(d / time.Second); seconds < 1 {
			return nil, usagef("--timeout %s: at least 1s", timeout)
		}
	}
	var out []api.BlockRequest
	for _, arg := range args {
		source, err := api.ParseSource(arg)
		if err != nil {
			return nil, &usageError{err}
		}
		out = append(out, api.BlockRequest{Source: api.Display(source), Seconds: seconds, Comment: comment})
	}
	return out, nil
}

// each does something n times, prints what came of it, goes on after a
// failure and fails in the end.
func (o *options) each(n int, do func(i int) (string, error)) error {
	failed := false
	for i := range n {
		line, err := do(i)
		if err != nil {
			o.out.message(err)
			failed = true
			continue
		}
		if _, err := fmt.Fprintln(o.out.data, line); err != nil {
			return fmt.Errorf("write to standard output: %w", err)
		}
	}
	if failed {
		return errSilent
	}
	return nil
}
