package main

import (
	"fmt"
	"regexp"
	"strings"

	"nftsentry/conf"
	"nftsentry/conf/portsentry"
)

// responses are ours for BLOCK_TCP and BLOCK_UDP 0, 1 and 2.
var responses = []string{"log", "block", "run"}

// respond translates BLOCK_TCP and BLOCK_UDP.
func (t *translation) respond() {
	for _, one := range []struct {
		key, table string
		value      int
	}{{"BLOCK_TCP", "tcp", t.config.BlockTCP}, {"BLOCK_UDP", "udp", t.config.BlockUDP}} {
		c, set := t.change(one.key)
		c.set(one.table, "respond", quoted(responses[one.value]))
		if !set {
			c.note("without it, Portsentry blocked nothing")
		}
		if one.value != 1 && t.config.Version == portsentry.V1 {
			c.note("Portsentry wrote \"Blocked\" to its files all the same; ours have none of that, as nothing is blocked")
		}
		t.add(c)
	}
}

// blocks tells whether a protocol was blocked: "tcp", "udp" or "" for either.
func (t *importSource) blocks(protocol string) bool {
	switch protocol {
	case "tcp":
		return t.config.BlockTCP == 1
	case "udp":
		return t.config.BlockUDP == 1
	}
	return t.config.BlockTCP == 1 || t.config.BlockUDP == 1
}

// maxTrigger is the most that trigger.connects and trigger.ports take.
const maxTrigger = 1000

// trigger translates SCAN_TRIGGER: N fires on the Nth hit, 0 and 1 alike.
func (t *translation) trigger() {
	c, _ := t.change("SCAN_TRIGGER")
	n := max(t.config.Trigger, 1)
	fires := fmt.Sprintf("hit %d fires, as before, and is no \"grace\"", n)
	if n > maxTrigger {
		n, fires = maxTrigger, fmt.Sprintf("%d is the most that ours takes", maxTrigger)
	}
	c.set("trigger", "connects", fmt.Sprint(n))
	c.set("trigger", "ports", fmt.Sprint(n))
	if n == 1 {
		c.note("the first hit fires, as before. A lone packet can be forged or a slip: for ports, our own default is 3")
	} else {
		c.set("trigger", "window", quoted("1d"))
		c.note("%s. For packets, distinct ports count and not hits: one port tried twice is one. Portsentry never forgot a hit by time; the longest window is a day, and our own default is 1m", fires)
	}
	t.add(c)
}

// ends says how blocks end, for which Portsentry has no setting.
func (t *translation) ends() {
	d := conf.Default().Block
	c := change{setting: "(end of a block)", old: "(none)"}
	c.set("block", "timeout", quoted(conf.FormatDuration(d.Timeout)))
	c.note("Portsentry never ended a block. Ours end by themselves, so that no cron job need empty a list of blocked hosts or take rules out: turn off the one that did. Who comes back is blocked for longer, see block.escalate; who only sent packets which can be forged, for block.unproven at most. For ever is \"365d\" here")
	t.add(c)
}

// ignore translates IGNORE_FILE.
func (t *translation) ignore() {
	c, set := t.change("IGNORE_FILE")
	if !set {
		return
	}
	c.set("ignore", "files", "["+quoted(t.ignoreFile)+"]")
	if t.ignoreFile != t.config.Get("IGNORE_FILE") {
		c.note("at each start, portsentry.ignore was made of this file. The addresses of this host, its gateways and resolvers are ignored without being listed")
	}
	t.add(c)
}

// blockers are programs that do nothing else for a route than what the kernel's set does.
var blockers = regexp.MustCompile(`(?:^|/)(route|ip|iptables|ip6tables|ipchains|ipfwadm|ipfw|ipset|nft|nftables|ufw|firewall-cmd)(?:\s|$)`)

// route says what becomes of KILL_ROUTE.
func (t *translation) route() {
	c, set := t.change("KILL_ROUTE")
	switch {
	case !set || t.config.Get("KILL_ROUTE") == "":
		if t.blocks("") {
			c.gone = "the set in the kernel blocks"
			c.note("without it, Portsentry blocked nobody in the network; nftsentry does: write respond = \"log\" if it shall not")
			t.add(c)
		}
		return
	case blockers.MatchString(t.config.Get("KILL_ROUTE")):
		c.gone = "the set in the kernel drops what a blocked source sends, and lets it go when its time is up"
		c.note("rules and routes that it has made are still there: they go at the next boot, or take them out by hand")
	default:
		c.gone = "the set in the kernel blocks"
		c.note("if this program does more than to block, make a [[hook.exec]] of it, as of KILL_RUN_CMD")
	}
	t.add(c)
}

// hostsDeny translates KILL_HOSTS_DENY.
func (t *translation) hostsDeny() {
	c, set := t.change("KILL_HOSTS_DENY")
	if !set || t.config.Get("KILL_HOSTS_DENY") == "" {
		return
	}
	c.set("hook.hosts_deny", "line", c.old)
	c.note("lines go again when their blocks end. Those that Portsentry has written stay: take them out of /etc/hosts.deny by hand")
	c.note("where hooks run as the user nftsentry-hook, as under systemd, he cannot write /etc/hosts.deny: file and line have to be others, see docs/hooks.md")
	t.add(c)
}

// rest says what becomes of the other settings.
func (t *translation) rest() {
	t.banner()
	t.gone("RESOLVE_HOST", "names are never looked up, as that tells a scanner that it was seen")
	dir := conf.Default().State.Dir
	v2 := t.config.Version == portsentry.V2
	was := []string{}
	if v2 {
		was = []string{"it was binary and is text now, in the format of Portsentry 1.2"}
	}
	t.gone("BLOCKED_FILE", fmt.Sprintf("it is portsentry.blocked.tcp and .udp in state.dir, by default %s", dir), was...)
	if v2 {
		was = []string{"Portsentry 2.x emptied its own at each start; ours only grows, and its lines are those of 1.2"}
	}
	t.gone("HISTORY_FILE", fmt.Sprintf("it is portsentry.history in state.dir, by default %s", dir), was...)
}

// banner translates PORT_BANNER.
func (t *translation) banner() {
	c, set := t.change("PORT_BANNER")
	if !set || t.config.Get("PORT_BANNER") == "" {
		return
	}
	c.set("tcp", "banner", c.old)
	if t.modes.TCP.Value != "tcp" {
		c.note("it was never sent, as the mode was not tcp; nor will it be while there are no decoys")
	}
	t.add(c)
}

// maxWords is how many words a command of ours may have.
const maxWords = 64

// command translates KILL_RUN_CMD.
func (t *translation) command() {
	c, set := t.change("KILL_RUN_CMD")
	line := t.config.Get("KILL_RUN_CMD")
	if !set || line == "" {
		t.gone("KILL_RUN_CMD_FIRST", "there is no KILL_RUN_CMD")
		return
	}
	when := "after"
	if t.config.CommandFirst {
		when = "before"
	}
	parsed := portsentry.ParseCommand(line)
	if len(parsed.Words) > maxWords {
		parsed = portsentry.Command{Shell: fmt.Sprintf("more than %d words", maxWords)}
	}
	if parsed.Shell == "" && strings.HasPrefix(parsed.Words[0], "/") {
		c.set("hook.exec", "command", array(parsed.Words))
		c.set("hook.exec", "when", quoted(when))
		c.note("it runs without a shell, once for each block")
		t.add(c)
	} else {
		t.add(script(c, line, parsed, when))
	}
	t.gone("KILL_RUN_CMD_FIRST", fmt.Sprintf("it is when = %q of the hook", when))
}

// scriptPath is where we suggest to put what takes a shell.
const scriptPath = "/etc/nftsentry/notify.sh"

// script leaves a command commented out that we do not run, and says how to have it run.
func script(c change, line string, parsed portsentry.Command, when string) change {
	why := "takes a shell for " + parsed.Shell
	if parsed.Shell == "" {
		why = fmt.Sprintf("has no absolute path: %q", parsed.Words[0])
	}
	c.offer("hook.exec", "command", array([]string{scriptPath, "$TARGET$", "$PORT$", "$MODE$"}))
	c.offer("hook.exec", "when", quoted(when))
	c.note("not taken over, as it %s, and nftsentry runs no shell. Put these lines into %s, make it executable (chmod 755), and take the comment signs off the hook:", why, scriptPath)
	for _, l := range portsentry.ParseScript(line) {
		c.note("    %s", l)
	}
	return c
}

// array is an array of texts as TOML.
func array(items []string) string {
	var out []string
	for _, item := range items {
		out = append(out, quoted(item))
	}
	return "[" + strings.Join(out, ", ") + "]"
}
