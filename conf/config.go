package conf

import (
	"net/netip"
	"slices"
	"time"

	"go.uber.org/zap/zapcore"
)

// DefaultPath is the configuration file that is read if no other is named. It
// may be missing.
const DefaultPath = "/etc/nftsentry/nftsentry.toml"

// A Config is a whole configuration, valid in itself.
type Config struct {
	Mode    Mode
	TCP     TCP
	Trigger Trigger
	Block   Block
	Ignore  Ignore
	State   State
	Control Control
	Log     Log
}

// A Mode says whether sources are blocked or only noticed.
type Mode string

// The modes.
const (
	Enforce Mode = "enforce"
	Observe Mode = "observe"
)

// TCP is where TCP connections are noticed.
type TCP struct {
	Decoy   []PortRange // sorted and disjoint
	Exclude []PortRange // never a tripwire; sorted and disjoint
	Banner  string      // sent by decoys; at most 1,024 bytes
	Port    uint16      // of the decoy listener, below 1024; 0 for a free one
}

// Tripwires are the decoy ports that are not excluded, sorted and disjoint.
func (t TCP) Tripwires() []PortRange { return subtract(t.Decoy, t.Exclude) }

// A Trigger is how much evidence makes a block.
type Trigger struct {
	Connects int           // the Nth connection to a decoy blocks; 1 to 1,000
	Window   time.Duration // how long a connection counts; 1 s to 1 d
}

// Block says how, and for how long, a source is blocked. All durations are
// whole seconds.
type Block struct {
	Timeout  time.Duration   // of the first block; 1 s to 365 d
	Escalate []time.Duration // of the following ones, the last one repeats; each 1 s to 365 d, none shorter than the one before
	Forget   time.Duration   // how long after its end a block counts as a strike; 1 min to 3,650 d
	Prefix6  int             // prefix length by which IPv6 sources are blocked; 48 to 128
	Action   Action
}

// An Action is what happens to packets of a blocked source.
type Action string

// The actions.
const (
	Drop   Action = "drop"
	Reject Action = "reject"
)

// Ignore says who is never blocked.
type Ignore struct {
	Sources    []netip.Prefix // masked, an address being its full-length prefix
	Host       bool           // also own addresses, gateways and resolvers
	Interfaces []string       // what arrives here is neither noticed nor blocked
}

// State is where blocks are remembered.
type State struct {
	Dir string // absolute path
}

// Control is where commands reach the daemon.
type Control struct {
	Socket string // absolute path, at most 107 bytes
	Group  string // that may use it besides root; "" for none
}

// Log is what is logged, and how.
type Log struct {
	Level  zapcore.Level
	Format Format
}

// A Format is the form of log lines.
type Format string

// The formats. Auto is Console on a terminal and JSON elsewhere.
const (
	Auto    Format = "auto"
	Console Format = "console"
	JSON    Format = "json"
)

// Default is the configuration of an empty file.
func Default() Config {
	const day = 24 * time.Hour
	return Config{
		Mode: Enforce,
		TCP: TCP{
			Decoy: mustPorts("1,11,15,23,79,111,119,540,635,1080,1524,2000,2323,5555,5742,6667," +
				"12345-12346,20034,27665,31337,32771-32774,40421,49724,54320"),
			Exclude: mustPorts("22,25,53,80,110,113,139,143,443,465,587,853,993,995"),
		},
		Trigger: Trigger{Connects: 1, Window: time.Minute},
		Block: Block{
			Timeout: 10 * time.Minute, Escalate: []time.Duration{time.Hour, day, 7 * day},
			Forget: 30 * day, Prefix6: 64, Action: Drop,
		},
		Ignore:  Ignore{Host: true},
		State:   State{Dir: "/var/lib/nftsentry"},
		Control: Control{Socket: "/run/nftsentry/control.sock"},
		Log:     Log{Level: zapcore.InfoLevel, Format: Auto},
	}
}

// read takes all keys out of a document, over the defaults.
func (c *Config) read(r *reader) {
	const day = 24 * time.Hour
	choice(r, "mode", &c.Mode, Enforce, Observe)

	r.ports("tcp.decoy", &c.TCP.Decoy)
	r.ports("tcp.exclude", &c.TCP.Exclude)
	r.text("tcp.banner", &c.TCP.Banner, checkBanner)
	port := int(c.TCP.Port)
	r.integer("tcp.port", &port, 0, 1023, "0 for a free port, or a privileged port, which no unprivileged process can take in its place")
	c.TCP.Port = uint16(port)

	r.integer("trigger.connects", &c.Trigger.Connects, 1, 1000, "")
	r.duration("trigger.window", &c.Trigger.Window, time.Second, day)

	r.duration("block.timeout", &c.Block.Timeout, time.Second, 365*day)
	r.durations("block.escalate", &c.Block.Escalate, time.Second, 365*day)
	r.duration("block.forget", &c.Block.Forget, time.Minute, 3650*day)
	r.integer("block.prefix6", &c.Block.Prefix6, 48, 128, "a prefix length in bits")
	choice(r, "block.action", &c.Block.Action, Drop, Reject)

	r.prefixes("ignore.sources", &c.Ignore.Sources)
	r.boolean("ignore.host", &c.Ignore.Host)
	r.texts("ignore.interfaces", &c.Ignore.Interfaces, checkInterface)

	r.text("state.dir", &c.State.Dir, checkPath)
	r.text("control.socket", &c.Control.Socket, checkSocket)
	r.text("control.group", &c.Control.Group, checkGroup)

	level := c.Log.Level.String()
	choice(r, "log.level", &level, "debug", "info", "warn", "error")
	c.Log.Level, _ = zapcore.ParseLevel(level) // choice lets no other through
	choice(r, "log.format", &c.Log.Format, Auto, Console, JSON)

	c.checkTogether(r)
}

// checkTogether finds values that are right only by themselves.
func (c *Config) checkTogether(r *reader) {
	if p := c.TCP.Port; p != 0 && (Contains(c.TCP.Decoy, p) || Contains(c.TCP.Exclude, p)) {
		r.fail("tcp.port", "the listener's port must be in neither tcp.decoy nor tcp.exclude")
	}
	if _, ok := r.doc.values["block.escalate"]; !ok {
		// A longer first block leaves out the default steps that are shorter.
		c.Block.Escalate = slices.DeleteFunc(c.Block.Escalate, func(step time.Duration) bool { return step < c.Block.Timeout })
	}
	last := c.Block.Timeout
	for i, step := range c.Block.Escalate {
		if step < last {
			r.failItem("block.escalate", i, "a step must not be shorter than the one before it, which is "+FormatDuration(last))
		}
		last = step
	}
}
