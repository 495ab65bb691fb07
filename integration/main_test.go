package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"nftsentry/integration/netns"
)

// programEnv names the program under test, built once for all tests.
const programEnv = "NFTSENTRY_TEST_PROGRAM"

// slowness is how many times longer than usual tests wait: 1, unless the
// variable says otherwise, as on an emulated machine.
var slowness = func() time.Duration {
	if n, err := strconv.Atoi(os.Getenv("NFTSENTRY_TEST_SLOWNESS")); err == nil && n > 0 {
		return time.Duration(n)
	}
	return 1
}()

func TestMain(m *testing.M) {
	if os.Getenv(programEnv) != "" {
		netns.Main(m)
	}
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "nftsentry-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "nftsentry")
	args := []string{"build", "-o", program}
	if raceEnabled {
		args = append(args, "-race")
	}
	build := exec.Command("go", append(args, "nftsentry/cmd/nftsentry")...)
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build the program under test:", err)
		return 1
	}
	env := map[string]string{
		programEnv: program,
		"GORACE":   "halt_on_error=1 atexit_sleep_ms=0", // commands would wait a second before they end
	}
	for key, value := range env {
		if err := os.Setenv(key, value); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return netns.Run(m)
}
