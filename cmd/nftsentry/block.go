package main

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/spf13/cobra"

	"nftsentry/conf"
	"nftsentry/controller"
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

An IPv6 address is one address here, of the many that its host has. A decoy
blocks the /64 around whoever touches it (block.prefix6): name that to block
the host.

Ignored sources are never blocked: their names are refused, and in a prefix
that lies around them they are spared.`,
		Example: `  nftsentry block 192.0.2.7
  nftsentry block --timeout 7d --comment "abuse desk" 198.51.100.0/24 2001:db8:1::/48
  nftsentry block 2001:db8:2:3::/64`,
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
	cmd.Flags().StringVar(&timeout, "timeout", "", "how long, such as 1h30m or 7d: "+timeoutBounds())
	cmd.Flags().StringVar(&comment, "comment", "", fmt.Sprintf("why, shown by list and by nft; at most %d bytes", api.MaxComment))
	return o.asks(cmd)
}

// blockRequests reads all of the command line before anything is done.
func blockRequests(args []string, timeout, comment string) ([]api.BlockRequest, error) {
	seconds, err := parseTimeout(timeout)
	if err != nil {
		return nil, usagef("--timeout %s: %w", timeout, err)
	}
	text, err := api.ParseComment(comment)
	if err != nil {
		return nil, usagef("--comment: %w", err)
	}
	var out []api.BlockRequest
	for _, arg := range args {
		source, err := api.ParseSource(arg)
		if err != nil {
			return nil, &usageError{err}
		}
		out = append(out, api.BlockRequest{Source: api.Display(source), Seconds: seconds, Comment: text})
	}
	return out, nil
}

// parseTimeout reads a timeout in seconds; "" is 0.
func parseTimeout(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	d, err := conf.ParseDuration(s)
	if err != nil && !errors.Is(err, conf.ErrTooLong) {
		return 0, err
	}
	if err != nil || d < controller.MinTimeout || d > controller.MaxTimeout {
		return 0, errors.New(timeoutBounds())
	}
	return int64(d / time.Second), nil
}

func timeoutBounds() string {
	return fmt.Sprintf("from %s to %s", conf.FormatDuration(controller.MinTimeout), conf.FormatDuration(controller.MaxTimeout))
}

// each does something n times, prints what came of it, goes on after a
// failure and fails in the end. What went wrong in the same way each time is
// said once.
func (o *options) each(n int, do func(i int) (string, error)) error {
	var end error
	said := make(map[string]bool)
	for i := range n {
		line, err := do(i)
		if err != nil {
			if text := err.Error(); !said[text] {
				o.out.message(err)
				said[text] = true
			}
			end = worse(end, err)
			continue
		}
		if _, err := fmt.Fprintln(o.out.data, line); err != nil {
			return fmt.Errorf("write to standard output: %w", err)
		}
	}
	return end
}

// worse is how a command ends that has said what went wrong: as one that was
// asked in a wrong way, if any of its errors is of that kind.
func worse(end, err error) error {
	if isUsage(end) || isUsage(err) {
		return &usageError{errSilent}
	}
	return errSilent
}
