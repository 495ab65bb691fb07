package namespace

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Choice says what [Again] tries first where the caller is root.
type Choice bool

// The choices.
const (
	UserFirst Choice = true  // a user namespace, and none if that is forbidden
	RootFirst Choice = false // the caller's own rights, and a user namespace if they are too few
)

// Self is the command that runs this very program with other arguments. It ends with the thread that starts it, which
// the caller locks, and with the program.
func Self(args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = os.Args[0]
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	return cmd
}

// Again runs this program again, with the same arguments and files, in new network and mount namespaces, and returns
// its exit status or why it cannot: 128 and the signal if one ended it. It is root there, either in a user namespace,
// or, if the caller is root, without one. The program finds out by the variable env of its environment, which holds the
// name of the network namespace that it was started in, and calls [Enter] then. Signals that end a program are handed
// to it; the caller itself goes on until it has ended.
func Again(env string, choice Choice) (int, error) {
	parent, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return 0, fmt.Errorf("this kernel has no network namespaces: %w", err)
	}
	// The kernel ends the child when the thread that started it ends, so this one has to stay.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	sigs := make(chan os.Signal, 4)
	signal.Notify(sigs, unix.SIGINT, unix.SIGTERM, unix.SIGQUIT, unix.SIGHUP)
	defer signal.Stop(sigs)

	cmd, err := start(env+"="+parent, choice)
	if err != nil {
		return 0, err
	}
	return supervise(cmd, sigs)
}

// start starts this program again with a user namespace, and without one if the caller is root.
func start(env string, choice Choice) (*exec.Cmd, error) {
	root := os.Geteuid() == 0
	var errs []error
	for _, user := range []bool{bool(choice), !bool(choice)} {
		if !user && !root {
			continue
		}
		cmd := self(env, user)
		err := cmd.Start()
		if err == nil {
			return cmd, nil
		}
		errs = append(errs, bare(err))
	}
	if !root {
		return nil, fmt.Errorf("user namespaces are not allowed here (%w), and without them root is needed", errs[0])
	}
	return nil, fmt.Errorf("namespaces are not allowed here: %w, and with a user namespace: %w", errs[nth(choice)], errs[1-nth(choice)])
}

// nth is when namespaces without one for users were tried.
func nth(choice Choice) int {
	if choice == UserFirst {
		return 1
	}
	return 0
}

// bare is an error without the path of this program, which nobody has named.
func bare(err error) error {
	if outer, ok := errors.AsType[*fs.PathError](err); ok {
		return outer.Err
	}
	return err
}

// self is the command that runs this program with the same arguments and files in new network and mount namespaces.
func self(env string, user bool) *exec.Cmd {
	cmd := Self(os.Args[1:]...)
	cmd.Env = append(os.Environ(), env)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWNET | unix.CLONE_NEWNS
	if user {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	return cmd
}

// supervise waits for cmd, hands it the signals that arrive meanwhile, and returns its exit status as a shell does:
// 128 and the signal if one ended it.
func supervise(cmd *exec.Cmd, sigs chan os.Signal) (int, error) {
	var wg sync.WaitGroup
	wg.Go(func() {
		for s := range sigs {
			_ = cmd.Process.Signal(s) // it may be gone already, which Wait tells
		}
	})
	err := cmd.Wait()
	signal.Stop(sigs)
	close(sigs)
	wg.Wait()

	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode(), nil
	}
	if err != nil {
		return 0, fmt.Errorf("wait for the own program: %w", err)
	}
	return 0, nil
}

// Enter prepares the namespaces that [Again] has started this process in: loopback is up, and mounts are private.
// Parent is the value of the variable env. It is an error if there are none, or no rights in them.
func Enter(env, parent string) error {
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return fmt.Errorf("find the own network namespace: %w", err)
	}
	if !strings.HasPrefix(parent, "net:[") {
		return fmt.Errorf("%s = %q, which is for the program itself: unset it", env, parent)
	}
	if own == parent {
		return fmt.Errorf("%s is set, but the process is still in the namespace %s", env, own)
	}
	if err := loopbackUp(); err != nil {
		return fmt.Errorf("no rights in the own namespaces, which a security module may deny: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the mounts private: %w", err)
	}
	return nil
}
