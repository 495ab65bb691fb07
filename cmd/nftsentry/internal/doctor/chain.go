package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"nftsentry/conf"
	"nftsentry/nft"
	"nftsentry/nft/survey"
)

// looked tells whether the ruleset could be read.
func (e *exam) looked() bool { return e.rights.admin && e.rulesetErr == nil }

func (e *exam) checkChains(context.Context) []Finding {
	if !e.looked() {
		return nil
	}
	return judgeChains(e.ruleset, e.Config.TCP)
}

// Our first and our last base chain, both in the prerouting hook.
const (
	firstPriority = -310 // raw - 10
	lastPriority  = -49  // dstnat + 51
)

// judgeChains says of each base chain of others where it stands, and what that means.
func judgeChains(r survey.Ruleset, tcp conf.TCP) []Finding {
	const c check = "chain"
	var all []Finding
	for _, b := range r.Bases() {
		if b.Table.Family == "arp" || b.Table.Family == "inet" && b.Table.Name == nft.TableName {
			continue
		}
		switch b.Chain.Hook {
		case "ingress", "prerouting":
			all = append(all, judgeBefore(c, b))
		case "input":
			all = append(all, judgeInput(c, b, tcp))
		}
	}
	if len(all) == 0 {
		return []Finding{c.ok("no other base chain sees packets to this host")}
	}
	return all
}

// describe names a base chain and what it can do.
func describe(b survey.Base) string {
	var can []string
	switch {
	case b.Chain.Policy == "drop":
		can = append(can, "policy drop")
	case b.Closed():
		can = append(can, "closed at its end")
	case b.Drops():
		can = append(can, "can drop")
	}
	if b.Translates() {
		can = append(can, "leads connections elsewhere")
	}
	if len(can) == 0 {
		return b.String()
	}
	return fmt.Sprintf("%s (%s)", b, strings.Join(can, ", "))
}

// judgeBefore is for a chain of the prerouting hook or before. A closed one before our sensors keeps scans from them.
func judgeBefore(c check, b survey.Base) Finding {
	if b.Closed() && (early(b) || b.Chain.Priority <= lastPriority) {
		return c.warn("let the ports of tcp.decoy and tcp.watch pass there, or drop in an input chain of the family inet instead",
			"%s: %s, so that scans of ports which it does not let pass are stopped there, but by nobody noticed", describe(b), place(b))
	}
	return c.ok("%s: %s", describe(b), place(b))
}

// early tells whether a chain sees packets before any of the prerouting hook of IPv4 and IPv6.
func early(b survey.Base) bool { return b.Chain.Hook == "ingress" || b.Table.Family == "bridge" }

// place says where a chain of the prerouting hook or before stands.
func place(b survey.Base) string {
	c := b.Chain
	switch {
	case b.Table.Family == "bridge":
		return "before all of ours, for what comes by a bridge: what it drops we never see"
	case c.Hook == "ingress", c.Priority < firstPriority:
		return "before all of ours: what it drops we never see"
	case c.Priority > lastPriority:
		return "after all of ours: what we drop it never sees"
	case c.Type == "nat":
		return "before our sensors: what it leads elsewhere is no tripwire, and is not for blocked sources"
	}
	return "after our drop of new connections, before our sensors: what it drops we do not notice"
}

// judgeInput is for a chain that filters what comes to this host. All come after ours; a closed one stops connections
// that were led to the decoy listener, unless it says otherwise.
func judgeInput(c check, b survey.Base, tcp conf.TCP) Finding {
	const after = "after ours: what it drops is noticed all the same"
	switch {
	case b.Table.Family == "bridge":
		return judgeBefore(c, b)
	case !b.Closed() || b.LetsRedirected() || len(tcp.Decoys()) == 0:
		return c.ok("%s: %s", describe(b), after)
	case tcp.Port != 0:
		return c.ok("%s: %s; decoys answer if it lets TCP port %d pass (tcp.port)", describe(b), after, tcp.Port)
	}
	return c.warn("set tcp.port to a free port such as 999, and let TCP port 999 pass there: nothing but decoy connections can reach it",
		"%s: it may keep connections from the decoy listener, so that touching a decoy counts as a lone packet, not as a connection", describe(b))
}

func (e *exam) checkPrograms(context.Context) []Finding {
	if !e.looked() {
		return nil
	}
	return judgePrograms(e.ruleset)
}

// meanings says what a program beside us means, in a sentence.
var meanings = map[survey.Program]string{
	survey.Firewalld:  "its reload leaves our table alone; ports that it closes are still noticed",
	survey.UFW:        "its rules come after ours; ports that it closes are still noticed",
	survey.Docker:     "%s: no tripwire, as it leads to a container, and blocked sources do not reach that either",
	survey.Podman:     "%s: no tripwire, as it leads to a container, and blocked sources do not reach that either",
	survey.Kubernetes: "services are no tripwires, and blocked sources do not reach them; put the networks of nodes and pods into ignore.sources",
	survey.Libvirt:    "guests touch our decoys as any neighbour does; put their bridge, such as virbr0, into ignore.interfaces if they may",
	survey.Fail2ban:   "it blocks by log files, in a table of its own; both hold at once",
	survey.CrowdSec:   "it blocks in a table of its own; both hold at once",
	survey.SSHGuard:   "it blocks in a table of its own; both hold at once",
	survey.Tailscale:  "put its interface, such as tailscale0, into ignore.interfaces if its peers are trusted",
	survey.IPTables:   "iptables-nft has rules here; they and ours hold at once",
}

func judgePrograms(r survey.Ruleset) []Finding {
	const c check = "firewall"
	var all []Finding
	for _, p := range r.Programs() {
		text := meanings[p]
		if p == survey.Docker || p == survey.Podman {
			text = fmt.Sprintf(text, plural(r.Published(p), "published port"))
		}
		all = append(all, c.ok("%s: %s", p, text))
	}
	return all
}

func (e *exam) checkLegacy(context.Context) []Finding {
	tables, err := e.proc.Legacy()
	if err != nil {
		return nil // only root may know, which is said already
	}
	return judgeLegacy(tables)
}

func judgeLegacy(tables []string) []Finding {
	const c check = "iptables"
	if len(tables) == 0 {
		return []Finding{c.ok("no rules of the old iptables, which would not show in nftables")}
	}
	return []Finding{c.warn("look at them with iptables-legacy-save, and move them to nftables",
		"the old iptables is in use (%s): its rules hold beside ours, and were not looked at", strings.Join(tables, ", "))}
}

func (e *exam) checkIPv6(context.Context) []Finding {
	if e.factsErr != nil {
		return []Finding{check("ipv6").warn("see whether the kernel has rtnetlink", "the addresses of this host cannot be read: %v", e.factsErr)}
	}
	var global []string
	for _, a := range e.facts.Addresses {
		if a.Is6() && a.IsGlobalUnicast() {
			global = append(global, a.String())
		}
	}
	return judgeIPv6(global, e.looked(), e.ruleset)
}

// judgeIPv6 looks for hosts whose IPv6 was forgotten by whoever wrote their firewall. We guard both.
func judgeIPv6(global []string, looked bool, r survey.Ruleset) []Finding {
	const c check = "ipv6"
	switch {
	case len(global) == 0:
		return []Finding{c.ok("no address but link-local ones; it is guarded as IPv4 is")}
	case !looked:
		return []Finding{c.ok("in use (%s); whether other firewalls have forgotten it was not looked at", some(global, 2))}
	}
	closed := func(families ...string) bool {
		return slices.ContainsFunc(r.Bases(), func(b survey.Base) bool {
			return b.Chain.Hook == "input" && slices.Contains(families, b.Table.Family) && b.Closed()
		})
	}
	if closed("ip") && !closed("ip6", "inet") {
		return []Finding{c.warn("make the same rules for IPv6",
			"in use (%s), and another firewall closes this host for IPv4 only; we guard both", some(global, 2))}
	}
	return []Finding{c.ok("in use (%s), and guarded as IPv4 is", some(global, 2))}
}
