//go:build bench

package bench

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// An account knows what processes use, with those that they have started and
// that have ended since, in a control group of its own: cgroups(7), version 2.
// It needs no controller.
type account struct {
	dir string // of the group
}

// openAccount makes the group. It is made before the processes are started, so
// that it outlives them; what is still in it when the test ends is killed.
func openAccount(t testing.TB) *account {
	t.Helper()
	parent, err := ownGroup()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(parent, "nftsentry-bench-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := closeGroup(dir); err != nil {
			t.Error(err)
		}
	})
	return &account{dir: dir}
}

// ownGroup is the folder of the group that this process is in.
func ownGroup() (string, error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "", err
	}
	group, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	for mount := range strings.Lines(string(mounts)) {
		fields := strings.Fields(mount)
		for line := range strings.Lines(string(group)) {
			if path, ok := strings.CutPrefix(line, "0::"); ok && fields[2] == "cgroup2" {
				return filepath.Join(fields[1], strings.TrimSpace(path)), nil
			}
		}
	}
	return "", errors.New("no control group of version 2 is mounted")
}

// closeGroup ends what is in a group, and removes it once that is gone.
func closeGroup(dir string) (err error) {
	for range 100 {
		if err = os.Remove(dir); err == nil {
			return nil
		}
		_ = os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0) // on Linux 5.14 and later
		time.Sleep(20 * time.Millisecond)
	}
	return err
}

// join has processes counted from now on, and what they start.
func (a *account) join(t testing.TB, pids []int) {
	t.Helper()
	for _, pid := range pids {
		err := os.WriteFile(filepath.Join(a.dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
		if err != nil {
			t.Fatal(fmt.Errorf("count process %d: %w", pid, err))
		}
	}
}

// usage is what those of its processes use now that have not ended, and the
// CPU time of all.
func (a *account) usage(t testing.TB) (u usage) {
	t.Helper()
	procs, err := os.ReadFile(filepath.Join(a.dir, "cgroup.procs"))
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range strings.Fields(string(procs)) {
		if pid, err := strconv.Atoi(word); err == nil {
			u.add(pid)
		}
	}
	u.cpu = a.cpu(t)
	return u
}

// cpu is the CPU time of all its processes since they have joined.
func (a *account) cpu(t testing.TB) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(filepath.Join(a.dir, "cpu.stat"))
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(field(stat, "usage_usec")) * time.Microsecond
}
