package netns

import (
	"cmp"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Require skips the test where namespaces cannot be had, and says what is missing; where the environment has CI=true
// it fails it instead.
func Require(t testing.TB) {
	t.Helper()
	if errMissing != nil {
		Unavailable(t, "no network namespaces: %v", errMissing)
	}
}

// Unavailable skips the test, or fails it in CI, where a skip would go unnoticed.
func Unavailable(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// packages names the Debian packages of programs whose package has another name.
var packages = map[string]string{
	"nft":    "nftables",
	"ip":     "iproute2",
	"ss":     "iproute2",
	"tc":     "iproute2",
	"ping":   "iputils-ping",
	"nc":     "netcat-openbsd",
	"sysctl": "procps",

	"promtool":        "prometheus",
	"setpriv":         "util-linux",
	"strace":          "strace",
	"systemd-analyze": "systemd",
	"tcpdmatch":       "tcpd",
}

// Tool returns the path of a program that the test needs, such as nft or nmap. Where it is not installed the test is
// skipped, or in CI fails, with the name of the Debian package that has it.
func Tool(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	// The first are not in the PATH of ordinary users; the last is where integration/deps puts what it does not install.
	for _, dir := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin", "../bin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path
		}
	}
	Unavailable(t, "%s is not installed: it is in the Debian package %s", name, cmp.Or(packages[name], name))
	return ""
}
