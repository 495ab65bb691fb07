package survey

import (
	"cmp"
	"fmt"
	"slices"
)

// A Ruleset is all tables of a network namespace, in order of family and name.
type Ruleset struct{ Tables []Table }

// A Table is one of them.
type Table struct {
	Family  string // in nft(8)'s words: "ip", "ip6", "inet", "arp", "bridge" or "netdev"
	Name    string
	Dormant bool // the kernel passes over it
	Chains  []Chain
}

// A Chain is one of a table. Without a hook it is entered from others only.
type Chain struct {
	Name     string
	Hook     string // such as "prerouting"; "" for none
	Type     string // "filter", "nat" or "route"; "" without a hook
	Priority int    // of those with one hook the lowest comes first
	Policy   string // "accept" or "drop"; "" without a hook
	Rules    []Rule
}

// A Rule is what one rule can do to a packet that it matches.
type Rule struct {
	Drops      bool // or rejects
	Accepts    bool
	Translates bool     // gives it another destination
	Redirected bool     // matches by "ct status dnat"
	Always     bool     // matches every packet
	Leads      []string // chains that it jumps or goes to
}

// String is how nft(8) names a table.
func (t Table) String() string { return t.Family + " " + t.Name }

// A Base is a base chain in its table.
type Base struct {
	Table Table
	Chain Chain
}

// String names the hook and the chain, such as "input 0 ip filter INPUT".
func (b Base) String() string {
	return fmt.Sprintf("%s %d %s %s", b.Chain.Hook, b.Chain.Priority, b.Table, b.Chain.Name)
}

// hooks in the order in which a packet meets them.
var hooks = []string{"ingress", "prerouting", "input", "forward", "output", "postrouting"}

// Table finds a table by family and name.
func (r Ruleset) Table(family, name string) (Table, bool) {
	i := slices.IndexFunc(r.Tables, func(t Table) bool { return t.Family == family && t.Name == name })
	if i < 0 {
		return Table{}, false
	}
	return r.Tables[i], true
}

// Bases lists the base chains of tables that are not dormant, in the order in which a packet meets them.
func (r Ruleset) Bases() []Base {
	var all []Base
	for _, t := range r.Tables {
		for _, c := range t.Chains {
			if c.Hook != "" && !t.Dormant {
				all = append(all, Base{t, c})
			}
		}
	}
	slices.SortStableFunc(all, func(a, b Base) int {
		return cmp.Or(
			cmp.Compare(a.rank(), b.rank()),
			cmp.Compare(slices.Index(hooks, a.Chain.Hook), slices.Index(hooks, b.Chain.Hook)),
			cmp.Compare(a.Chain.Priority, b.Chain.Priority),
		)
	})
	return all
}

// rank is lower for what comes before all hooks of IPv4 and IPv6: first the devices, then the bridges that they are in.
func (b Base) rank() int {
	switch {
	case b.Chain.Hook == "ingress":
		return 0
	case b.Table.Family == "bridge" && b.Chain.Hook != "postrouting":
		return 1
	}
	return 2
}

// Drops tells whether a packet may end here.
func (b Base) Drops() bool {
	return b.Chain.Policy == "drop" || b.any(func(r Rule) bool { return r.Drops })
}

// Closed tells whether a packet ends here that no rule has a word for.
func (b Base) Closed() bool {
	return b.Chain.Policy == "drop" || b.Table.closed(b.Chain, map[string]bool{})
}

func (t Table) closed(c Chain, seen map[string]bool) bool {
	if seen[c.Name] {
		return false
	}
	seen[c.Name] = true
	for _, r := range c.Rules {
		switch {
		case !r.Always:
		case r.Drops:
			return true
		case r.Accepts:
			return false
		}
		for _, name := range r.Leads {
			if to, found := t.chain(name); r.Always && found && t.closed(to, seen) {
				return true
			}
		}
	}
	return false
}

// Translates tells whether a connection may be led elsewhere here.
func (b Base) Translates() bool { return b.any(func(r Rule) bool { return r.Translates }) }

// LetsRedirected tells whether a rule accepts connections for the reason that they have been led elsewhere.
func (b Base) LetsRedirected() bool {
	return b.any(func(r Rule) bool { return r.Redirected && r.Accepts })
}

// any looks for a rule in the chain and those that it leads to.
func (b Base) any(so func(Rule) bool) bool {
	seen := map[string]bool{}
	next := []Chain{b.Chain}
	for len(next) > 0 {
		c := next[0]
		next = next[1:]
		if seen[c.Name] {
			continue
		}
		seen[c.Name] = true
		for _, r := range c.Rules {
			if so(r) {
				return true
			}
			for _, name := range r.Leads {
				if to, found := b.Table.chain(name); found {
					next = append(next, to)
				}
			}
		}
	}
	return false
}

func (t Table) chain(name string) (Chain, bool) {
	i := slices.IndexFunc(t.Chains, func(c Chain) bool { return c.Name == name })
	if i < 0 {
		return Chain{}, false
	}
	return t.Chains[i], true
}
