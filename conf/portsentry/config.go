package portsentry

import (
	"cmp"
	"slices"
	"strings"
)

// A Version is one of the two programs that go by the name of Portsentry.
type Version int

// The versions.
const (
	V1 Version = iota + 1 // 1.2 and before, as Debian has it up to 13
	V2                    // 2.x
)

// String is "1.2" or "2.x".
func (v Version) String() string {
	if v == V2 {
		return "2.x"
	}
	return "1.2"
}

// A Setting is one line of a file that has a value.
type Setting struct {
	Key, Value string
	Line       int // from 1
}

// A Config is a portsentry.conf that is understood. What the file does not name has the value that Portsentry takes then.
type Config struct {
	File     string // as its reader named it
	Version  Version
	Settings map[string]Setting // those that count, by their keys
	Traps    []Trap             // in the order of their lines

	TCPPorts, UDPPorts     []uint16 // sorted, none twice
	ExcludeTCP, ExcludeUDP []uint16 // sorted, none twice; 1.2 only
	FirstTCP, FirstUDP     int      // the ports 0 to this one, not included, are watched in the advanced modes; 1.2 only
	BlockTCP, BlockUDP     int      // 0 log, 1 block, 2 run the command
	Trigger                int      // 0 and up
	CommandFirst           bool     // KILL_RUN_CMD goes before the block
}

// Get is the value of a key, "" if it has none.
func (c *Config) Get(key string) string { return c.Settings[key].Value }

// keys are all that 1.2 knows; 2.x knows those that do not begin with "ADVANCED_".
var keys = []string{
	"TCP_PORTS", "UDP_PORTS", "ADVANCED_PORTS_TCP", "ADVANCED_PORTS_UDP", "ADVANCED_EXCLUDE_TCP", "ADVANCED_EXCLUDE_UDP",
	"IGNORE_FILE", "HISTORY_FILE", "BLOCKED_FILE", "RESOLVE_HOST", "BLOCK_TCP", "BLOCK_UDP",
	"KILL_ROUTE", "KILL_HOSTS_DENY", "KILL_RUN_CMD", "KILL_RUN_CMD_FIRST", "SCAN_TRIGGER", "PORT_BANNER",
}

// of1 tells whether only 1.2 knows a key.
func of1(key string) bool { return strings.HasPrefix(key, "ADVANCED_") }

// ParseConfig reads a portsentry.conf. The name is what errors call it, which are of type Errors. Version 0 tells by the
// keys: one of ADVANCED_* is 1.2, which has them in all files that it ever came with, and 2.x does not start with one.
func ParseConfig(name string, data []byte, version Version) (*Config, error) {
	p := &parser{report: report{file: name}, settings: make(map[string]Setting), version: version}
	if !p.text(data) {
		return nil, p.err()
	}
	lines := strings.Split(string(data), "\n")
	if p.version == 0 {
		p.version = versionOf(lines)
	}
	for i, line := range lines {
		p.line(i+1, strings.TrimSuffix(line, "\r"))
	}
	c := p.config()
	if err := p.err(); err != nil {
		slices.SortStableFunc(p.errs, func(a, b *Error) int { return cmp.Compare(a.Line, b.Line) })
		return nil, err
	}
	slices.SortStableFunc(p.traps, func(a, b Trap) int { return cmp.Compare(a.Line, b.Line) })
	c.Traps = p.traps
	return c, nil
}

// versionOf tells which version a file is for.
func versionOf(lines []string) Version {
	if slices.ContainsFunc(lines, of1) {
		return V1
	}
	return V2
}
