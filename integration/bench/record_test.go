//go:build bench

package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"nftsentry/integration/bench/figure"
)

// outEnv names the folder for what is measured.
const outEnv = "NFTSENTRY_BENCH_OUT"

// A recorder keeps what an experiment measures.
type recorder struct {
	t    *testing.T
	file *os.File
	rows []figure.Row
}

// record begins an experiment, and prints its table when the test ends. Its
// file, EXPERIMENT.csv, is made anew, and beside it machine.txt.
func record(t *testing.T, experiment string) *recorder {
	t.Helper()
	dir := os.Getenv(outEnv)
	if dir == "" {
		dir = t.TempDir()
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	machineOnce.Do(func() { writeMachine(t, filepath.Join(dir, "machine.txt")) })
	f, err := os.Create(filepath.Join(dir, experiment+".csv"))
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{t: t, file: f}
	fmt.Fprintln(f, figure.Header)
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		fmt.Printf("\n%s\n%s\n", experiment, figure.Table(figure.Summarize(r.rows, sentry.name)))
	})
	return r
}

// add keeps values, in the order in which they were measured. A case is what
// was done, such as "nmap -sS -T4 -p 1-1024, IPv4"; a measure what was measured,
// with its unit, such as "ports learnt" and "".
func (r *recorder) add(kase string, tool, measure, unit string, values ...float64) {
	r.t.Helper()
	for _, v := range values {
		row := figure.Row{Case: kase, Tool: tool, Measure: measure, Unit: unit, Value: v}
		r.rows = append(r.rows, row)
		if _, err := fmt.Fprintln(r.file, row.CSV()); err != nil {
			r.t.Fatal(err)
		}
	}
}
