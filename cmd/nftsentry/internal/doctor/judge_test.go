package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nftsentry/conf"
	"nftsentry/controller/api"
	"nftsentry/controller/host"
	"nftsentry/nft"
	"nftsentry/nft/survey"
)

// brief is the findings as "status: text", and "; advice" where there is one.
func brief(all ...Finding) []string {
	out := []string{}
	for _, f := range all {
		s := string(f.Status) + ": " + f.Text
		if f.Advice != "" {
			s += "; " + f.Advice
		}
		out = append(out, s)
	}
	return out
}

// expect compares findings with the beginnings of what is wanted, which has to
// be there in this order and nothing besides.
func expect(t *testing.T, name string, want []string, got ...Finding) {
	t.Helper()
	text := brief(got...)
	if len(want) != len(text) {
		t.Errorf("%s: %q, want %q", name, text, want)
		return
	}
	for i := range want {
		if !strings.HasPrefix(text[i], want[i]) {
			t.Errorf("%s: %q, want %q", name, text[i], want[i])
		}
	}
	for _, f := range got {
		if (f.Advice != "") != (f.Status != OK) || f.Check == "" || f.Text == "" {
			t.Errorf("%s: advice is for what is not ok: %+v", name, f)
		}
	}
}

func TestJudgeRights(t *testing.T) {
	for name, tt := range map[string]struct {
		rights rights
		want   string
	}{
		"root":         {rights{0, true, true, nil}, "ok: root"},
		"nobody":       {rights{65534, false, false, nil}, "failure: user 65534 without CAP_NET_ADMIN"},
		"half":         {rights{7, true, false, nil}, "failure: user 7 without CAP_NET_BIND_SERVICE"},
		"capabilities": {rights{7, true, true, nil}, "ok: user 7"},
		"unreadable":   {rights{0, false, false, unix.EPERM}, "failure: the own capabilities cannot be read"},
	} {
		expect(t, name, []string{tt.want}, judgeRights(tt.rights))
	}
}

func TestJudgeKernel(t *testing.T) {
	for release, want := range map[string]string{
		"6.18.44-fc-v669": "ok: Linux 6.18", "6.1.0-18-amd64": "ok: ", "5.15.0-91-generic": "warning: Linux 5.15",
		"7.0-rc1": "ok: ", "6.0.1": "warning: ", "4": "warning: ", "10.2+": "ok: ",
	} {
		expect(t, release, []string{want}, judgeKernel(release))
	}
}

func TestJudgeFeatures(t *testing.T) {
	features := []nft.Feature{{Name: "sets"}, {Name: "socket expression", Module: "nft_socket", Err: unix.ENOENT}}
	expect(t, "one lacks", []string{
		"ok: sets", "failure: socket expression: the kernel refuses: no such file or directory; load the module nft_socket (modprobe nft_socket)",
		"failure: the whole table: ",
	}, judgeFeatures(features, unix.ENOENT)...)
	expect(t, "all", []string{"ok: sets", "ok: the whole table"}, judgeFeatures(features[:1], nil)...)
}

func TestJudgeTable(t *testing.T) {
	for _, tt := range []struct {
		name                              string
		there, dormant, running, panicked bool
		diff                              []string
		err                               error
		want                              string
	}{
		{"intact", true, false, true, false, nil, nil, "ok: table inet nftsentry is there and intact"},
		{"gone", false, false, true, false, nil, nil, "failure: no table"},
		{"not started", false, false, false, false, nil, nil, "warning: no table"},
		{"dormant", true, true, true, false, nil, nil, "failure: table inet nftsentry is dormant"},
		{"changed", true, false, true, false, []string{"a", "b", "c", "d", "e", "f"}, nil, "warning: table inet nftsentry is not what this configuration makes: a, b, c, d and 2 more"},
		{"not compared", true, false, true, false, nil, unix.EPERM, "ok: table inet nftsentry is there; it was not compared"},
		{"panic", false, false, false, true, nil, nil, "warning: no table inet nftsentry, because of"},
		{"panic with a daemon", true, false, true, true, nil, nil, "warning: all blocks are suspended"},
	} {
		expect(t, tt.name, []string{tt.want}, judgeTable(tt.there, tt.dormant, tt.running, tt.panicked, tt.diff, tt.err))
	}
}

func TestDifferences(t *testing.T) {
	drop, lead := survey.Rule{Drops: true}, survey.Rule{Leads: []string{"b"}}
	chains := func(all ...survey.Chain) survey.Table { return survey.Table{Chains: all} }
	a := survey.Chain{Name: "a", Hook: "prerouting", Priority: -310, Policy: "accept", Rules: []survey.Rule{drop, lead}}
	b := survey.Chain{Name: "b", Rules: []survey.Rule{drop}}
	moved, emptied, turned := a, a, a
	moved.Priority, emptied.Rules, turned.Rules = 0, nil, []survey.Rule{lead, drop}
	for name, tt := range map[string]struct {
		got  survey.Table
		want string
	}{
		"same":         {chains(b, a), ""},
		"missing":      {chains(a), "no chain b"},
		"foreign":      {chains(a, b, survey.Chain{Name: "c"}), "chain c is not ours"},
		"moved":        {chains(moved, b), "chain a has another place"},
		"flushed":      {chains(emptied, b), "chain a has other rules"},
		"turned":       {chains(turned, b), "chain a has other rules"},
		"all are gone": {chains(), "no chain a, no chain b"},
	} {
		if got := strings.Join(differences(chains(a, b), tt.got), ", "); got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

// table is a table with one base chain.
func table(family, name, chain, hook string, priority int, policy string, rules ...survey.Rule) survey.Table {
	typ := "filter"
	if priority == -100 {
		typ = "nat"
	}
	return survey.Table{Family: family, Name: name, Chains: []survey.Chain{{
		Name: chain, Hook: hook, Type: typ, Priority: priority, Policy: policy, Rules: rules,
	}}}
}

func TestJudgeChains(t *testing.T) {
	closed := survey.Rule{Drops: true, Always: true}
	dnat := survey.Rule{Redirected: true, Accepts: true}
	some, none, fixed := conf.Default().TCP, conf.TCP{}, conf.Default().TCP
	fixed.Port = 999
	for _, tt := range []struct {
		name  string
		table survey.Table
		tcp   conf.TCP
		want  string
	}{
		{"ours", table("inet", "nftsentry", "shield", "prerouting", -150, "accept"), some, "ok: no other base chain"},
		{"arp", table("arp", "filter", "input", "input", 0, "drop"), some, "ok: no other base chain"},
		{"ingress", table("netdev", "f", "in", "ingress", 0, "accept", closed), some, "warning: ingress 0 netdev f in (closed at its end): before all of ours"},
		{"first", table("ip", "raw", "PREROUTING", "prerouting", -400, "accept"), some, "ok: prerouting -400 ip raw PREROUTING: before all of ours"},
		{"between", table("ip", "mangle", "PREROUTING", "prerouting", -150, "accept"), some, "ok: prerouting -150 ip mangle PREROUTING: after our drop of new connections"},
		{"nat", table("ip", "nat", "PREROUTING", "prerouting", -100, "accept", survey.Rule{Translates: true}), some,
			"ok: prerouting -100 ip nat PREROUTING (leads connections elsewhere): before our sensors: what it leads elsewhere is no tripwire"},
		{"closed before sensors", table("ip", "raw", "PREROUTING", "prerouting", -300, "drop"), some,
			"warning: prerouting -300 ip raw PREROUTING (policy drop): after our drop of new connections, before our sensors: what it drops we do not notice, so that scans"},
		{"closed after sensors", table("ip", "f", "pre", "prerouting", 0, "drop"), some, "ok: prerouting 0 ip f pre (policy drop): after all of ours"},
		{"bridge", table("bridge", "f", "pre", "prerouting", 0, "accept", survey.Rule{Drops: true}), some, "ok: prerouting 0 bridge f pre (can drop): before all of ours, for what comes by a bridge"},
		{"bridge input", table("bridge", "f", "in", "input", 0, "accept"), some, "ok: input 0 bridge f in: before all of ours, for what comes by a bridge"},
		{"closed bridge", table("bridge", "f", "in", "input", 200, "drop"), some, "warning: input 200 bridge f in (policy drop): before all of ours, for what comes by a bridge"},
		{"last", table("inet", "firewalld", "filter_PREROUTING", "prerouting", 10, "accept"), some, "ok: prerouting 10 inet firewalld filter_PREROUTING: after all of ours"},
		{"firewalld", table("inet", "firewalld", "filter_INPUT", "input", 10, "accept", dnat, closed), some, "ok: input 10 inet firewalld filter_INPUT (closed at its end): after ours"},
		{"closed", table("ip", "filter", "INPUT", "input", 0, "drop"), some, "warning: input 0 ip filter INPUT (policy drop): it may keep connections from the decoy listener"},
		{"closed, port named", table("ip", "filter", "INPUT", "input", 0, "drop"), fixed, "ok: input 0 ip filter INPUT (policy drop): after ours: what it drops is noticed all the same; decoys answer if it lets TCP port 999 pass"},
		{"closed, no decoys", table("ip", "filter", "INPUT", "input", 0, "drop"), none, "ok: input 0 ip filter INPUT (policy drop): after ours"},
		{"open", table("ip", "filter", "INPUT", "input", 0, "accept", survey.Rule{Drops: true}), some, "ok: input 0 ip filter INPUT (can drop): after ours"},
	} {
		expect(t, tt.name, []string{tt.want}, judgeChains(survey.Ruleset{Tables: []survey.Table{tt.table}}, tt.tcp)...)
	}
}

func TestJudgePrograms(t *testing.T) {
	docker := survey.Table{Family: "ip", Name: "nat", Chains: []survey.Chain{{Name: "DOCKER", Rules: []survey.Rule{{Translates: true}, {}}}}}
	ruleset := survey.Ruleset{Tables: []survey.Table{docker, {Family: "inet", Name: "firewalld"}}}
	expect(t, "two", []string{"ok: firewalld: its reload", "ok: Docker: 1 published port: no tripwire"}, judgePrograms(ruleset)...)
	for _, p := range []survey.Program{
		survey.Firewalld, survey.UFW, survey.Docker, survey.Podman, survey.Kubernetes, survey.Libvirt, survey.Fail2ban,
		survey.CrowdSec, survey.SSHGuard, survey.Tailscale, survey.IPTables,
	} {
		if meanings[p] == "" {
			t.Errorf("nothing is said of %s", p)
		}
	}
}

func TestJudgeLegacy(t *testing.T) {
	expect(t, "none", []string{"ok: no rules"}, judgeLegacy(nil)...)
	expect(t, "two", []string{"warning: the old iptables is in use (filter, ip6 nat)"}, judgeLegacy([]string{"filter", "ip6 nat"})...)
}

func TestJudgeIPv6(t *testing.T) {
	ruleset := func(all ...survey.Table) survey.Ruleset { return survey.Ruleset{Tables: all} }
	closed4, closed6 := table("ip", "filter", "INPUT", "input", 0, "drop"), table("ip6", "filter", "INPUT", "input", 0, "drop")
	global := []string{"2001:db8::1"}
	for name, tt := range map[string]struct {
		global  []string
		looked  bool
		ruleset survey.Ruleset
		want    string
	}{
		"not in use": {nil, true, ruleset(closed4), "ok: no address"},
		"forgotten":  {global, true, ruleset(closed4), "warning: in use (2001:db8::1), and another firewall closes this host for IPv4 only"},
		"both":       {global, true, ruleset(closed4, closed6), "ok: in use (2001:db8::1), and guarded"},
		"inet":       {global, true, ruleset(table("inet", "f", "in", "input", 0, "drop")), "ok: in use (2001:db8::1), and guarded"},
		"no others":  {global, true, ruleset(), "ok: in use (2001:db8::1), and guarded"},
		"no root":    {global, false, ruleset(), "ok: in use (2001:db8::1); whether other firewalls"},
	} {
		expect(t, name, []string{tt.want}, judgeIPv6(tt.global, tt.looked, tt.ruleset)...)
	}
}

func TestJudgeConntrack(t *testing.T) {
	for name, tt := range map[string]struct {
		count, most int
		err         error
		want        string
	}{
		"at rest":    {5, 1000, nil, "ok: 5 of 1000 connections, 0 %; 20 probes of decoys and 10 of watched ports a second"},
		"three of 4": {750, 1000, nil, "ok: 750 of 1000"},
		"full":       {761, 1000, nil, "warning: 761 of 1000 connections, 76 %; 20 probes of decoys and 10 of watched ports a second are let in; raise net.netfilter.nf_conntrack_max, such as to 2000"},
		"unused":     {0, 0, fmt.Errorf("x: %w", fs.ErrNotExist), "ok: not in use yet"},
		"unreadable": {0, 0, unix.EACCES, "warning: its size cannot be read"},
	} {
		expect(t, name, []string{tt.want}, judgeConntrack(tt.count, tt.most, tt.err, 20, 10))
	}
}

func TestJudgeGroup(t *testing.T) {
	readers := []host.Reader{{Group: 5, Port: 77, Inode: 900}}
	ulogd := map[uint64]host.Process{900: {PID: 7, Name: "ulogd"}}
	running := api.Status{PID: 7}
	for _, tt := range []struct {
		name   string
		exam   exam
		group  uint16
		want   string
		gone   bool
		reader []host.Reader
	}{
		{"free", exam{}, 6, "ok: NFLOG group 6 is free", true, readers},
		{"taken", exam{holders: ulogd}, 5, `failure: NFLOG group 5 is taken by "ulogd" (process 7); stop`, true, readers},
		{"taken by nobody we know", exam{}, 5, "failure: NFLOG group 5 is taken by a program that cannot be told (netlink port 77)", true, readers},
		{"of a daemon that does not answer", exam{holders: ulogd, daemonErr: errors.New("no answer in time")}, 5, `warning: NFLOG group 5 is taken by "ulogd" (process 7), which may be our daemon`, false, readers},
		{"ours", exam{holders: ulogd, daemon: running}, 5, "ok: NFLOG group 5 is held by our daemon (process 7)", false, readers},
		{"another's beside ours", exam{holders: ulogd, daemon: api.Status{PID: 8}}, 5, `failure: NFLOG group 5 is taken by "ulogd"`, false, readers},
		{"ours in another namespace", exam{daemon: running}, 6, "warning: the daemon is running, and nobody reads", false, nil},
	} {
		if tt.gone {
			tt.exam.daemonErr = api.ErrNoDaemon
		}
		expect(t, tt.name, []string{tt.want}, tt.exam.judgeGroup("nflog", tt.group, tt.reader, "stop it"))
	}
}

func TestJudgeState(t *testing.T) {
	good := disk{path: "/s", at: "/s", folder: true, mode: 0o700, free: 1 << 30, inodes: 1000, counted: true}
	for name, tt := range map[string]struct {
		change func(*disk)
		want   []string
	}{
		"good":           {func(*disk) {}, []string{"ok: /s can be written to, with 1024 MiB left"}},
		"not there":      {func(d *disk) { d.at = "/"; d.mode = 0o777 }, []string{"ok: /s is not there yet"}},
		"a file":         {func(d *disk) { d.folder = false }, []string{"failure: /s is not a folder"}},
		"read-only":      {func(d *disk) { d.readOnly, d.writable = true, unix.EROFS }, []string{"failure: /s is on a file system that is read-only"}},
		"not allowed":    {func(d *disk) { d.writable = unix.EACCES }, []string{"failure: /s cannot be written to: permission denied"}},
		"full":           {func(d *disk) { d.free = 1000 }, []string{"failure: /s is full: 0 KiB and 1000 files"}},
		"no inodes":      {func(d *disk) { d.inodes = 0 }, []string{"failure: /s is full"}},
		"btrfs":          {func(d *disk) { d.inodes, d.counted = 0, false }, []string{"ok: "}},
		"little room":    {func(d *disk) { d.free = 2 << 20 }, []string{"warning: little room for /s: 2048 KiB", "ok: "}},
		"in memory":      {func(d *disk) { d.memory = true }, []string{"warning: /s is in memory"}},
		"for all":        {func(d *disk) { d.mode = 0o777 }, []string{"warning: /s (mode 0777) can be written to by others"}},
		"memory for all": {func(d *disk) { d.memory, d.mode = true, 0o770 }, []string{"warning: /s is in memory", "warning: /s (mode 0770)"}},
	} {
		d := good
		tt.change(&d)
		expect(t, name, tt.want, judgeState(d)...)
	}
}

func TestJudgeDaemon(t *testing.T) {
	s := api.Status{PID: 7, Version: "1", Mode: "enforce"}
	expect(t, "well", []string{"ok: running (process 7), mode enforce, with 0 blocks"}, judgeDaemon(s, nil, "1", "/s")...)
	expect(t, "none", []string{"warning: not running: nobody answers on /s"}, judgeDaemon(api.Status{}, fmt.Errorf("%w: x", api.ErrNoDaemon), "1", "/s")...)
	expect(t, "no right", []string{"warning: no right to ask on /s whether it is running and well; run it as root, or as a member of control.group"},
		judgeDaemon(api.Status{}, fmt.Errorf("no right: %w", fs.ErrPermission), "1", "/s")...)
	expect(t, "observe", []string{"ok: running (process 7), mode observe, which blocks nothing, with 0 blocks"},
		judgeDaemon(api.Status{PID: 7, Version: "1", Mode: "observe"}, nil, "1", "/s")...)
	expect(t, "mute", []string{"failure: no answer"}, judgeDaemon(api.Status{}, errors.New("no answer"), "1", "/s")...)
	s.Problems, s.Mended = []string{"the disk is full"}, 2
	expect(t, "ill", []string{
		"ok: running", "warning: it is version 1, and this program 2", "warning: the disk is full", "warning: others have touched our table, which was made again 2 times",
	}, judgeDaemon(s, nil, "2", "/s")...)
}

func TestJudgeSandbox(t *testing.T) {
	none := errors.New("this kernel has no Landlock")
	expect(t, "in it", []string{"ok: the daemon has no files but its own (Landlock, ABI 7)"}, judgeSandbox(api.Sandbox{Landlock: 7}, true, 7, nil))
	expect(t, "old", []string{"warning: the daemon has no files but its own (Landlock, ABI 2)"}, judgeSandbox(api.Sandbox{Landlock: 2}, true, 2, nil))
	expect(t, "hooks", []string{"warning: the daemon has all files of its user: hooks"}, judgeSandbox(api.Sandbox{Reason: "hooks"}, true, 7, nil))
	expect(t, "no daemon", []string{"ok: Landlock, ABI 7"}, judgeSandbox(api.Sandbox{}, false, 7, nil))
	expect(t, "no Landlock", []string{"warning: this kernel has no Landlock"}, judgeSandbox(api.Sandbox{}, false, 0, none))
	expect(t, "no Landlock, daemon", []string{"warning: this kernel has no Landlock"}, judgeSandbox(api.Sandbox{Reason: "x"}, true, 0, none))
}

func TestJudgeClock(t *testing.T) {
	now := time.Unix(1e9, 0)
	expect(t, "well", []string{"ok: synchronised"}, judgeClock(now, now.Add(-time.Hour), true))
	expect(t, "no block", []string{"ok: synchronised"}, judgeClock(now, time.Time{}, true))
	expect(t, "alone", []string{"warning: not synchronised"}, judgeClock(now, now, false))
	expect(t, "back", []string{"warning: it is 2001-09-09T01:46:40Z, which is before the newest block on record (2001-09-09T02:46:40Z)"}, judgeClock(now, now.Add(time.Hour), true))
}

func TestJudgeGuards(t *testing.T) {
	processes := []host.Process{{PID: 1, Name: "init"}, {PID: 2, Name: "portsentry"}, {PID: 3, Name: "portsentry"}, {PID: 4, Name: "fail2ban-server"}}
	expect(t, "two", []string{"warning: portsentry is running (process 2)", "ok: fail2ban-server is running (process 4)"}, judgeGuards(processes, true)...)
	expect(t, "none", []string{"ok: no other guard"}, judgeGuards(processes[:1], true)...)
	expect(t, "hidden", []string{"warning: other guards cannot be looked for"}, judgeGuards(processes[:1], false)...)
	expect(t, "hidden but for one", []string{"warning: portsentry is running"}, judgeGuards(processes[:2], false)...)
}

func TestJudgePorts(t *testing.T) {
	cfg := conf.Default()
	expect(t, "usual", []string{"ok: sessions on port 22 protect"}, judgePorts([]uint16{22}, true, cfg)...)
	expect(t, "none", []string{"ok: no sshd"}, judgePorts(nil, true, cfg)...)
	expect(t, "not told", []string{"warning: sshd cannot be looked for"}, judgePorts(nil, false, cfg)...)
	expect(t, "the session's alone", []string{"ok: sessions on port 22 protect"}, judgePorts([]uint16{22}, false, cfg)...)
	expect(t, "high", []string{"warning: sshd serves port 2222, whose sessions do not protect"}, judgePorts([]uint16{22, 2222}, true, cfg)...)
	expect(t, "watched", []string{"warning: sshd serves port 99", "warning: port 99 of sshd would be a tripwire"}, judgePorts([]uint16{99}, true, cfg)...)
}

func TestJudgeSession(t *testing.T) {
	a := netip.MustParseAddr("192.0.2.7")
	for name, tt := range map[string]struct {
		ignored               string
		blocked, peer, looked bool
		want                  string
	}{
		"blocked": {"", true, true, true, "warning: you come from 192.0.2.7, which is blocked: your next connection fails; nftsentry unblock 192.0.2.7"},
		"ignored": {"gateway", false, false, true, "ok: you come from 192.0.2.7, which is never blocked (gateway)"},
		"peer":    {"", false, true, true, "ok: you come from 192.0.2.7, a peer"},
		"neither": {"", false, false, true, "warning: you come from 192.0.2.7, which is neither"},
		"no root": {"", false, false, false, "ok: you come from 192.0.2.7; whether it is blocked was not looked at"},
	} {
		expect(t, name, []string{tt.want}, judgeSession(a, tt.ignored, tt.blocked, tt.peer, tt.looked))
	}
}

func TestParseSession(t *testing.T) {
	for s, want := range map[string]string{
		"192.0.2.7 50000 192.0.2.1 22": "192.0.2.7 22", "::ffff:192.0.2.7 1 ::1 2222": "192.0.2.7 2222",
		"fe80::1%eth0 1 fe80::2%eth0 22": "fe80::1 22", "": "invalid IP 0", "x 1 y 22": "invalid IP 0", "192.0.2.7 1 y 65536": "invalid IP 0",
	} {
		if a, port := parseSession(s); fmt.Sprintf("%s %d", a, port) != want {
			t.Errorf("%q: %s %d, want %s", s, a, port, want)
		}
	}
}

func TestJudgeConfig(t *testing.T) {
	_, mistakes := conf.Parse("f.toml", []byte("mode = 1\nmood = 2"))
	expect(t, "mistakes", []string{"failure: f.toml has 2 mistakes, first: f.toml:1:8: mode = 1"}, judgeConfig("f.toml", mistakes))
	expect(t, "unreadable", []string{"failure: permission denied; the checks below"}, judgeConfig("f.toml", fs.ErrPermission))
	expect(t, "defaults", []string{"ok: built-in defaults"}, judgeConfig("", nil))
	expect(t, "correct", []string{"ok: f.toml is correct"}, judgeConfig("f.toml", nil))
}

func TestJudgeDecoys(t *testing.T) {
	decoys := []conf.PortRange{{First: 23, Last: 23}}
	expect(t, "none", []string{"ok: none"}, judgeDecoys(nil, decoys, nil))
	expect(t, "nothing at all", []string{"warning: no decoys, and no watched ports either"}, judgeDecoys(nil, nil, nil))
	expect(t, "owned", []string{"ok: a service owns TCP port 23 now"}, judgeDecoys(decoys, nil, decoys))
	expect(t, "free", []string{"ok: no service owns any"}, judgeDecoys(decoys, nil, nil))
}

func TestJudgeListener(t *testing.T) {
	named, excluding := conf.TCP{Port: 999}, conf.TCP{Exclude: []conf.PortRange{{First: 1, Last: 1022}}}
	for _, tt := range []struct {
		name  string
		tcp   conf.TCP
		taken []uint16
		want  []string
	}{
		{"defaults", conf.Default().TCP, []uint16{1023, 999}, []string{}},
		{"named and free", named, []uint16{1023}, []string{}},
		{"named and taken", named, []uint16{999}, []string{"failure: a service owns TCP port 999, where tcp.port has"}},
		{"one is left", excluding, []uint16{999}, []string{}},
		{"none is left", excluding, []uint16{1023}, []string{"failure: all ports from 512 to 1023 are in tcp.decoy or"}},
	} {
		taken := map[uint16]bool{}
		for _, port := range tt.taken {
			taken[port] = true
		}
		expect(t, tt.name, tt.want, judgeListener(tt.tcp, conf.PortRange{First: 512, Last: 1023}, taken)...)
	}
}

func TestJudgeIgnored(t *testing.T) {
	expect(t, "none", []string{}, judgeIgnored(0, nil)...)
	expect(t, "well", []string{"ok: 2 files of ignore.files can be read"}, judgeIgnored(2, nil)...)
	expect(t, "wrong", []string{"failure: ignore.files has 1 mistake, first: /list:3: "},
		judgeIgnored(1, []string{"/list:3: odd"})...)
}

func TestJudgeHooks(t *testing.T) {
	a, b := errors.New("hook.exec[0]: not there"), errors.New("hook.mail[0]: not root's")
	expect(t, "none", []string{}, judgeHooks(0, nil)...)
	expect(t, "well", []string{"ok: 2 hooks with all"}, judgeHooks(2, nil)...)
	expect(t, "one wrong", []string{"failure: hook.exec[0]: not there; mend it"}, judgeHooks(2, a)...)
	expect(t, "two wrong", []string{"failure: hook.exec[0]: not there; mend it", "failure: hook.mail[0]: not root's; mend it"}, judgeHooks(2, errors.Join(a, b))...)
}

// TestSession has the variable taken out of the environment, as sudo does.
func TestSession(t *testing.T) {
	proc, own := t.TempDir(), strconv.Itoa(os.Getppid())
	for name, text := range map[string]string{
		own + "/environ": "A=1\x00", own + "/stat": own + " (a) b (c) S 500 1 1",
		"500/environ": "HOME=/\x00SSH_CONNECTION=192.0.2.7 50000 192.0.2.1 22\x00", "500/stat": "500 (sshd) S 1 1 1",
	} {
		path := filepath.Join(proc, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv(sessionEnv, "192.0.2.8 50000 192.0.2.1 2222") // put back at the end
	if a, port := session(proc); a.String() != "192.0.2.8" || port != 2222 {
		t.Errorf("own: %v, %d", a, port)
	}
	if err := os.Unsetenv(sessionEnv); err != nil {
		t.Fatal(err)
	}
	if a, port := session(proc); a.String() != "192.0.2.7" || port != 22 {
		t.Errorf("of a process before: %v, %d", a, port)
	}
	if a, port := session(t.TempDir()); a.IsValid() || port != 0 {
		t.Errorf("none: %v, %d", a, port)
	}
}

func TestWorst(t *testing.T) {
	ok, warning, failure := Finding{Status: OK}, Finding{Status: Warning}, Finding{Status: Failure}
	for want, all := range map[Status][]Finding{OK: {ok}, Warning: {ok, warning, ok}, Failure: {failure, warning}} {
		if got := Worst(all); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
