package main

import (
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A mapping is a part of the program's file as it lies in memory.
type mapping struct{ first, end uintptr }

// codeMappings are those of its code, of proc_pid_maps(5), which nothing has
// ever written to. It has to be asked before a sandbox keeps /proc away; there
// are none where that is so already.
func codeMappings() (own []mapping) {
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return nil
	}
	data, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(data)) {
		var m mapping
		var rights, path string
		_, err := fmt.Sscanf(line, "%x-%x %s %s %s %s %s", &m.first, &m.end, &rights, new(string), new(string), new(string), &path)
		if err == nil && path == self && rights == "r-xp" {
			own = append(own, m)
		}
	}
	return own
}

// settleAfter is how long after the start nothing of it goes on any more.
const settleAfter = 5 * time.Second

// settle gives back, once, the memory that only the start needed: most of the
// program's code never runs again. Its pages stay in the page cache, and come
// back when they are touched.
func settle(ctx context.Context, code []mapping) error {
	select {
	case <-ctx.Done():
		return nil
	case <-time.After(settleAfter):
	}
	debug.FreeOSMemory()
	for _, m := range code {
		// Best effort: without it the kernel takes them back when it needs to.
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, m.first, m.end-m.first, unix.MADV_DONTNEED)
	}
	return nil
}
