//go:build bench

package bench

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nftsentry/integration/netns"
)

// fail2ban has two of its own jails: portsentry, which reads the history of a
// Portsentry that blocks nobody itself, and sshd. What it bans by is nftables,
// as its documentation has it for hosts without iptables; jail.conf has
// iptables-multiport.
//
// All else is as jail.conf has it: in the jail portsentry one line bans from
// all TCP ports (maxretry 1), in sshd five lines within ten minutes from port
// ssh. Debian installs python3-pyinotify with it, and without that it looks at
// the logs but once a second.
var fail2ban = guard{
	name: "fail2ban", needs: []string{"fail2ban-server", "portsentry", "nft"},
	version: func(t testing.TB) string {
		out, err := exec.Command("fail2ban-server", "--version").Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimPrefix(strings.TrimSpace(string(out)), "Fail2Ban v")
	},
	lasts: (10 * time.Minute).Seconds(), // bantime
	start: startFail2ban,
}

const fail2banJails = `[DEFAULT]
banaction = nftables

[portsentry]
enabled = true
logpath = %s

[sshd]
enabled = true
logpath = %s
`

func startFail2ban(t testing.TB, host *netns.Host) *running {
	t.Helper()
	watcher := startScout(t, host, "tcp", "BLOCK_TCP=\"0\"\n")
	dir := t.TempDir()
	conf, socket, log := filepath.Join(dir, "etc"), filepath.Join(dir, "sock"), newAuthLog(t)
	if err := os.CopyFS(conf, os.DirFS("/etc/fail2ban")); err != nil {
		t.Fatal(err)
	}
	jails := fmt.Sprintf(fail2banJails, watcher.history, log)
	if err := os.WriteFile(filepath.Join(conf, "jail.local"), []byte(jails), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := host.Command("fail2ban-server", "-xf", "-c", conf, "-s", socket, "-p", filepath.Join(dir, "pid"),
		"--logtarget", filepath.Join(dir, "log"), "start")
	if err := os.WriteFile(filepath.Join(conf, "fail2ban.local"), []byte("[DEFAULT]\ndbfile = :memory:\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	host.Start(t, cmd)
	t.Cleanup(func() { evict(t, host) })
	client := func(args ...string) ([]byte, error) {
		return exec.Command("fail2ban-client", append([]string{"-s", socket}, args...)...).CombinedOutput()
	}
	eventually(t, "fail2ban has both jails", func() bool { // to ask the client takes a tenth of a second
		said, _ := os.ReadFile(filepath.Join(dir, "log"))
		return strings.Contains(string(said), "Jail 'portsentry' started") && strings.Contains(string(said), "Jail 'sshd' started")
	})
	return &running{
		pids:  append(watcher.pids, cmd.Process.Pid),
		ports: []uint16{11},
		fail:  func(t testing.TB, source netip.Addr) { log.fail(t, source, 5) },
		block: func(t testing.TB, from, to int) { // its first makes the table
			t.Helper()
			if out, err := client("set", "portsentry", "banip", stranger(from).String()); err != nil {
				t.Fatalf("fail2ban-client: %v\n%s", err, out)
			}
			eventually(t, "fail2ban blocks", func() bool {
				return strings.Contains(ask(host, "nft", "list", "set", "inet", "f2b-table", "addr-set-portsentry"), stranger(from).String())
			})
			addElements(t, host, "inet f2b-table addr-set-portsentry", from+1, to)
		},
		forgive: func(t testing.TB) {
			t.Helper()
			if out, err := client("unban", "--all"); err != nil {
				t.Fatalf("fail2ban-client: %v\n%s", err, out)
			}
			watcher.forget(t)
		},
	}
}

// An authLog is a file such as /var/log/auth.log.
type authLog string

func newAuthLog(t testing.TB) authLog {
	t.Helper()
	file := filepath.Join(t.TempDir(), "auth.log")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return authLog(file)
}

// fail writes, at once, what OpenSSH says of failed logins.
func (l authLog) fail(t testing.TB, source netip.Addr, times int) {
	t.Helper()
	var lines strings.Builder
	for i := range times {
		fmt.Fprintf(&lines, "%s server sshd[%d]: Failed password for root from %s port %d ssh2\n",
			time.Now().Format(time.Stamp), 1000+i, source, 40000+i)
	}
	f, err := os.OpenFile(string(l), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(lines.String()); err != nil {
		t.Fatal(err)
	}
}

func init() { peers = append(peers, fail2ban) }
