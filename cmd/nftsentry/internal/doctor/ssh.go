package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"nftsentry/conf"
	"nftsentry/controller/api"
	"nftsentry/nft"
)

const sessionEnv = "SSH_CONNECTION"

// session is where the caller's SSH session comes from, and the port of the server; invalid and 0 for none. What sudo and
// su have taken out of the environment is in that of a process before.
func session(proc string) (client netip.Addr, port uint16) {
	if s, own := os.LookupEnv(sessionEnv); own {
		return parseSession(s)
	}
	const most = 32
	for pid, n := os.Getppid(), 0; pid > 1 && n < most; pid, n = parent(proc, pid), n+1 {
		env, _ := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "environ")) // that of others is for root
		for v := range strings.SplitSeq(string(env), "\x00") {
			if s, found := strings.CutPrefix(v, sessionEnv+"="); found {
				return parseSession(s)
			}
		}
	}
	return netip.Addr{}, 0
}

// parent is the process that a process was started by; 0 if that cannot be told.
func parent(proc string, pid int) int {
	stat, _ := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "stat"))
	f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])) // names may have blanks in them
	if len(f) < 2 {
		return 0
	}
	n, _ := strconv.Atoi(f[1])
	return n
}

// parseSession reads SSH_CONNECTION: the address and port of the client, and those of the server.
func parseSession(s string) (client netip.Addr, port uint16) {
	f := strings.Fields(s)
	if len(f) != 4 {
		return netip.Addr{}, 0
	}
	a, err := netip.ParseAddr(f[0])
	n, perr := strconv.ParseUint(f[3], 10, 16)
	if err != nil || perr != nil {
		return netip.Addr{}, 0
	}
	return a.Unmap().WithZone(""), uint16(n)
}

func (e *exam) checkSSH(context.Context) []Finding {
	client, port := session("/proc")
	ports, all := e.sshPorts()
	if port != 0 && !slices.Contains(ports, port) {
		ports = append(ports, port)
	}
	found := judgePorts(ports, all, e.Config)
	if client.IsValid() {
		found = append(found, judgeSession(client, e.ignoredBecause(client), e.blocked(client), e.peer(client), e.rights.admin))
	}
	return found
}

// sshPorts are those where sshd waits for others than this host, and whether that is all: users are not told who waits.
func (e *exam) sshPorts() (ports []uint16, all bool) {
	listeners, err := e.proc.Listeners()
	all = err == nil
	for _, l := range listeners {
		if l.Address.Addr().IsLoopback() {
			continue
		}
		holder, known := e.holders[l.Inode]
		all = all && (known || e.rights.uid == 0) // those of root are the kernel's own
		if holder.Runs("sshd") {
			ports = append(ports, l.Address.Port())
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports), all
}

func judgePorts(ports []uint16, told bool, cfg conf.Config) []Finding {
	const c check = "ssh"
	var all []Finding
	for _, p := range ports {
		if !conf.Contains(cfg.Ignore.Sessions, p) {
			all = append(all, c.warn(fmt.Sprintf("add %d to ignore.sessions", p),
				"sshd serves port %d, whose sessions do not protect their source: a forged packet in your name can have you blocked", p))
		}
		if conf.Contains(cfg.TCP.Decoys(), p) || conf.Contains(cfg.TCP.Watched(), p) {
			all = append(all, c.warn(fmt.Sprintf("add %d to tcp.exclude", p),
				"port %d of sshd would be a tripwire if sshd did not run for long", p))
		}
	}
	switch {
	case len(all) > 0:
		return all
	case len(ports) == 0 && !told:
		return []Finding{c.warn("run it as root", "sshd cannot be looked for: who serves the open ports is told to root alone")}
	case len(ports) == 0:
		return []Finding{c.ok("no sshd was found")}
	}
	return []Finding{c.ok("sessions on port %s protect their source, and it is no tripwire", join(ports))}
}

func join(ports []uint16) string {
	var out []string
	for _, p := range ports {
		out = append(out, strconv.Itoa(int(p)))
	}
	return strings.Join(out, ", ")
}

// judgeSession is about the session by which the caller administers this host.
func judgeSession(client netip.Addr, ignored string, blocked, peer, looked bool) Finding {
	const c check = "session"
	switch {
	case blocked:
		return c.warn(fmt.Sprintf("nftsentry unblock %s", client), "you come from %s, which is blocked: your next connection fails", client)
	case ignored != "":
		return c.ok("you come from %s, which is never blocked (%s)", client, ignored)
	case peer:
		return c.ok("you come from %s, a peer: packets that can be forged do not count against it", client)
	case !looked:
		return c.ok("you come from %s; whether it is blocked was not looked at", client)
	}
	return c.warn(fmt.Sprintf("add %s to ignore.sources, if it is always yours", client),
		"you come from %s, which is neither ignored nor a peer now: touching a decoy blocks you", client)
}

// ignoredBecause says why a source is never blocked; "" if it may be.
func (e *exam) ignoredBecause(a netip.Addr) string {
	if slices.ContainsFunc(e.Config.Ignore.Sources, func(p netip.Prefix) bool { return p.Contains(a) }) {
		return "ignore.sources"
	}
	if !e.Config.Ignore.Host {
		return ""
	}
	for reason, list := range map[string][]netip.Addr{
		"own address": e.facts.Addresses, "gateway": e.facts.Gateways, "resolver": e.facts.Resolvers,
	} {
		if slices.Contains(list, a) {
			return reason
		}
	}
	return ""
}

// ask asks our table, without which there is neither block nor peer.
func (e *exam) ask(question func(*nft.Table) (bool, error)) bool {
	if _, there := e.ours(); !e.rights.admin || !there {
		return false
	}
	t, err := nft.Open(0, e.Config.Block.Prefix6)
	if err != nil {
		return false
	}
	yes, err := question(t)
	return errors.Join(err, t.Close()) == nil && yes
}

func (e *exam) peer(a netip.Addr) bool {
	return e.ask(func(t *nft.Table) (bool, error) { return t.Peer(a) })
}

// blocked tells whether a source is blocked: the kernel knows of hosts, the daemon of prefixes too.
func (e *exam) blocked(a netip.Addr) bool {
	for _, b := range e.blocks {
		if p, err := api.ParseSource(b.Source); err == nil && p.Contains(a) {
			return true
		}
	}
	return e.ask(func(t *nft.Table) (bool, error) {
		for _, bits := range []int{a.BitLen(), e.Config.Block.Prefix6} {
			p := netip.PrefixFrom(a, min(bits, a.BitLen())).Masked()
			if a.Is4() {
				p = netip.PrefixFrom(a, a.BitLen())
			}
			if _, found, err := t.Left(p); found || err != nil {
				return found, err
			}
		}
		return false, nil
	})
}
