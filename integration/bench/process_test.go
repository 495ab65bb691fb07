//go:build bench

package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A usage is what processes have used, of proc_pid_status(5) and
// proc_pid_stat(5). Processes that have ended are no longer in it, but for
// their CPU if their parent is.
type usage struct {
	processes int
	rss       int           // resident memory, in bytes; what they share counts for each
	peak      int           // the sum of their largest
	cpu       time.Duration // in steps of 10 ms
	wakeups   int           // times that a thread has waited and been woken
}

// usageOf adds up what processes and their descendants use now.
func usageOf(t testing.TB, pids []int) (u usage) {
	t.Helper()
	for _, pid := range withDescendants(pids) {
		u.add(pid)
	}
	return u
}

// add adds a process, unless it has ended.
func (u *usage) add(pid int) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return
	}
	u.processes++
	u.rss += field(status, "VmRSS:") << 10
	u.peak += field(status, "VmHWM:") << 10
	u.cpu += cpuOf(dir)
	tasks, _ := filepath.Glob(filepath.Join(dir, "task/*/status"))
	for _, task := range tasks {
		data, _ := os.ReadFile(task) // a thread may have ended
		u.wakeups += field(data, "voluntary_ctxt_switches:")
	}
}

// field is a number in a status file; 0 if it is not there.
func field(status []byte, name string) int {
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, name); ok {
			n, _ := strconv.Atoi(strings.Fields(value)[0])
			return n
		}
	}
	return 0
}

// cpuOf is the CPU time of a process and of its children that it has waited for.
func cpuOf(dir string) time.Duration {
	data, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(data), ") ")
	fields := strings.Fields(rest)
	var ticks int
	for _, at := range []int{11, 12, 13, 14} { // utime, stime, cutime, cstime
		n, _ := strconv.Atoi(fields[at])
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// withDescendants are processes with all that they have started and that has
// not been handed to another parent.
func withDescendants(pids []int) []int {
	out := append([]int(nil), pids...)
	for i := 0; i < len(out); i++ {
		children, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", out[i]))
		for _, file := range children {
			data, _ := os.ReadFile(file)
			for _, word := range strings.Fields(string(data)) {
				if pid, err := strconv.Atoi(word); err == nil {
					out = append(out, pid)
				}
			}
		}
	}
	return out
}
