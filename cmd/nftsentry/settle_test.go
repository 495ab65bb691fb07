package main

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"

	"golang.org/x/sys/unix"
)

func TestCodeMappings(t *testing.T) {
	own := codeMappings()
	code := reflect.ValueOf(codeMappings).Pointer()
	if !slices.ContainsFunc(own, func(m mapping) bool { return m.first <= code && code < m.end }) {
		t.Errorf("%x is not in %x", code, own)
	}
	data := reflect.ValueOf(&extraTasks).Pointer()
	if slices.ContainsFunc(own, func(m mapping) bool { return m.first <= data && data < m.end }) {
		t.Errorf("%x, which can be written, is in %x", data, own)
	}
}

// TestSettle has it give back the memory of the code, and of a file that nothing reads meanwhile.
func TestSettle(t *testing.T) {
	file := mapFile(t, 64<<10)
	if resident(t, file) == 0 {
		t.Fatal("nothing of the file is in memory")
	}
	synctest.Test(t, func(t *testing.T) {
		if err := settle(t.Context(), append(codeMappings(), file)); err != nil {
			t.Error(err)
		}
	})
	if left := resident(t, file); left != 0 {
		t.Errorf("%d KiB are still in memory", left)
	}
}

// mapFile has the kernel map all of a new file.
func mapFile(t *testing.T, size int) mapping {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(int64(size)); err != nil {
		t.Fatal(err)
	}
	data, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_POPULATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(data) })
	first := reflect.ValueOf(data).Pointer()
	return mapping{first, first + uintptr(size)}
}

// resident is how much of a mapping is in memory, in KiB, of
// proc_pid_smaps(5).
func resident(t *testing.T, m mapping) int {
	t.Helper()
	data, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	_, own, ok := strings.Cut(string(data), fmt.Sprintf("%08x-%08x ", m.first, m.end))
	if !ok {
		t.Fatalf("%x is not mapped", m)
	}
	_, rest, _ := strings.Cut(own, "\nRss:")
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return n
}
