package main

import (
	"os"
	"os/signal"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"nftsentry/cmd/nftsentry/internal/top"
)

func newTop(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Show live what happens and who is blocked, full screen",
		Long: `Top fills the terminal with what happens: rates, the ports that are probed most,
the busiest sources and networks, who is blocked and for how long, and whether
all is well. Blocks can be sorted, filtered and ended; "?" shows the keys.`,
		Example: "  nftsentry top",
		Args:    arguments(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !o.out.terminal || !isTerminal(os.Stdin) {
				return usagef("top needs a terminal: \"nftsentry watch\" and \"nftsentry list\" are for pipes")
			}
			client, err := o.client()
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)
			defer stop()
			return top.Run(ctx, client, os.Stdin, os.Stdout)
		},
	}
	return o.asks(cmd)
}
