//go:build bench

package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"nftsentry/integration/netns"
)

// psad reads what the firewall logs of what it drops, and has iptables block.
// The kernel's log does not tell of network namespaces, so ulogd2 writes the
// log that psad reads, as SYSLOG_DAEMON of psad.conf offers.
//
// Its defaults block nobody: ENABLE_AUTO_IDS is for those who want that. With
// the danger level 5, which is AUTO_IDS_DANGER_LEVEL's default, it would block
// after 10,000 packets. It has 1 here, the soonest that there is: five packets
// to more than one port. It looks at the log every 5 seconds, as it does by
// default. It sends no mail and asks neither DNS nor whois, which would only
// keep it from its work.
var psad = guard{
	name: "psad", needs: []string{"psad", "ulogd", "iptables", "ip6tables"},
	version: func(t testing.TB) string {
		out, err := exec.Command("psad", "-V").Output()
		version := regexp.MustCompile(`v(\d[\d.]*)`).FindSubmatch(out)
		if err != nil || version == nil {
			t.Fatalf("psad says %q, %v", out, err)
		}
		return string(version[1])
	},
	lag:   5 * time.Second,     // CHECK_INTERVAL
	lasts: time.Hour.Seconds(), // AUTO_BLOCK_TIMEOUT
	start: startPsad,
}

const (
	psadConf = `HOSTNAME server;
PSAD_DIR %[1]s/log;
PSAD_RUN_DIR %[1]s/run;
PSAD_FIFO_DIR %[1]s/lib;
CONF_ARCHIVE_DIR %[1]s/archive;
ENABLE_SYSLOG_FILE N;
SYSLOG_DAEMON ulogd;
ULOG_DATA_FILE %[1]s/ulogd.log;
ENABLE_AUTO_IDS Y;
AUTO_IDS_DANGER_LEVEL 1;
ALERTING_METHODS noemail;
ENABLE_DNS_LOOKUPS N;
ENABLE_WHOIS_LOOKUPS N;
`
	ulogdConf = `[global]
logfile="%[1]s/ulogd.err"
stack=log1:NFLOG,base1:BASE,ifi1:IFINDEX,ip2str1:IP2STR,print1:PRINTPKT,emu1:LOGEMU
[log1]
group=0
[emu1]
file="%[1]s/ulogd.log"
sync=1
`
)

// psadRules are those of FW_EXAMPLE_RULES, with services on the ports that
// other guards leave alone too: what is not allowed is logged and dropped.
var psadRules = [][]string{
	{"-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED", "-j", "ACCEPT"},
	{"-i", "lo", "-j", "ACCEPT"},
	{"-p", "tcp", "--syn", "-m", "multiport", "--dports", "22,80,443", "-j", "ACCEPT"},
	{"-j", "NFLOG", "--nflog-prefix", "DROP "},
	{"-j", "DROP"},
}

func startPsad(t testing.TB, host *netns.Host) *running {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"psad.conf": psadConf, "ulogd.conf": ulogdConf} {
		if err := os.WriteFile(filepath.Join(dir, name), fmt.Appendf(nil, text, dir), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, rule := range psadRules {
		host.Output(t, "iptables", append([]string{"-A", "INPUT"}, rule...)...)
	}
	host.Output(t, "ip6tables", "-A", "INPUT", "-p", "icmpv6", "-j", "ACCEPT")
	for _, rule := range psadRules {
		host.Output(t, "ip6tables", append([]string{"-A", "INPUT"}, rule...)...)
	}
	ulogd := host.Command("ulogd", "-c", filepath.Join(dir, "ulogd.conf"))
	host.Start(t, ulogd)
	t.Cleanup(func() { evict(t, host) })
	eventually(t, "ulogd has a log", func() bool { return exists(filepath.Join(dir, "ulogd.log")) })
	r := &running{ports: []uint16{2, 3, 4, 5, 6}, closed: []uint16{2, 3, 4, 5, 6}}
	r.block = func(t testing.TB, from, to int) { psadBlock(t, host, from, to) }
	start := func(t testing.TB) {
		t.Helper()
		socket := filepath.Join(dir, "run/auto_ipt.sock")
		_ = os.Remove(socket)
		cmd := host.Command("psad", "-O", filepath.Join(dir, "psad.conf"), "--no-daemon")
		host.Start(t, cmd)
		eventually(t, "psad is ready", func() bool { return exists(socket) })
		r.pids = []int{ulogd.Process.Pid, cmd.Process.Pid}
	}
	r.forgive = func(t testing.TB) { // it flushes its blocks when it starts
		t.Helper()
		evict(t, host, ulogd.Process.Pid)
		start(t)
	}
	for _, name := range []string{"log", "run", "lib"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	start(t)
	return r
}

// psadBlock makes the chains that psad makes for its first block, and the four
// rules of each.
func psadBlock(t testing.TB, host *netns.Host, from, to int) {
	t.Helper()
	var rules strings.Builder
	rules.WriteString("*filter\n")
	for _, chain := range []string{"INPUT", "OUTPUT", "FORWARD"} {
		if from == 0 {
			fmt.Fprintf(&rules, ":PSAD_BLOCK_%[1]s -\n-I %[1]s -j PSAD_BLOCK_%[1]s\n", chain)
		}
	}
	for i := from; i < to; i++ {
		fmt.Fprintf(&rules, "-A PSAD_BLOCK_INPUT -s %[1]s -j DROP\n-A PSAD_BLOCK_OUTPUT -d %[1]s -j DROP\n"+
			"-A PSAD_BLOCK_FORWARD -s %[1]s -j DROP\n-A PSAD_BLOCK_FORWARD -d %[1]s -j DROP\n", stranger(i))
	}
	rules.WriteString("COMMIT\n")
	feed(t, host, rules.String(), "iptables-restore", "-n")
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func init() { peers = append(peers, psad) }
