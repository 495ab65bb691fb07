// Report makes the tables of docs/benchmarks.md and the data of its plots from
// docs/benchmarks/*.csv, which benchmarks have written. It is run at the top of
// the tree:
//
//	report                                writes the tables
//	report bars EXPERIMENT MEASURE [RE]   prints data for bars.gp: a row a case
//	report lines EXPERIMENT MEASURE RE    prints data for lines.gp: a row a number
//
// RE chooses cases; for lines its group is the number that a case has.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"

	"nftsentry/integration/bench/figure"
)

// Where things are.
const (
	page = "docs/benchmarks.md"
	full = "docs/benchmarks/tables.md"
	data = "docs/benchmarks"
)

var errUsage = errors.New("usage: report [bars EXPERIMENT MEASURE [RE] | lines EXPERIMENT MEASURE RE]")

func main() {
	if err := run(os.Stdout, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
}

func run(w io.Writer, args []string) error {
	if len(args) == 0 {
		return writeTables()
	}
	if len(args) == 3 && args[0] == "bars" {
		args = append(args, ".*")
	}
	if len(args) != 4 {
		return errUsage
	}
	cases, err := regexp.Compile(args[3])
	if err != nil {
		return err
	}
	rows, err := readExperiment(data, args[1])
	if err != nil {
		return err
	}
	sums := figure.Summarize(rows, against)
	switch args[0] {
	case "bars":
		return bars(w, sums, args[2], cases)
	case "lines":
		return lines(w, sums, args[2], cases)
	}
	return errUsage
}

// writeTables brings both files up to date.
func writeTables() error {
	old, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	text, err := fillPage(string(old), data)
	if err != nil {
		return fmt.Errorf("%s:%w", page, err)
	}
	if err := os.WriteFile(page, []byte(text), 0o644); err != nil {
		return err
	}
	if text, err = fullTables(data); err != nil {
		return err
	}
	return os.WriteFile(full, []byte(text), 0o644)
}
