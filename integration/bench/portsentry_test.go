//go:build bench

package bench

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"nftsentry/integration/netns"
)

// portsentry is Portsentry 1.2 in one of its modes, as Debian configures it but
// for BLOCK_TCP and BLOCK_UDP, which README.Debian tells people to set if it
// shall block. What it blocks by is KILL_ROUTE as it is there, a route that
// rejects: a rule of iptables would take it longer to make, and each packet
// longer to pass when there are many. It knows no IPv6.
func portsentry(mode string) guard {
	return guard{
		name: "portsentry " + mode, needs: []string{"portsentry", "route", "ip"},
		version: portsentryVersion,
		lasts:   forever,
		start: func(t testing.TB, host *netns.Host) *running {
			t.Helper()
			s := startScout(t, host, mode, "BLOCK_TCP=\"1\"\nBLOCK_UDP=\"1\"\n")
			r := &running{
				pids: s.pids, ports: []uint16{11}, closed: []uint16{11},
				watched: func(t testing.TB) map[uint16]bool { return portsentryWatches(t, mode) },
				block:   func(t testing.TB, from, to int) { addRejects(t, host, from, to) },
				forgive: func(t testing.TB) {
					t.Helper()
					host.Output(t, "ip", "route", "flush", "type", "unreachable")
					s.forget(t)
				},
			}
			if mode == "tcp" { // it sees connections only
				r.closed = nil
			}
			return r
		},
	}
}

// portsentryVersion is that of Debian's package: the program tells nobody.
func portsentryVersion(t testing.TB) string {
	t.Helper()
	out, err := exec.Command("dpkg-query", "-W", "-f", "${Version}", "portsentry").Output()
	if err != nil {
		return "of unknown version"
	}
	return string(out)
}

// portsentryWatches are the ports of Debian's configuration: a list, or in the
// advanced mode all below a number but for a list.
func portsentryWatches(t testing.TB, mode string) map[uint16]bool {
	t.Helper()
	text, err := os.ReadFile("/etc/portsentry/portsentry.conf")
	if err != nil {
		t.Fatal(err)
	}
	setting := func(name string) string {
		m := regexp.MustCompile(`(?m)^` + name + `="([^"]*)"`).FindSubmatch(text)
		if m == nil {
			t.Fatalf("portsentry.conf has no %s", name)
		}
		return string(m[1])
	}
	if mode != "atcp" {
		return portsIn(t, setting("TCP_PORTS"))
	}
	ports := portsIn(t, "0-"+setting("ADVANCED_PORTS_TCP"))
	delete(ports, portOf(t, setting("ADVANCED_PORTS_TCP"))) // the first 1024 are 0 to 1023
	for port := range portsIn(t, setting("ADVANCED_EXCLUDE_TCP")) {
		delete(ports, port)
	}
	return ports
}

// A scout is a Portsentry with files of its own.
type scout struct {
	pids    []int // one for TCP and one for UDP
	history string
	blocked []string // files of who is blocked, for TCP and for UDP
}

// udpModes are the modes for UDP that go with those for TCP.
var udpModes = map[string]string{"tcp": "udp", "stcp": "sudp", "atcp": "audp"}

// startScout starts Portsentry with Debian's configuration, but for what config says.
func startScout(t testing.TB, host *netns.Host, mode, config string) *scout {
	t.Helper()
	dir := t.TempDir()
	etc, blocked := filepath.Join(dir, "etc"), filepath.Join(dir, "blocked")
	s := &scout{history: filepath.Join(dir, "history"), blocked: []string{blocked + "." + mode, blocked + "." + udpModes[mode]}}
	if err := os.CopyFS(etc, os.DirFS("/etc/portsentry")); err != nil {
		t.Fatal(err)
	}
	conf, denied := filepath.Join(etc, "portsentry.conf"), filepath.Join(dir, "hosts.deny")
	text, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	// What comes first is what it takes.
	text = fmt.Appendf(nil, "HISTORY_FILE=%q\nBLOCKED_FILE=%q\n%s%s", s.history, blocked, config, text)
	for file, text := range map[string][]byte{conf: text, s.history: nil, denied: nil} {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cover(t, etc, "/etc/portsentry")
	if exists("/etc/hosts.deny") {
		cover(t, denied, "/etc/hosts.deny")
	}
	before := inhabitants(t, host)
	t.Cleanup(func() { evict(t, host, before...) })
	for _, m := range []string{mode, udpModes[mode]} {
		host.Output(t, "portsentry", "-"+m)
	}
	eventually(t, "portsentry waits for packets", func() bool {
		s.pids = slices.DeleteFunc(inhabitants(t, host), func(pid int) bool { return slices.Contains(before, pid) })
		return len(s.pids) == 2 && !slices.ContainsFunc(s.pids, occupied)
	})
	return s
}

// occupied reports whether a Portsentry does not wait for packets or connections, or not yet.
func occupied(pid int) bool {
	where, err := os.ReadFile(fmt.Sprintf("/proc/%d/wchan", pid))
	return err != nil || !bytes.Contains(where, []byte("wait_for_more_packets")) && !bytes.Contains(where, []byte("schedule_timeout"))
}

// forget has it forget whom it has blocked: it looks for that in its files.
func (s *scout) forget(t testing.TB) {
	t.Helper()
	for _, file := range s.blocked {
		if err := os.Truncate(file, 0); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
}

func init() {
	for _, mode := range []string{"tcp", "stcp", "atcp"} {
		peers = append(peers, portsentry(mode))
	}
}
