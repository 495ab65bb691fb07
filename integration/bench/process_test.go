//go:build bench

package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nftsentry/integration/netns"
)

// A usage is what processes have used, of proc_pid_status(5) and
// proc_pid_stat(5). Processes that have ended are no longer in it, but for
// their CPU if their parent is.
type usage struct {
	processes int
	rss       int           // resident memory, in bytes; what they share counts for each
	own       int           // of that not pages of files, which others may share
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
	if field(status, "VmRSS:") == 0 {
		return // it has ended, and its parent has not asked yet
	}
	u.processes++
	u.rss += field(status, "VmRSS:") << 10
	u.own += field(status, "RssAnon:") << 10
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

// inhabitants are the processes of a host, other than the test itself.
func inhabitants(t testing.TB, host *netns.Host) (pids []int) {
	t.Helper()
	home, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", host.FD()))
	if err != nil {
		t.Fatal(err)
	}
	links, _ := filepath.Glob("/proc/[0-9]*/ns/net")
	for _, link := range links {
		at, _ := os.Readlink(link) // it may have ended
		pid, _ := strconv.Atoi(strings.Split(link, "/")[2])
		if at == home && pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids
}

// evict ends all processes of a host but those to spare: it asks them to, and
// kills what is there 5 seconds later.
func evict(t testing.TB, host *netns.Host, spare ...int) {
	t.Helper()
	left := func() []int {
		return slices.DeleteFunc(inhabitants(t, host), func(pid int) bool { return slices.Contains(spare, pid) })
	}
	for _, pid := range left() {
		_ = unix.Kill(pid, unix.SIGTERM)
	}
	for began := time.Now(); len(left()) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > 5*time.Second {
			for _, pid := range left() {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
	}
}

// eventually waits until a tool has done something. It looks often, since the
// time of a start is measured.
func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	for began := time.Now(); !done(); time.Sleep(time.Millisecond) {
		if time.Since(began) > ready {
			t.Fatalf("%s is not so after %v", what, ready)
		}
	}
}

// ask runs a program on a host, which may fail, and returns what it prints.
func ask(host *netns.Host, name string, args ...string) string {
	cmd := host.Command(name, args...)
	var out strings.Builder
	cmd.Stdout = &out
	if host.Inside(cmd.Start) == nil {
		_ = cmd.Wait()
	}
	return out.String()
}

// reads reports whether one of some processes has a file open.
func reads(pids []int, file string) bool {
	return slices.ContainsFunc(pids, func(pid int) bool {
		fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		return slices.ContainsFunc(fds, func(fd string) bool {
			to, _ := os.Readlink(fd)
			return to == file
		})
	})
}

// cover lays a file or folder over another until the test ends. Only the test
// and what it starts see that.
func cover(t testing.TB, with, path string) {
	t.Helper()
	if err := unix.Mount(with, path, "", unix.MS_BIND, ""); err != nil {
		t.Fatalf("mount %s over %s: %v", with, path, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", path, err)
		}
	})
}
