package survey

import (
	"slices"
	"strings"
)

// A Program is one that is known to keep rules in nftables.
type Program string

// The programs. IPTables stands for whoever uses iptables-nft, and does not show by the names of chains.
const (
	Firewalld  Program = "firewalld"
	UFW        Program = "ufw"
	Docker     Program = "Docker"
	Podman     Program = "Podman"
	Kubernetes Program = "Kubernetes"
	Libvirt    Program = "libvirt"
	Fail2ban   Program = "fail2ban"
	CrowdSec   Program = "CrowdSec"
	SSHGuard   Program = "sshguard"
	Tailscale  Program = "Tailscale"
	IPTables   Program = "iptables"
)

// marks say by what a program is known: the names of its tables, and how those of its chains begin. In tables of
// iptables-nft several programs have chains.
var marks = []struct {
	program Program
	tables  []string
	chains  []string
}{
	{Firewalld, []string{"firewalld"}, nil},
	{UFW, nil, []string{"ufw-", "ufw6-"}},
	{Docker, []string{"docker-bridges"}, []string{"DOCKER"}},
	{Podman, []string{"netavark"}, []string{"NETAVARK", "CNI-"}},
	{Kubernetes, []string{"kube-proxy"}, []string{"KUBE-"}},
	{Libvirt, []string{"libvirt_network"}, []string{"LIBVIRT_"}},
	{Fail2ban, []string{"f2b-table"}, []string{"f2b-"}},
	{CrowdSec, []string{"crowdsec", "crowdsec6"}, []string{"CROWDSEC"}},
	{SSHGuard, []string{"sshguard"}, []string{"sshguard"}},
	{Tailscale, nil, []string{"ts-"}},
}

// Programs are those that have chains in a table.
func (t Table) Programs() []Program {
	var all []Program
	for _, m := range marks {
		if slices.Contains(m.tables, t.Name) || slices.ContainsFunc(t.Chains, func(c Chain) bool { return begins(c.Name, m.chains) }) {
			all = append(all, m.program)
		}
	}
	if len(all) == 0 && t.iptables() {
		all = append(all, IPTables)
	}
	return all
}

func begins(name string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(name, p) })
}

// iptables tells whether the table has a name and chains that iptables-nft gives.
func (t Table) iptables() bool {
	tables, chains := []string{"filter", "nat", "mangle", "raw", "security"}, []string{"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}
	return (t.Family == "ip" || t.Family == "ip6") && slices.Contains(tables, t.Name) &&
		slices.ContainsFunc(t.Chains, func(c Chain) bool { return c.Hook != "" && slices.Contains(chains, c.Name) })
}

// Programs are those that have chains anywhere, in the order of the constants.
func (r Ruleset) Programs() []Program {
	found := map[Program]bool{}
	for _, t := range r.Tables {
		for _, p := range t.Programs() {
			found[p] = true
		}
	}
	var all []Program
	for _, m := range marks {
		if found[m.program] {
			all = append(all, m.program)
		}
	}
	if found[IPTables] {
		all = append(all, IPTables)
	}
	return all
}

// Published counts the rules by which a program leads connections elsewhere, such as to containers.
func (r Ruleset) Published(p Program) int {
	n := 0
	for _, t := range r.Tables {
		if !slices.Contains(t.Programs(), p) {
			continue
		}
		for _, c := range t.Chains {
			for _, rule := range c.Rules {
				if rule.Translates {
					n++
				}
			}
		}
	}
	return n
}
