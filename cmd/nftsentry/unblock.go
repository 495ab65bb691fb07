package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/spf13/cobra"

	"nftsentry/controller/api"
)

func newUnblock(o *options) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "unblock ADDRESS|PREFIX... | --all",
		Short: "Let blocked sources go, and forget their strikes",
		Long: `Unblock ends blocks now. The strikes of the sources are forgotten: the next
block of each is its first.

An IPv6 address stands for the prefix that was blocked because of it.`,
		Example: "  nftsentry unblock 192.0.2.7\n  nftsentry unblock --all",
		Args:    arguments(0, math.MaxInt, "addresses, prefixes or --all"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if all == (len(args) > 0) {
				return usagef("unblock takes either addresses and prefixes or --all: see \"%s --help\"", cmd.CommandPath())
			}
			for _, arg := range args {
				if _, err := api.ParseSource(arg); err != nil {
					return &usageError{err}
				}
			}
			client, err := o.client()
			if err != nil {
				return err
			}
			if all {
				return o.each(1, func(int) (string, error) {
					n, err := client.UnblockAll(cmd.Context())
					return "unblocked " + plural(n, "source"), err
				})
			}
			if len(args) == 1 {
				return o.each(1, func(int) (string, error) {
					b, err := client.Unblock(cmd.Context(), args[0])
					return fmt.Sprintf("unblocked %s", b.Source), err
				})
			}
			return o.unblockMany(cmd.Context(), client, args)
		},
	}
	cmd.ValidArgsFunction = func(cmd *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
		return o.blockedSources(cmd.Context(), begun, func(b api.Block) string { return b.Source })
	}
	cmd.Flags().BoolVar(&all, "all", false, "let everybody go")
	return o.asks(cmd)
}

// unblockMany lets many go by one request, and fails if some are not blocked.
func (o *options) unblockMany(ctx context.Context, client *api.Client, sources []string) error {
	u, err := client.UnblockMany(ctx, sources)
	if err != nil {
		return err
	}
	var lines strings.Builder
	for _, source := range u.Unblocked {
		lines.WriteString("unblocked " + source + "\n")
	}
	if err := o.out.raw([]byte(lines.String())); err != nil || len(u.Problems) == 0 {
		return err
	}
	return errors.New(strings.Join(u.Problems, "\n"))
}
