package main

import (
	"errors"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"nftsentry/conf/portsentry"
)

// importFlags are what import alone is told.
type importFlags struct {
	defaults string // file of the modes; "" to look for it
	mode     string // of Portsentry's command line; "" for what the file of the modes says
	state    bool
	link     bool
	diff     bool
}

func newImport(o *options) *cobra.Command {
	f := &importFlags{}
	cmd := &cobra.Command{
		Use:   "import PATH",
		Short: "Make a configuration of Portsentry's, and take over its blocks",
		Long: `Import reads the configuration of Portsentry 1.2 or 2.x, a file or the folder in
which it is, and prints the same for nftsentry. What became of each setting, what
is no longer needed and what was broken before goes to standard error. Nothing is
printed if a file is not understood, and nothing is written without --state.

The modes of Portsentry 1.2 are in a file that Debian has at
/etc/default/portsentry. Without --default it is looked for as
"portsentry.default" beside portsentry.conf, and then at "../default/portsentry"
from there, so that a copy of /etc will do. If there is none, the modes are tcp
and udp, as in a new installation. 2.x has its mode on its command line:
stealth, unless --mode says connect.

--state reads the blocked files and the history, and hands them to the store of
nftsentry, whose daemon must be stopped: in state.dir of the file that -c names,
or in the default one. Blocks last block.timeout from now, and ignored sources
have none. --link then moves the old files of 1.2 to NAME.before-nftsentry and
puts symbolic links to ours in their places. Both may be done again.`,
		Example: `  nftsentry import /etc/portsentry --diff
  nftsentry import /etc/portsentry > /etc/nftsentry/nftsentry.toml
  nftsentry import /etc/portsentry -c /etc/nftsentry/nftsentry.toml --state --link > /dev/null`,
		Args: arguments(1, 1, "one folder or portsentry.conf"),
		RunE: func(_ *cobra.Command, args []string) error { return o.runImport(args[0], *f) },

		ValidArgsFunction: completeFile,
	}
	cmd.Flags().StringVar(&f.defaults, "default", "", "`file` that sets TCP_MODE and UDP_MODE")
	_ = cmd.RegisterFlagCompletionFunc("default", completeFile) // the flag is there
	cmd.Flags().StringVar(&f.mode, "mode", "", "`modes` on Portsentry's command line: atcp,audp or connect")
	cmd.Flags().BoolVar(&f.state, "state", false, "take over the blocked files and the history too")
	cmd.Flags().BoolVar(&f.link, "link", false, "put links to our files in the places of the old ones; needs --state")
	cmd.Flags().BoolVar(&f.diff, "diff", false, "print a table of old and new settings instead")
	return cmd
}

func (o *options) runImport(path string, f importFlags) error {
	if f.link && !f.state {
		return usagef("--link needs --state: a link would hide what has not been taken over")
	}
	in, err := readImport(path, f)
	if err != nil {
		return err
	}
	t, err := translate(in)
	if err != nil {
		return err
	}
	var said []string
	if f.state {
		if said, err = o.importState(in, f.link); err != nil {
			o.tell(said)
			return err
		}
	}
	if f.diff { // the table is short, and what there is to say of it is long
		err := o.out.diff(t)
		o.tell(append(t.messages(), said...))
		return err
	}
	o.tell(append(t.messages(), said...))
	return o.out.raw([]byte(t.toml()))
}

// tell prints messages.
func (o *options) tell(messages []string) {
	for _, m := range messages {
		o.out.message(errors.New(m))
	}
}

// parseMode reads --mode: the version it is of, 0 for none, and the modes.
func parseMode(s string) (portsentry.Version, portsentry.Modes, error) {
	var m portsentry.Modes
	switch s {
	case "":
		return 0, m, nil
	case "stealth", "connect":
		return portsentry.V2, modes2(s), nil
	}
	for _, one := range strings.Split(s, ",") {
		into, key := &m.TCP, "TCP_MODE"
		if slices.Contains(portsentry.ModesUDP, one) {
			into, key = &m.UDP, "UDP_MODE"
		} else if !slices.Contains(portsentry.ModesTCP, one) {
			return 0, m, usagef("--mode %s: %q is no mode: 2.x has stealth and connect, 1.2 one of tcp, stcp and atcp and one of udp, sudp and audp", s, one)
		}
		if into.Value != "" {
			return 0, m, usagef("--mode %s: one mode of each protocol, such as atcp,audp", s)
		}
		*into = portsentry.Setting{Key: key, Value: one}
	}
	m.TCP.Key, m.UDP.Key = "TCP_MODE", "UDP_MODE"
	return portsentry.V1, m, nil
}

// modes2 are what 2.x does in its modes, in the words of 1.2.
func modes2(mode string) portsentry.Modes {
	tcp, udp := "stcp", "sudp"
	if mode == "connect" {
		tcp, udp = "tcp", "udp"
	}
	return portsentry.Modes{
		TCP: portsentry.Setting{Key: "--" + mode, Value: tcp},
		UDP: portsentry.Setting{Key: "--" + mode, Value: udp},
	}
}
