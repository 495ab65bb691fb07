package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"nftsentry/integration/bench/figure"
)

// A page says where something goes by two lines, and what stands between them
// is made anew:
//
//	<!-- table EXPERIMENT -->          all measures of EXPERIMENT.csv
//	<!-- table EXPERIMENT: A; B -->    the measures A and B
//	<!-- file NAME -->                 a file as it is
//	<!-- end -->
var beginning = regexp.MustCompile(`^<!-- (table|file) ([^:]+?)(?:: (.+))? -->$`)

const ending = "<!-- end -->"

// fillPage puts what is in a folder into a page. The error begins with the line.
func fillPage(text, dir string) (string, error) {
	var out strings.Builder
	began := 0 // the line whose end is yet to come
	n := 0
	for line := range strings.Lines(text) {
		n++
		bare := strings.TrimSuffix(line, "\n")
		m := beginning.FindStringSubmatch(bare)
		switch {
		case began != 0 && m != nil:
			return "", fmt.Errorf("%d: no %q before the next beginning", began, ending)
		case m != nil:
			made, err := section(dir, m[1], m[2], m[3])
			if err != nil {
				return "", fmt.Errorf("%d: %w", n, err)
			}
			out.WriteString(line + "\n" + made + "\n")
			began = n
		case bare == ending && began == 0:
			return "", fmt.Errorf("%d: %q without a beginning", n, ending)
		case bare == ending:
			out.WriteString(line)
			began = 0
		case began == 0:
			out.WriteString(line)
		}
	}
	if began != 0 {
		return "", fmt.Errorf("%d: no %q", began, ending)
	}
	return out.String(), nil
}

// section is what stands between two lines; for what has not been measured it
// says so.
func section(dir, kind, name, measures string) (string, error) {
	made, err := "", error(nil)
	if kind == "table" {
		made, err = table(dir, name, measures)
	} else {
		made, err = verbatim(dir, name)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Sprintf("TODO(figures): there is no %s yet.\n", name), nil
	}
	return made, err
}

// table has the chosen measures of an experiment, or all.
func table(dir, experiment, measures string) (string, error) {
	rows, err := readExperiment(dir, experiment)
	if err != nil {
		return "", err
	}
	chosen := strings.Split(measures, "; ")
	p := pivotOf(figure.Summarize(rows, against), func(s figure.Summary) bool {
		return measures == "" || slices.Contains(chosen, s.Measure)
	})
	if measures != "" {
		for _, measure := range chosen {
			if !slices.ContainsFunc(p.points, func(at point) bool { return at.measure == measure }) {
				return "", fmt.Errorf("%s.csv has no measure %q", experiment, measure)
			}
		}
	}
	return p.markdown(), nil
}

func verbatim(dir, name string) (string, error) {
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return "", err
	}
	return "```\n" + strings.TrimSuffix(string(text), "\n") + "\n```\n", nil
}

// fullTables is a page of its own, with all experiments of a folder.
func fullTables(dir string) (string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.csv"))
	if err != nil {
		return "", err
	}
	var out strings.Builder
	out.WriteString("# All figures\n\n`make bench-report` writes this page from the raw values beside it. " +
		"See [Benchmarks](../benchmarks.md) for what they mean.\n")
	for _, file := range files {
		experiment := strings.TrimSuffix(filepath.Base(file), ".csv")
		text, err := table(dir, experiment, "")
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&out, "\n## %s\n\n%s", experiment, text)
	}
	return out.String(), nil
}

// readExperiment reads EXPERIMENT.csv of a folder. The error names file and line.
func readExperiment(dir, experiment string) ([]figure.Row, error) {
	file := filepath.Join(dir, experiment+".csv")
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	rows, err := figure.Read(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return rows, nil
}
