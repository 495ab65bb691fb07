package nft

import (
	"fmt"
	"net/netip"
)

// TableName is the name of nftsentry's table, of family inet.
const TableName = "nftsentry"

// MaxHosts is how many elements each of the sets of blocked hosts holds.
const MaxHosts = 65536

// A PortRange is an inclusive range of ports, 1 to 65535, First <= Last.
type PortRange struct {
	First, Last uint16
}

// A Config says what the table enforces and where its tripwires are.
type Config struct {
	// Enforce says whether blocked sources are dropped. Without it the sets
	// stay, but no rule looks at them.
	Enforce bool
	// Reject answers what is blocked with a TCP reset or an ICMP error in
	// place of dropping it silently.
	Reject bool
	// Decoys are the TCP ports that lead to the decoy listener while no
	// service owns them. They must be sorted and disjoint.
	Decoys []PortRange
	// Port is where the decoy listener sits; 0 leaves the lure chain out.
	Port uint16
	// Prefix6 is the prefix length, in bits, by which IPv6 sources that are
	// not neighbours are blocked: 1 to 128.
	Prefix6 int
	// Ignored are the sources that are neither noticed nor blocked. They may
	// overlap.
	Ignored []netip.Prefix
	// IgnoredInterfaces are the names of the interfaces whose packets are
	// neither noticed nor blocked.
	IgnoredInterfaces []string
}

// validate answers for what the kernel would accept and get wrong.
func (c Config) validate() error {
	if c.Prefix6 < 1 || c.Prefix6 > 128 {
		return fmt.Errorf("prefix6 %d: outside 1 to 128", c.Prefix6)
	}
	last := 0
	for _, r := range c.Decoys {
		if r.First == 0 || r.Last < r.First || int(r.First) <= last {
			return fmt.Errorf("decoy ports %d-%d: not a sorted, disjoint list of ranges", r.First, r.Last)
		}
		last = int(r.Last)
	}
	return nil
}
