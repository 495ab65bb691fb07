//go:build bench

package bench

import (
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"nftsentry/integration/netns"
)

// sshguard is as Debian configures it, with its own backend for nftables, but
// reads a file instead of the journal. It notices no scans: it has no ports. It
// blocks at a score of 30, and a failed login has 10.
var sshguard = guard{
	name: "sshguard", needs: []string{"sshguard", "nft"},
	version: func(t testing.TB) string {
		out, err := exec.Command("sshguard", "-v").Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimPrefix(strings.TrimSpace(string(out)), "SSHGuard ")
	},
	start: startSSHGuard,
}

func startSSHGuard(t testing.TB, host *netns.Host) *running {
	t.Helper()
	log := newAuthLog(t)
	r := &running{
		fail:  func(t testing.TB, source netip.Addr) { log.fail(t, source, 3) },
		block: func(t testing.TB, from, to int) { addElements(t, host, "ip sshguard attackers", from, to) },
	}
	start := func(t testing.TB) {
		t.Helper()
		cmd := host.Command("sshguard", string(log))
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL, Setpgid: true} // it ends its process group
		host.Start(t, cmd)
		eventually(t, "sshguard has its rules and reads the log", func() bool {
			return strings.Contains(ask(host, "nft", "list", "table", "ip6", "sshguard"), "@attackers drop") && reads(withDescendants([]int{cmd.Process.Pid}), string(log))
		})
		r.pids = []int{cmd.Process.Pid}
	}
	r.forgive = func(t testing.TB) {
		t.Helper()
		evict(t, host)
		start(t)
	}
	t.Cleanup(func() { evict(t, host) })
	start(t)
	return r
}

func init() { peers = append(peers, sshguard) }
