package nft

import (
	"fmt"
	"net/netip"
	"time"
)

// TableName is the name of nftsentry's table, of family inet.
const TableName = "nftsentry"

// How many elements each of the sets of blocked hosts holds if nothing else is
// asked for, and at the most.
const (
	DefaultHosts = 65536
	MostHosts    = 2_000_000
)

// A PortRange is an inclusive range of ports, 1 to 65535, First <= Last.
type PortRange struct {
	First, Last uint16
}

// A Rate is how often something may happen, over all sources.
type Rate struct {
	Count int           // 1 to 100,000
	Per   time.Duration // a second, a minute, an hour or a day
}

// A Config says what the table enforces, where its tripwires are, and how it
// judges whoever touches them.
type Config struct {
	// Enforce says whether blocked sources are dropped. Without it the sets
	// stay, but no rule looks at them.
	Enforce bool
	// Hosts is how many blocked hosts of each family there may be at once, up
	// to MostHosts; 0 is DefaultHosts. Prefixes do not count.
	Hosts int
	// Reject answers what is blocked with a TCP reset or an ICMP error in
	// place of dropping it silently.
	Reject bool
	// Decoys are the TCP ports that lead to the decoy listener while no
	// service owns them. They must be sorted and disjoint.
	Decoys []PortRange
	// Port is where the decoy listener sits; 0 leaves the lure chain out, and
	// has decoy ports watched like others.
	Port uint16
	// WatchTCP and WatchUDP are the ports where packets that open a
	// connection, or nothing at all, are probes while no service owns them.
	// They must be sorted and disjoint, and Port is left out of them.
	WatchTCP, WatchUDP []PortRange
	// JudgeTCP and JudgeUDP say whether the kernel counts the probes of a
	// protocol and blocks their source. Otherwise it only tells of them.
	JudgeTCP, JudgeUDP bool
	// Ports is which distinct port within Window makes a block, 1 to 1000.
	Ports int
	// Window begins with the first port that a source touches; whole seconds.
	Window time.Duration
	// Timeout is how long the blocks last that the kernel makes; whole seconds.
	Timeout time.Duration
	// Budget bounds these blocks over all sources.
	Budget Rate
	// Sessions are the ports whose sessions make their source a peer, which
	// the kernel does not judge. They must be sorted and disjoint.
	Sessions []PortRange
	// Ephemeral are the ports from which the host itself connects. What comes
	// there from a well-known UDP port is taken for a late answer.
	Ephemeral PortRange
	// Group is the NFLOG group by which the kernel tells of probes.
	Group uint16
	// DecoyRate and WatchRate are how many probes a second, over all sources,
	// are let through to connection tracking, of decoy and of watched ports.
	DecoyRate, WatchRate uint32
	// Prefix6 is the prefix length, in bits, by which IPv6 sources that are
	// not neighbours are counted and blocked: 1 to 128.
	Prefix6 int
	// OnLink6 are the IPv6 prefixes of the host's own links, whose addresses
	// are counted and blocked one by one. They may overlap.
	OnLink6 []netip.Prefix
	// Ignored are the sources that are neither noticed nor blocked. They may
	// overlap.
	Ignored []netip.Prefix
	// IgnoredInterfaces are the names of the interfaces whose packets are
	// neither noticed nor blocked.
	IgnoredInterfaces []string
}

// senses tells whether there is a tripwire at all.
func (c Config) senses() bool { return len(c.Decoys)+len(c.WatchTCP)+len(c.WatchUDP) > 0 }

// lures tells whether decoy ports lead to the listener.
func (c Config) lures() bool { return c.Port != 0 && len(c.Decoys) > 0 }

// judges tells whether the kernel makes blocks by itself.
func (c Config) judges() bool { return c.JudgeTCP || c.JudgeUDP }

// MaxHosts is how many blocked hosts of each family there may be at once.
func (c Config) MaxHosts() int {
	if c.Hosts == 0 {
		return DefaultHosts
	}
	return c.Hosts
}

// validate answers for what the kernel would accept and get wrong.
func (c Config) validate() error {
	if c.Prefix6 < 1 || c.Prefix6 > 128 {
		return fmt.Errorf("prefix6 %d: outside 1 to 128", c.Prefix6)
	}
	if c.Hosts < 0 || c.Hosts > MostHosts {
		return fmt.Errorf("%d hosts: outside 0 to %d", c.Hosts, MostHosts)
	}
	for name, ports := range map[string][]PortRange{
		"decoy": c.Decoys, "watched TCP": c.WatchTCP, "watched UDP": c.WatchUDP, "session": c.Sessions,
	} {
		if err := validatePorts(ports); err != nil {
			return fmt.Errorf("%s ports %w", name, err)
		}
	}
	if !c.senses() {
		return nil
	}
	return c.validateSense()
}

func validatePorts(ports []PortRange) error {
	last := 0
	for _, r := range ports {
		if r.First == 0 || r.Last < r.First || int(r.First) <= last {
			return fmt.Errorf("%d-%d: not a sorted, disjoint list of ranges", r.First, r.Last)
		}
		last = int(r.Last)
	}
	return nil
}

// validateSense keeps out the zeros that mean something else to the kernel:
// no timeout at all, the default burst, the kernel log in place of a group.
func (c Config) validateSense() error {
	switch {
	case c.Group == 0 || c.DecoyRate == 0 || c.WatchRate == 0:
		return fmt.Errorf("group %d, rates %d and %d: must not be 0", c.Group, c.DecoyRate, c.WatchRate)
	case !c.judges():
		return nil
	case c.Ports < 1 || c.Ports > 1000:
		return fmt.Errorf("trigger of %d ports: outside 1 to 1000", c.Ports)
	case c.Window < time.Second || c.Timeout < time.Second:
		return fmt.Errorf("window %v, timeout %v: under a second", c.Window, c.Timeout)
	case c.Budget.Count < 1 || c.Budget.Per < time.Second:
		return fmt.Errorf("budget %d in %v: less than one", c.Budget.Count, c.Budget.Per)
	}
	return nil
}
