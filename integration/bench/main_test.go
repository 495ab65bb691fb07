//go:build bench

package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"nftsentry/integration/netns"
)

// programEnv names the program that is measured, built once for all tests as
// it is released.
const programEnv = "NFTSENTRY_BENCH_PROGRAM"

// TestMain runs the tests as root without a user namespace where it may: some
// peers change their user, and only root may have large socket buffers.
func TestMain(m *testing.M) {
	if os.Getenv(programEnv) != "" {
		netns.MainAsRoot(m)
	}
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "nftsentry-bench-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "nftsentry")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w -X main.version="+describe(), "-o", program, "nftsentry/cmd/nftsentry")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build the program:", err)
		return 1
	}
	if err := os.Setenv(programEnv, program); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return netns.RunAsRoot(m)
}

// describe is the version that make build gives the program.
func describe() string {
	out, err := exec.Command("git", "describe", "--tags", "--always", "--dirty").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}
