//go:build bench

package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nftsentry/integration/netns"
)

// portsentry is Portsentry in one of its modes, as Debian configures it but for
// BLOCK_TCP, which README.Debian tells people to set if it shall block. What it
// blocks by is KILL_ROUTE as it is there, a route that rejects.
func portsentry(mode string, ports ...uint16) guard {
	return guard{
		name: "portsentry " + mode, needs: []string{"portsentry", "route", "ip"},
		lasts:   forever,
		version: func(testing.TB) string { return "1.2" }, // it does not tell; there is no other in Debian
		start: func(t testing.TB, host *netns.Host) *running {
			t.Helper()
			p := startPortsentry(t, host, mode, "1")
			return &running{pids: p.pids, ports: ports, closed: ports, forgive: func(t testing.TB) {
				t.Helper()
				host.Output(t, "ip", "route", "flush", "type", "unreachable")
				p.forget(t)
			}}
		},
	}
}

// A sentryOfOld is a Portsentry that runs, with files of its own.
type sentryOfOld struct {
	pids             []int
	history, blocked string // files
}

// startPortsentry starts Portsentry with a value of BLOCK_TCP.
func startPortsentry(t testing.TB, host *netns.Host, mode, block string) sentryOfOld {
	t.Helper()
	dir := t.TempDir()
	etc, deny := filepath.Join(dir, "etc"), filepath.Join(dir, "deny")
	p := sentryOfOld{history: filepath.Join(dir, "history"), blocked: filepath.Join(dir, "blocked."+mode)}
	if err := os.CopyFS(etc, os.DirFS("/etc/portsentry")); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(etc, "portsentry.conf")
	text, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	// What comes first is what it takes.
	text = fmt.Appendf(nil, "HISTORY_FILE=%q\nBLOCKED_FILE=%q\nBLOCK_TCP=%q\n%s", p.history, filepath.Join(dir, "blocked"), block, text)
	for file, text := range map[string][]byte{conf: text, p.history: nil, p.blocked: nil, deny: nil} {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cover(t, etc, "/etc/portsentry")
	cover(t, deny, "/etc/hosts.deny")
	before := inhabitants(t, host)
	host.Output(t, "portsentry", "-"+mode)
	t.Cleanup(func() { evict(t, host, before...) })
	eventually(t, "portsentry listens", func() bool {
		p.pids = slices.DeleteFunc(inhabitants(t, host), func(pid int) bool { return slices.Contains(before, pid) })
		return len(p.pids) > 0 && listens(p.pids[0], mode)
	})
	return p
}

// listens reports whether a Portsentry does: to the last of its ports, or with
// the raw socket of the stealth modes.
func listens(pid int, mode string) bool {
	file, what := "tcp", ":D430 00000000:0000 0A" // 54320, TCP_LISTEN
	if mode != "tcp" {
		file, what = "raw", ":0006 " // IPPROTO_TCP
	}
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, file))
	return strings.Contains(string(data), what)
}

// forget has it notice whom it has noticed before as if they were new.
func (p sentryOfOld) forget(t testing.TB) {
	t.Helper()
	if err := os.Truncate(p.blocked, 0); err != nil {
		t.Fatal(err)
	}
}

// cover lays a file or folder over another until the test ends. Only the test
// and what it starts see that.
func cover(t testing.TB, with, path string) {
	t.Helper()
	if err := unix.Mount(with, path, "", unix.MS_BIND, ""); err != nil {
		t.Fatalf("mount %s over %s: %v", with, path, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", path, err)
		}
	})
}

func init() {
	// In mode tcp it is a connection that makes it block; the port is in TCP_PORTS, and below 1024.
	peers = append(peers, portsentry("tcp", 11), portsentry("stcp", 11), portsentry("atcp", 11))
}
