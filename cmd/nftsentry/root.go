package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"nftsentry/conf"
	"nftsentry/controller/api"
)

// options are the flags that all commands share.
type options struct {
	out    *output
	config string // file; "" for the default one if it is there
	socket string // control socket; "" for the one of the configuration
	json   bool
}

func newRoot(out *output) *cobra.Command {
	o := &options{out: out}
	var root *cobra.Command
	root = &cobra.Command{
		Use:   "nftsentry",
		Short: "Guard this host from port scanners, on nftables alone",
		Long: `nftsentry guards this host from port scanners, on nftables alone.

Decoys notice whoever connects to a port that no service owns. The source lands
in a set of the table "inet nftsentry", with a timeout of its own: the kernel
drops what it sends, and lets it go again when the time is up.`,
		Example: `  nftsentry run                     guard this host, with the built-in defaults if there is no file
  nftsentry list                    who is blocked, until when, why
  nftsentry unblock 192.0.2.7       let one go
  nft list set inet nftsentry blocked4`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.ArbitraryArgs,
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(root, args[0])
			}
			return usagef("no command: see \"nftsentry --help\"")
		},
	}
	root.PersistentFlags().StringVarP(&o.config, "config", "c", "", "configuration `file` (default "+conf.DefaultPath+" if it is there)")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		if args := cmd.Flags().Args(); cmd == root && len(args) > 0 { // the flags of a command that there is not
			return unknownCommand(root, args[0])
		}
		advice := fmt.Sprintf("see \"%s --help\"", cmd.CommandPath())
		var unknown *pflag.NotExistError
		if errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() == "" {
			advice = meant("--"+unknown.GetSpecifiedName(), flags(cmd), advice)
		}
		return usagef("%w: %s", err, advice)
	})
	root.SetOut(out.data)
	root.SetErr(out.messages)
	root.AddCommand(
		newRun(o), newCheck(o), newStatus(o), newList(o), newWatch(o), newTop(o), newExplain(o), newReport(o),
		newBlock(o), newUnblock(o), newReload(o), newPanic(o), newResume(o), newTeardown(o),
		newDoctor(o), newSelftest(o), newImport(o), newHook(o), newVersion(o),
	)
	root.SetHelpCommand(newHelp())
	addCompletion(root)
	root.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveNoFileComp)
	_ = root.RegisterFlagCompletionFunc("config", completeFile) // the flag is there
	return root
}

func unknownCommand(root *cobra.Command, name string) error {
	return usagef("unknown command %q: %s", name, meant(name, commands(root), `see "nftsentry --help"`))
}

// newHelp is cobra's command, but with a wrong name it fails.
func newHelp() *cobra.Command {
	return &cobra.Command{
		Use:     "help [COMMAND]",
		Short:   "Show how a command is used",
		Example: "  nftsentry help block",
		RunE: func(cmd *cobra.Command, args []string) error {
			about, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return usagef("no help on %q: %s", strings.Join(args, " "), meant(strings.Join(args, " "), commands(cmd.Root()), "there are "+names(cmd.Root())))
			}
			about.InitDefaultHelpFlag() // shown, as it is by --help
			return about.Help()
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			var out []string
			if len(args) == 0 {
				for _, c := range cmd.Root().Commands() {
					out = append(out, cobra.CompletionWithDesc(c.Name(), c.Short))
				}
			}
			return out, cobra.ShellCompDirectiveNoFileComp
		},
	}
}

// addCompletion adds cobra's command, but with a wrong argument it fails.
func addCompletion(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	cmd, _, err := root.Find([]string{"completion"})
	if err != nil || cmd == root {
		return
	}
	cmd.Example = "  nftsentry completion bash > /etc/bash_completion.d/nftsentry"
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usagef("completion takes a shell: there are %s", names(cmd))
		}
		return usagef("no completion for %q: there are %s", args[0], names(cmd))
	}
	for _, shell := range cmd.Commands() {
		shell.Args = arguments(0, 0, "no arguments")
	}
}

// completeFile has the shell complete the names of files, as it does nowhere
// else.
func completeFile(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveDefault
}

// names are those of the commands below one, such as "bash, fish and zsh".
func names(cmd *cobra.Command) string {
	out := commands(cmd)
	last := len(out) - 1
	return strings.Join(out[:last], ", ") + " and " + out[last]
}

// commands are the names of the commands below one.
func commands(cmd *cobra.Command) (out []string) {
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			out = append(out, c.Name())
		}
	}
	return out
}

// flags are the flags that a command takes, as they are written.
func flags(cmd *cobra.Command) (out []string) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) { out = append(out, "--"+f.Name) })
	return out
}

// meant asks whether one of some names was meant by one that is none of them,
// and gives other advice if none is spelled nearly so.
func meant(name string, names []string, advice string) string {
	if near := conf.Nearest(name, names); near != "" {
		return "did you mean " + near + "?"
	}
	return advice
}

// load reads the configuration. Only the default file may be missing; its
// name is then "". A file that cannot be read was named in a wrong way.
func (o *options) load() (conf.Config, string, error) {
	file := cmp.Or(o.config, conf.DefaultPath)
	cfg, err := conf.Load(file)
	if o.config == "" && errors.Is(err, fs.ErrNotExist) {
		return conf.Default(), "", nil
	}
	var wrong conf.Errors
	if err != nil && !errors.As(err, &wrong) {
		err = &usageError{err}
	}
	return cfg, file, err
}

// client is for the commands that ask the daemon. It is asked on the default
// socket where the file has mistakes: it runs on with what it has read before.
func (o *options) client() (*api.Client, error) {
	if o.socket != "" {
		return api.NewClient(o.socket), nil
	}
	cfg, err := o.loadOrDefault()
	if err != nil {
		return nil, err
	}
	return api.NewClient(cfg.Control.Socket), nil
}

// asks adds the flag of commands that ask the daemon.
func (o *options) asks(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringVar(&o.socket, "socket", "", "control `socket` of the daemon (default: control.socket of the configuration)")
	_ = cmd.RegisterFlagCompletionFunc("socket", completeFile) // the flag is there
	return cmd
}

// prints adds the flag of commands that can print JSON.
func (o *options) prints(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

// arguments answers for the number of arguments of a command.
func arguments(least, most int, want string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < least || len(args) > most {
			return usagef("%s takes %s: see \"%s --help\"", cmd.Name(), want, cmd.CommandPath())
		}
		return nil
	}
}
