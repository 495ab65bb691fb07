package main

import (
	"os"
	"os/signal"
	"runtime/debug"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

func newRun(o *options) *cobra.Command {
	var user, hookSocket string
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Guard this host, in the foreground, until SIGTERM or SIGINT",
		Long: `Run guards this host in the foreground. Without a configuration file the
built-in defaults hold.

SIGTERM and SIGINT end it. The blocks stay in force in the kernel, which ends
each when its time is up; "nftsentry teardown" takes them away at once. SIGHUP
has it read its configuration again, as "nftsentry reload" does.

Once all is open it takes from itself, by Landlock, all files but its own, and
the right to run programs; not if it has hooks to run itself, which need both.
With --user it is no longer root either: it keeps CAP_NET_ADMIN and
CAP_NET_BIND_SERVICE alone, and gives the folders of the state and of the control
socket to that user first. Under systemd the unit does this and more.

A service manager that has given it a NOTIFY_SOCKET is told, as in sd_notify(3),
when the guard is up, what it is doing, of reloads and of its end; and, if it has
a watchdog, that all is well as long as the control loop and the kernel answer.`,
		Example: "  nftsentry run\n  nftsentry run -c ./nftsentry.toml\n  nftsentry run --user nftsentry",
		Args:    arguments(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if user == "" && cmd.Flags().Changed("user") { // a variable that is not set would run it as root
				return usagef("--user: the name is empty: name a user, or leave the flag out to go on as root")
			}
			if hookSocket == "" && cmd.Flags().Changed("hook-socket") {
				return usagef("--hook-socket: the path is empty: name the socket of \"nftsentry hook\", or leave the flag out")
			}
			if _, _, err := o.load(); err != nil {
				return err
			}
			debug.SetTraceback("crash") // or a crash had the exit status of a wrong configuration
			if user != "" {
				if err := o.become(user); err != nil {
					return err
				}
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
	cmd.Flags().StringVar(&user, "user", "", "`name` of the user to become, if root starts it")
	cmd.Flags().StringVar(&hookSocket, "hook-socket", "", "have hooks run by \"nftsentry hook\", which is at this `socket`, and not by this process")
	return cmd
}
