package conf

import (
	"net/netip"
	"time"

	"go.uber.org/zap/zapcore"
)

// DefaultPath is the file that is read if no other is named.
const DefaultPath = "/etc/nftsentry/nftsentry.toml"

// MaxNFLOGGroup is the highest NFLOG group that may be named; the program has a use of its own for the one above.
const MaxNFLOGGroup = 65534

// A Config is everything that nftsentry can be told, valid as a whole.
type Config struct {
	Mode    Mode
	TCP     TCP
	UDP     UDP
	Trigger Trigger
	Block   Block
	Ignore  Ignore
	State   State
	Control Control
	Hook    Hook
	Metrics Metrics
	Log     Log
}

// A Mode says what comes of a trigger.
type Mode string

// The modes.
const (
	Enforce Mode = "enforce" // the source is blocked
	Observe Mode = "observe" // the block that would be made is logged
)

// TCP says which TCP ports are tripwires, and what comes of touching them.
type TCP struct {
	// Decoy are the ports where a connection is noticed: sorted, disjoint, not adjacent.
	Decoy []PortRange
	// Watch are the ports where the kernel notices probes and nothing answers, perhaps some of Decoy: sorted, disjoint,
	// not adjacent.
	Watch []PortRange
	// Exclude are the ports that are never tripwires, even if Decoy or Watch has them: sorted, disjoint, not adjacent.
	Exclude []PortRange
	// Respond is what comes of a trigger.
	Respond Respond
	// Banner is sent to whoever connects, before the connection is closed: at most 1024 bytes, none if empty.
	Banner string
	// Port is where the decoy listens, 1 to 1023 and neither in Decoy nor in Exclude; 0 takes a free one. Watch may have
	// it: whoever watches leaves it out.
	Port uint16
}

// Decoys are the ports of Decoy that Exclude leaves: sorted, disjoint, not adjacent, perhaps none.
func (t TCP) Decoys() []PortRange { return subtract(t.Decoy, t.Exclude) }

// Watched are the ports of Watch that Exclude leaves: sorted, disjoint, not adjacent, perhaps none.
func (t TCP) Watched() []PortRange { return subtract(t.Watch, t.Exclude) }

// UDP says which UDP ports are tripwires, and what comes of touching them.
type UDP struct {
	// Watch are the ports where the kernel notices probes: sorted, disjoint, not adjacent.
	Watch []PortRange
	// Exclude are the ports that are never tripwires, even if Watch has them: sorted, disjoint, not adjacent.
	Exclude []PortRange
	// Respond is what comes of a trigger.
	Respond Respond
}

// Watched are the ports of Watch that Exclude leaves: sorted, disjoint, not adjacent, perhaps none.
func (u UDP) Watched() []PortRange { return subtract(u.Watch, u.Exclude) }

// A Respond says what comes of a trigger on one protocol, in the mode Enforce.
type Respond string

// The responses.
const (
	RespondLog   Respond = "log"   // it is logged
	RespondBlock Respond = "block" // the source is blocked
	RespondRun   Respond = "run"   // hooks are told of it, and nothing is blocked
)

// Trigger says how much evidence makes a block.
type Trigger struct {
	// Connects is how many connections to decoys make a block, 1 to 1000: proven evidence.
	Connects int
	// Ports is how many distinct ports within the window make a block, 1 to 1000: unproven evidence.
	Ports int
	// Window is how long a connection and a port count, 1s to 1d in whole seconds. For ports, it begins with the first
	// one that a source touches.
	Window time.Duration
	// Budget is how many blocks on unproven evidence there may be, over all sources.
	Budget Rate
	// NFLOGGroup is the NFLOG group by which the kernel tells of probes, 1 to MaxNFLOGGroup.
	NFLOGGroup uint16
}

// Block says how long sources are blocked, and how.
type Block struct {
	// Timeout is how long the first block lasts, 1s to 365d in whole seconds.
	Timeout time.Duration
	// Escalate are the timeouts of the second block, the third and so on, 1s to 365d in whole seconds and none shorter
	// than the one before, Timeout included; the last one repeats. If there are none, Timeout does.
	Escalate []time.Duration
	// Forget is how long after the end of a block it counts as a strike, 1m to 3650d in whole seconds.
	Forget time.Duration
	// Unproven is the longest block on unproven evidence alone, 1s to 365d in whole seconds; Timeout may be shorter or
	// longer.
	Unproven time.Duration
	// Prefix6 is the length in bits of the prefix by which IPv6 sources are blocked, 48 to 128.
	Prefix6 int
	// Action is what happens to the packets of a blocked source.
	Action Action
	// Max is how many hosts of each family may be blocked at once, 1024 to 2,000,000. Prefixes do not count.
	Max int
}

// An Action is what happens to the packets of a blocked source.
type Action string

// The actions.
const (
	Drop   Action = "drop"   // nothing comes back
	Reject Action = "reject" // the source is told so
)

// Ignore says who is never blocked, and who not on unproven evidence alone.
type Ignore struct {
	// Sources are the addresses, as prefixes of full length, and prefixes that are never blocked: masked, without
	// zones, IPv4 as IPv4. They may overlap.
	Sources []netip.Prefix
	// Files are absolute paths of files that list more of them, as Portsentry's do: see package ignore. They need not
	// exist.
	Files []string
	// Host adds the addresses, gateways and resolvers of this host, as they change.
	Host bool
	// Sessions are the ports where a session, a completed TCP connection, makes its source a peer, against which unproven
	// evidence does not count for an hour: sorted, disjoint, not adjacent.
	Sessions []PortRange
	// Interfaces are the names of those whose packets are neither noticed nor blocked, 1 to 15 bytes each.
	Interfaces []string
}

// State says where the blocks are kept.
type State struct {
	// Dir is an absolute path.
	Dir string
}

// Control is the socket by which the commands reach the daemon.
type Control struct {
	// Socket is an absolute path of at most 107 bytes.
	Socket string
	// Group is the name of the group that may use the socket besides root; none if empty.
	Group string
}

// Metrics says where Prometheus reads how the daemon is doing.
type Metrics struct {
	// Listen is an address and port, unmapped, or the absolute path of a unix socket of at most 107 bytes; nothing is served
	// if it is empty.
	Listen string
	// Expose lets the address be another than a loopback one.
	Expose bool
}

// Log says what is logged, and how.
type Log struct {
	// Level is the lowest that is logged: debug, info, warn or error.
	Level zapcore.Level
	// Format is how a message is written.
	Format Format
	// Compat adds Portsentry's own lines, to syslog.
	Compat bool
}

// A Format is how log messages are written.
type Format string

// The formats.
const (
	Auto    Format = "auto"    // Console on a terminal, JSON elsewhere
	Console Format = "console" // lines for a person
	JSON    Format = "json"    // one JSON object a line
)

// Default is the configuration of an empty file. The caller owns all of it.
func Default() Config {
	return Config{
		Mode: Enforce,
		TCP: TCP{
			Decoy: defaultDecoy(), Watch: []PortRange{{1, 1024}}, Exclude: defaultExclude(), Respond: RespondBlock,
		},
		UDP: UDP{Exclude: defaultExcludeUDP(), Respond: RespondBlock},
		Trigger: Trigger{
			Connects: 1, Ports: 3, Window: time.Minute, Budget: Rate{120, time.Minute}, NFLOGGroup: 61999,
		},
		Block: Block{
			Timeout: 10 * time.Minute, Escalate: []time.Duration{time.Hour, day, 7 * day}, Forget: 30 * day,
			Unproven: 10 * time.Minute, Prefix6: 64, Action: Drop, Max: 65536,
		},
		Ignore:  Ignore{Host: true, Sessions: []PortRange{{22, 22}}},
		State:   State{Dir: "/var/lib/nftsentry"},
		Control: Control{Socket: "/run/nftsentry/control.sock"},
		Hook:    Hook{ModeTCP: "stcp", ModeUDP: "sudp"},
		Log:     Log{Level: zapcore.InfoLevel, Format: Auto},
	}
}

// defaultDecoy are ports of Portsentry's list and of today's scanners.
func defaultDecoy() []PortRange {
	return []PortRange{
		{1, 1}, {11, 11}, {15, 15}, {23, 23}, {79, 79}, {111, 111}, {119, 119}, {540, 540}, {635, 635}, {1080, 1080},
		{1524, 1524}, {2000, 2000}, {2323, 2323}, {5555, 5555}, {5742, 5742}, {6667, 6667}, {12345, 12346},
		{20034, 20034}, {27665, 27665}, {31337, 31337}, {32771, 32774}, {40421, 40421}, {49724, 49724}, {54320, 54320},
	}
}

// defaultExclude are ports to which honest clients connect by mistake.
func defaultExclude() []PortRange {
	return []PortRange{
		{22, 22}, {25, 25}, {53, 53}, {80, 80}, {110, 110}, {113, 113}, {139, 139}, {143, 143}, {443, 443}, {465, 465},
		{587, 587}, {853, 853}, {993, 993}, {995, 995},
	}
}

// defaultExcludeUDP are ports where datagrams come in that nobody means as a probe: late answers, broadcasts and QUIC.
func defaultExcludeUDP() []PortRange {
	return []PortRange{{53, 53}, {67, 68}, {123, 123}, {137, 138}, {443, 443}, {520, 520}}
}
