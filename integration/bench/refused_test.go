//go:build bench

package bench

import (
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"nftsentry/integration/netns"
)

// refused are the IPv4 sources that the kernel of a host refuses, by whatever
// means a guard has had it do so: a route that leads nowhere, a rule for each
// source, which iptables(8) makes as well, or an element of a set. A line of
// hosts.deny is none: it matters to those services alone that ask for it.
func refused(t testing.TB, host *netns.Host) map[netip.Addr]bool {
	t.Helper()
	nft := netns.Tool(t, "nft")
	rules := host.Output(t, nft, "-n", "-t", "list", "ruleset")
	out := make(map[netip.Addr]bool)
	collect(out, aRule, rules)
	collect(out, aRoute, host.Output(t, netns.Tool(t, "ip"), "-4", "route", "show", "table", "all"))
	var table []string
	for line := range strings.Lines(rules) {
		switch words := strings.Fields(line); {
		case len(words) == 4 && words[0] == "table":
			table = words[1:3]
		case len(words) == 3 && words[0] == "set" && blockSet.MatchString(words[1]):
			collect(out, anElement, host.Output(t, nft, "-n", "list", "set", table[0], table[1], words[1]))
		}
	}
	return out
}

var (
	blockSet  = regexp.MustCompile(`^(?:blocked4|addr-set-.*|attackers)$`) // of nftsentry, fail2ban and sshguard
	aRule     = regexp.MustCompile(`(?mi)^\s*ip saddr (\d+\.\d+\.\d+\.\d+) .*\b(?:drop|reject)`)
	aRoute    = regexp.MustCompile(`(?m)^(?:unreachable|blackhole|prohibit) (\d+\.\d+\.\d+\.\d+) `)
	anElement = regexp.MustCompile(`[{,\s](\d+\.\d+\.\d+\.\d+)[\s,]`)
)

// collect adds the addresses that an expression finds in a text.
func collect(to map[netip.Addr]bool, what *regexp.Regexp, text string) {
	for _, m := range what.FindAllStringSubmatch(text, -1) {
		if a, err := netip.ParseAddr(m[1]); err == nil {
			to[a] = true
		}
	}
}
