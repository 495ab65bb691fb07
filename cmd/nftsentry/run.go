package main

import (
	"os"
	"os/signal"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

func newRun(o *options) *cobra.Command {
	var hookSocket string
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Guard this host, in the foreground, until SIGTERM or SIGINT",
		Long: `Run guards this host in the foreground. Without a configuration file the
built-in defaults hold.

SIGTERM and SIGINT end it. The blocks stay in force in the kernel, which ends
each when its time is up; "nftsentry teardown" takes them away at once. SIGHUP
has it read its configuration again, as "nftsentry reload" does.`,
		Example: "  nftsentry run\n  nftsentry run -c ./nftsentry.toml",
		Args:    arguments(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, _, err := o.load(); err != nil {
				return err
			}
			if err := checkRights(); err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), unix.SIGINT, unix.SIGTERM)
			defer stop()
			hup := make(chan os.Signal, 1) // one that waits stands for all that come meanwhile
			signal.Notify(hup, unix.SIGHUP)
			defer signal.Stop(hup)
			g, err := openGuard(o.load, o.out, hookSocket)
			if err != nil {
				return err
			}
			return g.run(ctx, hup)
		},
	}
	cmd.Flags().StringVar(&hookSocket, "hook-socket", "", "have hooks run by \"nftsentry hook\", which is at this `socket`, and not by this process")
	return cmd
}
