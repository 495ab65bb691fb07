package selftest

import (
	"net/netip"

	"nftsentry/conf"
	"nftsentry/integration/packet"
)

// A kind is a kind of scan.
type kind struct {
	name  string
	flags packet.Flags // of the raw packets; connect and udp have none
}

var kinds = []kind{
	{name: connect}, {"syn", packet.SYN}, {"fin", packet.FIN}, {"null", 0},
	{"xmas", packet.FIN | packet.PSH | packet.URG}, {"syn-fin", packet.SYN | packet.FIN}, {name: udp},
}

const (
	connect = "connect"
	udp     = "udp"
)

// tripwires are the ports where a configuration notices this kind: those that it watches first, and decoys if they are
// too few. It names at most as many as make a block.
func (k kind) tripwires(c conf.Config, avoid uint16) []uint16 {
	var from []conf.PortRange
	most := c.Trigger.Ports
	switch k.name {
	case connect:
		from, most = c.TCP.Decoys(), 1 // again and again: distinct ports would be unproven evidence besides
	case udp:
		from = c.UDP.Watched()
	default:
		from = append(c.TCP.Watched(), c.TCP.Decoys()...)
	}
	return pick(from, most, avoid, c.TCP.Port)
}

// pick names the first ports of some ranges, without some.
func pick(ranges []conf.PortRange, most int, without ...uint16) []uint16 {
	seen := map[uint16]bool{}
	for _, port := range without {
		seen[port] = true
	}
	var out []uint16
	for _, r := range ranges {
		for port := int(r.First); port <= int(r.Last) && len(out) < most; port++ {
			if !seen[uint16(port)] {
				seen[uint16(port)] = true
				out = append(out, uint16(port))
			}
		}
	}
	return out
}

// trigger is how many probes make a block.
func (k kind) trigger(c conf.Config) int {
	if k.name != connect {
		return c.Trigger.Ports
	}
	if c.Trigger.Ports == 1 {
		return 1 // the packet that opens the connection is evidence enough
	}
	return c.Trigger.Connects
}

// recorded is the kind that the block is to have on record.
func (k kind) recorded(c conf.Config) string {
	if k.name == connect && c.Trigger.Ports == 1 {
		return "syn"
	}
	return k.name
}

// blocks tells whether the configuration blocks by this kind of evidence, or only says that it would.
func (k kind) blocks(c conf.Config) bool {
	respond := c.TCP.Respond
	if k.name == udp {
		respond = c.UDP.Respond
	}
	return c.Mode == conf.Enforce && respond == conf.RespondBlock
}

// packet is one probe.
func (k kind) packet(from, to netip.AddrPort) []byte {
	if k.name == udp {
		return packet.UDP{Source: from, Target: to, Payload: []byte("nftsentry selftest")}.Bytes()
	}
	return packet.TCP{Source: from, Target: to, Flags: k.flags, Seq: 1}.Bytes()
}

// servicePort is a port for a service of the guarded host: no tripwire, and none whose sessions make a peer. It is 0
// if there is none.
func servicePort(c conf.Config) uint16 {
	for port := uint16(61000); port < 65535; port++ {
		if !conf.Contains(c.TCP.Decoy, port) && !conf.Contains(c.TCP.Watch, port) && !conf.Contains(c.Ignore.Sessions, port) {
			return port
		}
	}
	for port := uint16(65535); port > 1023; port-- { // a service is never a tripwire, so that any will do
		if !conf.Contains(c.Ignore.Sessions, port) {
			return port
		}
	}
	return 0
}
