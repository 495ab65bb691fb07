// Package service tests the daemon as a service: its unit, its user and rights, its sandbox from within, and what it
// tells a service manager. The daemon is the one that is shipped, without cgo, but that it can be told to attack.
package service

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"nftsentry/integration/netns"
)

// programEnv names the program under test for the processes that the tests run in.
const programEnv = "NFTSENTRY_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(filterEnv) != "" {
		fmt.Fprintln(os.Stderr, filter(os.Args[1:]))
		os.Exit(1)
	}
	if os.Getenv(programEnv) != "" {
		netns.MainAsRoot(m)
	}
	os.Exit(build(m))
}

func build(m *testing.M) int {
	dir, err := os.MkdirTemp("", "nftsentry-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "nftsentry")
	cmd := exec.Command("go", "build", "-tags", "intrusion", "-o", program, "nftsentry/cmd/nftsentry")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build the program under test:", err)
		return 1
	}
	if err := os.Setenv(programEnv, program); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return netns.RunAsRoot(m)
}
