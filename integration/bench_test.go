//go:build bench

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The benchmarks print a table and judge nothing, but for what would make the
// figures worthless. They are built with the tag "bench".

// TestBenchRest measures what the daemon costs when nothing happens: some
// half-minutes, each of which has the look at the store and at the files of the
// resolvers. Such a look is over in a millisecond, but for as long as it takes a
// thread of Go's runtime wakes up each 20 microseconds: one that falls into other
// work of the machine makes fifty wake-ups of six, so the median counts.
func TestBenchRest(t *testing.T) {
	w := newWorld(t)
	d := guard(t, w.server, "")
	time.Sleep(10 * time.Second) // the links have settled, and the runtime has gone to sleep
	pid := d.cmd.Process.Pid
	const watched, times = 30 * time.Second, 3
	cpu := cpuTicks(t, pid)
	var rates []float64
	for range times {
		before := wakeups(t, pid)
		time.Sleep(watched)
		rates = append(rates, float64(wakeups(t, pid)-before)/watched.Seconds())
	}
	status := filepath.Join("/proc", strconv.Itoa(pid), "status")
	fmt.Printf("\nat rest for %v: %s resident, of that %s of its own, %.2f wake-ups a second (%.2f), %d ticks of CPU\n\n",
		times*watched, procField(t, status, "VmRSS:"), procField(t, status, "RssAnon:"), median(rates), rates, cpuTicks(t, pid)-cpu)
}

// wakeups counts how often a thread of a process has waited and been woken.
func wakeups(t *testing.T, pid int) int {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	sum := 0
	for _, task := range tasks {
		n, err := strconv.Atoi(strings.Fields(procField(t, task, "voluntary_ctxt_switches:"))[0])
		if err != nil {
			t.Fatal(err)
		}
		sum += n
	}
	return sum
}

func procField(t *testing.T, file, field string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, field); ok {
			return strings.TrimSpace(value)
		}
	}
	t.Fatalf("no %s in %s", field, file)
	return ""
}

// cpuTicks is utime and stime of proc_pid_stat(5), in hundredths of a second.
func cpuTicks(t *testing.T, pid int) int {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), ") ")
	fields := strings.Fields(rest)
	user, err1 := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	return user + system
}
