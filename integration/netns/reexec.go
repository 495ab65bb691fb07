package netns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nftsentry/integration/namespace"
)

// parentEnv tells a process that Main has already given it namespaces, and holds the name of the network namespace
// that they were made from, such as "net:[4026531840]".
const parentEnv = "NFTSENTRY_TEST_PARENT_NETNS"

// errMissing says why tests cannot have namespaces; nil when they can. Main writes it before any test runs.
var errMissing = errors.New("TestMain does not call netns.Main")

// Main is os.Exit(Run(m)), for a TestMain that has nothing else to do.
func Main(m *testing.M) { os.Exit(Run(m)) }

// MainAsRoot is Main without a user namespace, for tests that need several users: only root can have that.
func MainAsRoot(m *testing.M) { os.Exit(RunAsRoot(m)) }

// RunAsRoot is Run for such tests.
func RunAsRoot(m *testing.M) int {
	asRoot = true
	return Run(m)
}

// asRoot says whether RunAsRoot was called, before any test runs.
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
	choice := namespace.UserFirst
	if asRoot || os.Getenv(rootEnv) != "" {
		choice = namespace.RootFirst
	}
	if asRoot && os.Geteuid() != 0 {
		errMissing = errors.New("these tests need several users, and so root")
		return m.Run()
	}
	code, err := namespace.Again(parentEnv, choice)
	if err == nil {
		return code
	}
	errMissing = err
	return m.Run()
}

// rootEnv has root go without a user namespace: in one, nobody may have socket buffers beyond net.core.wmem_max.
const rootEnv = "NFTSENTRY_TEST_AS_ROOT"

// enter prepares the namespaces that this process was started in; parent names the one that they were made from.
func enter(parent string) error {
	if err := namespace.Enter(parentEnv, parent); err != nil {
		return err
	}
	return hideRun()
}

// hideRun lays an empty /run over the one of the host, once.
func hideRun() error {
	if usesRun() || os.Getenv(parentEnv+"_RUN") != "" {
		return nil
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
