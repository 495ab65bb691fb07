package main

import (
	"os"
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

func TestSettle(t *testing.T) {
	own, size := codeMappings(), 0
	for _, m := range own {
		size += int(m.end-m.first) >> 10
	}
	touch(t, own)
	before := resident(t)
	synctest.Test(t, func(t *testing.T) {
		if err := settle(t.Context(), own); err != nil {
			t.Error(err)
		}
	})
	if gone := before - resident(t); gone < size/2 {
		t.Errorf("%d KiB have gone, of %d KiB of code", gone, size)
	}
}

// touch has the kernel map all of the program's file that there is.
func touch(t *testing.T, own []mapping) {
	t.Helper()
	for _, m := range own {
		_, _, errno := unix.Syscall(unix.SYS_MADVISE, m.first, m.end-m.first, unix.MADV_POPULATE_READ)
		if errno != 0 {
			t.Fatal(errno)
		}
	}
}

// resident is how much of mapped files is in memory, in KiB.
func resident(t *testing.T) int {
	t.Helper()
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), "RssFile:")
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return n
}
