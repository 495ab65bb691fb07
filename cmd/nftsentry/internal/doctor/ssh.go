package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"nftsentry/conf"
	"nftsentry/controller/api"
	"nftsentry/nft"
)

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
	client, port := session()
	ports := e.sshPorts()
	if port != 0 && !slices.Contains(ports, port) {
		ports = append(ports, port)
	}
	all := judgePorts(ports, e.Config)
	if client.IsValid() {
		all = append(all, judgeSession(client, e.ignoredBecause(client), e.blocked(client), e.peer(client), e.rights.admin))
	}
	return all
}

// sshPorts are those where sshd waits for others than this host, as far as the caller may know.
func (e *exam) sshPorts() []uint16 {
	listeners, _ := e.proc.Listeners() // without, only the session's own is known
	var ports []uint16
	for _, l := range listeners {
		if holder := e.holders[l.Inode]; holder.Runs("sshd") && !l.Address.Addr().IsLoopback() {
			ports = append(ports, l.Address.Port())
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}

func judgePorts(ports []uint16, cfg conf.Config) []Finding {
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
