package main

import (
	"os"
	"path/filepath"
	"strings"
	"unicode"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"nftsentry/cmd/nftsentry/internal/doctor"
	"nftsentry/conf"
	"nftsentry/conf/ignore"
	"nftsentry/listener"
	"nftsentry/nft"
)

// A diagnosis is what doctor finds, as --json prints it.
type diagnosis struct {
	Status   doctor.Status    `json:"status"` // the worst of the findings
	Config   string           `json:"config"` // file; "" for the built-in defaults
	Findings []doctor.Finding `json:"findings"`
}

func newDoctor(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Find out whether blocks work on this host, and what is in their way",
		Long: `Doctor looks at this host, and changes nothing: rights, the kernel's features one
by one, our table, the chains of all other firewalls and what they mean for us,
connection tracking, NFLOG, the state folder, the files and programs that the
configuration names, the daemon, the clock, other guards and your own way in by
SSH. Each line is ok, a warning with what to do, or a
failure, which is where blocks do not work or do not last.

It needs root to see all. Exit status: 0 without failures, 1 with them.`,
		Example: "  nftsentry doctor\n  nftsentry doctor | grep -v ^ok\n  nftsentry doctor --json | jq -r '.findings[] | select(.status != \"ok\") | .advice'",
		Args:    arguments(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, file, err := o.load()
			if err != nil {
				cfg = conf.Default()
			}
			s := doctor.Subject{
				Config: cfg, File: file, Mistakes: err, Version: version, LockGroup: lockGroup,
				Table: func(port uint16) nft.Config { return tableConfig(cfg, port, zap.NewNop()) },
			}
			_, err = os.Lstat(filepath.Join(cfg.State.Dir, panicName))
			s.Panicked = err == nil // unlike the daemon, which blocks nobody if it cannot tell
			s.Hooks, s.HooksErr = checkHooks(cfg.Hook)
			_, err = ignore.Read(cfg.Ignore.Files)
			s.Ignored, s.Hidden = mistakes(err), conf.PortRange{First: listener.LastHidden, Last: listener.FirstHidden}
			found := doctor.Examine(cmd.Context(), s)
			return o.diagnose(diagnosis{Status: doctor.Worst(found), Config: file, Findings: found})
		},
	}
	return o.prints(cmd)
}

func (o *options) diagnose(d diagnosis) error {
	err := o.printDiagnosis(d)
	if err == nil && d.Status == doctor.Failure {
		return errSilent
	}
	return err
}

// printDiagnosis has data on standard output, failures too: they are what was
// asked for.
func (o *options) printDiagnosis(d diagnosis) error {
	if o.json {
		return o.out.json(d)
	}
	var rows [][]string
	for _, f := range d.Findings {
		text := f.Text
		if f.Advice != "" {
			text += "; " + f.Advice
		}
		rows = append(rows, []string{string(f.Status), f.Check, oneLine(text)})
	}
	return o.out.table([]string{"STATUS", "CHECK", "FINDING"}, rows)
}

// oneLine has a question mark for each character that would move the cursor or
// start another column: names of chains and of programs are anybody's.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}
