package netns

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// parentEnv tells a process that Main has already given it namespaces, and holds the name of the network namespace
// that they were made from, such as "net:[4026531840]".
const parentEnv = "NFTSENTRY_TEST_PARENT_NETNS"

// errMissing says why tests cannot have namespaces; nil when they can. Main writes it before any test runs.
var errMissing = errors.New("TestMain does not call netns.Main")

// Main is os.Exit(Run(m)), for a TestMain that has nothing else to do.
func Main(m *testing.M) { os.Exit(Run(m)) }

// MainAsRoot is Main without a user namespace, for tests that need several users: only root can have that.
func MainAsRoot(m *testing.M) {
	asRoot = true
	Main(m)
}

// asRoot says whether MainAsRoot was called, before any test runs.
var asRoot bool

// Run runs the tests of m in new user, network and mount namespaces and returns their exit status. It is called once,
// by TestMain, in the test binary and again in the one that it starts.
//
// The test binary re-executes itself there with the same arguments and files, as root of the user namespace; where
// user namespaces are forbidden but the caller is root, without one. Loopback is up, mounts are private, and /run is
// empty, so that nothing of the host is touched. Signals that end a program reach the tests too. Where no namespaces
// can be had the tests run without, and [Require] skips those that need them. Processes started by the tests, such as
// fuzz workers, stay in the same namespaces.
func Run(m *testing.M) int {
	if parent := os.Getenv(parentEnv); parent != "" {
		errMissing = enter(parent)
		return m.Run()
	}
	code, err := reexec()
	if err == nil {
		return code
	}
	errMissing = err
	return m.Run()
}

// reexec runs this program again in namespaces of its own and returns its exit status, or why it cannot.
func reexec() (int, error) {
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

	cmd, err := start(parent)
	if err != nil {
		return 0, err
	}
	return supervise(cmd, sigs)
}

// rootEnv has root go without a user namespace: in one, nobody may have socket buffers beyond net.core.wmem_max.
const rootEnv = "NFTSENTRY_TEST_AS_ROOT"

// start starts this program again with a user namespace, or as root, if that is forbidden or not wanted, without.
func start(parent string) (*exec.Cmd, error) {
	if asRoot {
		return startAsRoot(parent, errors.New("these tests need several users"))
	}
	cmd := self(parent)
	if os.Getuid() == 0 && os.Getenv(rootEnv) != "" {
		return cmd, cmd.Start()
	}
	cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
	cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
	cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	err := cmd.Start()
	if err == nil {
		return cmd, nil
	}
	return startAsRoot(parent, fmt.Errorf("user namespaces are not allowed here (%w)", err))
}

// startAsRoot starts this program again without a user namespace, because of why.
func startAsRoot(parent string, why error) (*exec.Cmd, error) {
	if os.Getuid() != 0 {
		return nil, fmt.Errorf("%w, and without a user namespace root is needed", why)
	}
	cmd := self(parent)
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("make network and mount namespaces: %w", err)
	}
	return cmd, nil
}

// self is the command that runs this program with the same arguments and files in new network and mount namespaces.
func self(parent string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), parentEnv+"="+parent)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS,
		Pdeathsig:  unix.SIGKILL,
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
		return 0, fmt.Errorf("wait for the tests: %w", err)
	}
	return 0, nil
}

// enter prepares the namespaces that this process was started in; parent names the one that they were made from.
func enter(parent string) error {
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return fmt.Errorf("find the own network namespace: %w", err)
	}
	if own == parent {
		return fmt.Errorf("%s is set, but the process is still in the namespace %s", parentEnv, own)
	}
	if err := loopbackUp(); err != nil {
		return fmt.Errorf("no rights in the own namespaces, which a security module may deny: %w", err)
	}
	return hideRun()
}

// hideRun lays an empty /run over the one of the host, once.
func hideRun() error {
	if usesRun() || os.Getenv(parentEnv+"_RUN") != "" {
		return nil
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mount a fresh /run: %w", err)
	}
	return os.Setenv(parentEnv+"_RUN", "hidden") // seen by fuzz workers, which share the mounts
}

// usesRun reports whether the test itself lives below /run, as it may with TMPDIR in a user's runtime directory.
func usesRun() bool {
	exe, _ := os.Executable()
	dir, _ := os.Getwd()
	for _, path := range []string{exe, dir, os.TempDir(), os.Getenv("GOCACHE"), os.Getenv("GOCOVERDIR")} {
		if strings.HasPrefix(filepath.Clean(path)+"/", "/run/") {
			return true
		}
	}
	return false
}
