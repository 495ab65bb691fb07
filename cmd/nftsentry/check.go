package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"nftsentry/conf"
	"nftsentry/conf/ignore"
	"nftsentry/controller/hook"
	"nftsentry/nft"
)

// A report is what check finds, as --json prints it.
type report struct {
	Config  string      `json:"config"` // file; "" for the built-in defaults
	Correct bool        `json:"correct"`
	Errors  []string    `json:"errors"` // of the configuration and of ignore.files
	Host    []hostCheck `json:"host"`
}

// A hostCheck is one thing that the host must have.
type hostCheck struct {
	Name    string `json:"name"`
	OK      bool   `json:"ok"`
	Problem string `json:"problem"` // what is wrong and what to do; "" if nothing
}

func newCheck(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check the configuration and this host, and change nothing",
		Long: `Check reads the configuration and reports all that is wrong in it at once, with
line and column, and likewise the files of ignore.files. Then it asks the kernel
whether it would take the table, in a transaction that is thrown away, and looks
at the programs and files that hooks need.

Exit status: 0 if all is well, 1 if this host lacks something, 2 if the
configuration, or a file that it names, is wrong.`,
		Example: "  nftsentry check\n  nftsentry check -c ./nftsentry.toml",
		Args:    arguments(0, 0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			cfg, file, err := o.load()
			if err == nil {
				_, err = ignore.Read(cfg.Ignore.Files)
			}
			wrong := mistakes(err)
			if err != nil && len(wrong) == 0 {
				return err
			}
			r := report{Config: file, Correct: err == nil, Errors: wrong, Host: []hostCheck{}}
			if err == nil {
				r.Host = checkHost(cfg)
			}
			return o.report(r, err)
		},
	}
	return o.prints(cmd)
}

// mistakes are what is wrong with a configuration or the files it names, one by one.
func mistakes(err error) []string {
	out := []string{}
	var wrong conf.Errors
	errors.As(err, &wrong)
	for _, e := range wrong {
		out = append(out, e.Error())
	}
	var list ignore.Errors
	errors.As(err, &list)
	for _, e := range list {
		out = append(out, e.Error())
	}
	return out
}

// A hostCheckOf does a check.
type hostCheckOf struct {
	name string
	do   func() error
}

// checkHost asks of the host what run will need.
func checkHost(cfg conf.Config) []hostCheck {
	checks := []hostCheckOf{
		{"rights", checkRights},
		{"kernel", func() error { return checkKernel(cfg) }},
	}
	if n, err := checkHooks(cfg.Hook); n > 0 {
		checks = append(checks, hostCheckOf{"hooks", func() error { return err }})
	}
	var out []hostCheck
	for _, c := range checks {
		err := c.do()
		h := hostCheck{Name: c.name, OK: err == nil}
		if err != nil {
			h.Problem = err.Error()
		}
		out = append(out, h)
		if err != nil {
			break // without rights the kernel tells nothing
		}
	}
	return out
}

// checkHooks counts the hooks, and looks at the programs and files that they need.
func checkHooks(c conf.Hook) (int, error) {
	hooks := hookConfig(c, nil)
	n := len(hooks.Exec) + len(hooks.Mail) + len(hooks.Webhook)
	if hooks.HostsDeny != nil {
		n++
	}
	_, err := hook.New(hooks, zap.NewNop())
	return n, err
}

func checkKernel(cfg conf.Config) error {
	table, err := nft.Open(0, cfg.Block.Prefix6)
	if err != nil {
		return err
	}
	const anyPort = 1023
	err = table.Check(tableConfig(cfg, anyPort, zap.NewNop()))
	return errors.Join(err, table.Close())
}

// report prints what check has found. Problems are messages, unless JSON is
// asked for, which has them all.
func (o *options) report(r report, wrong error) error {
	if o.json {
		if err := o.out.json(r); err != nil {
			return err
		}
	} else if err := o.printReport(r, wrong); err != nil {
		return err
	}
	if wrong != nil {
		if o.json {
			return &usageError{fmt.Errorf("%s: %s", r.Config, plural(len(r.Errors), "mistake"))}
		}
		return wrong
	}
	for _, h := range r.Host {
		if !h.OK {
			return errSilent
		}
	}
	return nil
}

func (o *options) printReport(r report, wrong error) error {
	if wrong != nil {
		return nil // finish prints the mistakes
	}
	file := r.Config
	if file == "" {
		file = "built-in defaults"
	}
	rows := [][2]string{{"configuration", file + ": correct"}}
	for _, h := range r.Host {
		if h.OK {
			rows = append(rows, [2]string{h.Name, "ok"})
			continue
		}
		o.out.message(fmt.Errorf("%s: %s", h.Name, h.Problem))
	}
	return o.out.facts(rows)
}
