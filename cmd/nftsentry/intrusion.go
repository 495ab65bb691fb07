//go:build intrusion

package main

// With the build tag "intrusion" the daemon plays one that somebody has taken
// over, when it gets SIGUSR1: it tries from inside what he would, and prints
// what came of it. At SIGUSR2 it crashes. No release is built so: see
// integration/service.

import (
	"context"
	"encoding/json"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

func init() { extraTasks = append(extraTasks, intrude) }

// intrude waits for the signals until ctx ends. The environment names a folder
// where everybody may do everything, with files "program" and "text", the
// folder of the state, and a process of the same user.
func intrude(ctx context.Context) error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGUSR1, unix.SIGUSR2)
	defer signal.Stop(signals)
	for {
		select {
		case <-ctx.Done():
			return nil
		case s := <-signals:
			if s == unix.SIGUSR2 {
				panic("asked to crash")
			}
			if err := json.NewEncoder(os.Stdout).Encode(attempts(os.Getenv("INTRUSION_FOLDER"), os.Getenv("INTRUSION_STATE"))); err != nil {
				return err
			}
		}
	}
}

// attempts are what came of each attempt: an error, or "done".
func attempts(folder, state string) map[string]string {
	text, program := filepath.Join(folder, "text"), filepath.Join(folder, "program")
	victim, _ := strconv.Atoi(os.Getenv("INTRUSION_PROCESS"))
	own := filepath.Join(state, "program")
	out := make(map[string]string)
	for what, try := range map[string]func() error{
		"read /etc/shadow":      func() error { return opened("/etc/shadow", unix.O_RDONLY) },
		"read a file":           func() error { return opened(text, unix.O_RDONLY) },
		"list a folder":         func() error { return opened(folder, unix.O_RDONLY|unix.O_DIRECTORY) },
		"write to a file":       func() error { return opened(text, unix.O_WRONLY) },
		"make a file":           func() error { return opened(filepath.Join(folder, "new"), unix.O_WRONLY|unix.O_CREAT) },
		"make a folder":         func() error { return unix.Mkdir(filepath.Join(folder, "newer"), 0o700) },
		"remove a file":         func() error { return unix.Unlink(program + ".old") },
		"trace a process":       func() error { return unix.PtraceSeize(victim) },
		"open a packet socket":  func() error { return socketed(unix.AF_PACKET, 0) },
		"open a raw socket":     func() error { return socketed(unix.AF_INET, unix.IPPROTO_ICMP) },
		"load a module":         func() error { return moduled() },
		"mount":                 func() error { return unix.Mount("none", folder, "tmpfs", 0, "") },
		"become root":           func() error { return called(unix.SYS_SETUID, 0) },
		"enter a namespace":     func() error { return unix.Unshare(unix.CLONE_NEWUTS) },
		"run a program":         func() error { return executed(program) },
		"run one of the system": func() error { return executed("/bin/true") },
		"run one of its own": func() error {
			if err := os.WriteFile(own, []byte("#!/bin/true\n"), 0o700); err != nil {
				return nil // it is to be done: its folder is its own
			}
			return executed(own)
		},
	} {
		out[what] = "done"
		if err := try(); err != nil {
			out[what] = err.Error()
		}
	}
	return out
}

func opened(path string, flags int) error {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o600)
	if err == nil {
		_ = unix.Close(fd)
	}
	return err
}

func socketed(family, protocol int) error {
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err == nil {
		_ = unix.Close(fd)
	}
	return err
}

// moduled offers the kernel a module that is none. Whoever has the right to
// load some is told so.
func moduled() error {
	err := unix.InitModule([]byte("not a module"), "")
	if err == unix.ENOEXEC || err == unix.EINVAL {
		return nil
	}
	return err
}

func called(trap, arg uintptr) error {
	if _, _, err := unix.RawSyscall(trap, arg, 0, 0); err != 0 {
		return err
	}
	return nil
}

// executed becomes another program, which ends this one, or tells why not.
func executed(path string) error {
	name, err := unix.BytePtrFromString(path)
	if err != nil {
		return err
	}
	args := []*byte{name, nil}
	_, _, errno := unix.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(name)), uintptr(unsafe.Pointer(&args[0])), uintptr(unsafe.Pointer(&args[1])))
	return errno
}
