package portsentry

import (
	"path"
	"slices"
	"strconv"
	"strings"
)

const (
	maxPorts1  = 64   // MAXSOCKS of 1.2
	maxState1  = 50   // MAXSTATE of 1.2
	firstPorts = 1024 // where ADVANCED_PORTS_* is missing
	maxNumber  = 1 << 30
)

// config makes a Config of the settings, and reports values that mean nothing.
func (p *parser) config() *Config {
	c := &Config{
		File: p.file, Version: p.version, Settings: p.settings,
		TCPPorts: p.ports("TCP_PORTS"), UDPPorts: p.ports("UDP_PORTS"),
		ExcludeTCP: p.ports("ADVANCED_EXCLUDE_TCP"), ExcludeUDP: p.ports("ADVANCED_EXCLUDE_UDP"),
		FirstTCP: p.first("ADVANCED_PORTS_TCP"), FirstUDP: p.first("ADVANCED_PORTS_UDP"),
		BlockTCP: p.choice("BLOCK_TCP", 2), BlockUDP: p.choice("BLOCK_UDP", 2),
		Trigger: p.trigger(), CommandFirst: p.choice("KILL_RUN_CMD_FIRST", 1) == 1,
	}
	p.choice("RESOLVE_HOST", 1)
	for _, key := range []string{"IGNORE_FILE", "HISTORY_FILE", "BLOCKED_FILE"} {
		p.path(key)
	}
	for _, key := range []string{"KILL_ROUTE", "KILL_HOSTS_DENY"} {
		p.target(key)
	}
	return c
}

// number reads a whole number of 0 and up.
func (p *parser) number(key string, otherwise int) int {
	s, ok := p.settings[key]
	if !ok || s.Value == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(s.Value, 10, 32)
	if err != nil || n > maxNumber {
		p.wrong(s.Line, "%s = %q: not a whole number, such as \"0\"", key, shown(s.Value))
		return otherwise
	}
	return int(n)
}

// choice reads a number from 0 to most. To 1.2 all others are 0, to 2.x they are mistakes.
func (p *parser) choice(key string, most int) int {
	s, ok := p.settings[key]
	if !ok {
		return 0
	}
	n, err := strconv.Atoi(s.Value)
	switch {
	case err == nil && n >= 0 && n <= most && len(s.Value) == 1:
		return n
	case p.version == V1:
		p.trap(s.Line, "%s = %q: allowed is \"0\" to \"%d\", and Portsentry 1.2 took this for \"0\"", key, shown(s.Value), most)
	default:
		p.wrong(s.Line, "%s = %q: allowed is \"0\" to \"%d\"", key, shown(s.Value), most)
	}
	return 0
}

// first reads the number of ports that an advanced mode watches.
func (p *parser) first(key string) int {
	n := p.number(key, firstPorts)
	if n > 65536 {
		p.wrong(p.settings[key].Line, "%s = \"%d\": there are ports up to 65535 only", key, n)
	}
	return n
}

// trigger reads SCAN_TRIGGER. 1.2 takes one that its memory cannot count to for none.
func (p *parser) trigger() int {
	n := p.number("SCAN_TRIGGER", 0)
	if p.version == V1 && n > maxState1 {
		p.trap(p.settings["SCAN_TRIGGER"].Line, "SCAN_TRIGGER = \"%d\": Portsentry 1.2 counts to %d, so that it fired at the first hit", n, maxState1)
		return 0
	}
	return n
}

// path wants an absolute path.
func (p *parser) path(key string) {
	s, ok := p.settings[key]
	switch {
	case !ok && p.version == V1:
		p.trap(0, "%s is missing: Portsentry 1.2 does not start without it", key)
	case ok && !path.IsAbs(s.Value):
		p.wrong(s.Line, "%s = %q: not an absolute path, which begins with \"/\"", key, shown(s.Value))
	}
}

// target drops what says nothing about the source: Portsentry refuses it.
func (p *parser) target(key string) {
	s, ok := p.settings[key]
	if ok && s.Value != "" && !strings.Contains(s.Value, "$TARGET$") {
		p.trap(s.Line, "%s has no $TARGET$, so that Portsentry never did it", key)
		delete(p.settings, key)
	}
}

// ports reads a list of ports, sorted, none twice.
func (p *parser) ports(key string) []uint16 {
	s, ok := p.settings[key]
	if !ok || s.Value == "" {
		return nil
	}
	var out []uint16
	items := strings.Split(s.Value, ",")
	for i, item := range items {
		out = append(out, p.item(s, i, item)...)
	}
	if p.version == V1 && len(items) > maxPorts1 && !of1(key) {
		p.trap(s.Line, "%s has %d ports, of which Portsentry 1.2 watched the first %d: all count here", key, len(items), maxPorts1)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// item reads a port or, in 2.x, a range.
func (p *parser) item(s Setting, i int, item string) []uint16 {
	from, to, isRange := strings.Cut(item, "-")
	first, last := port(from), port(from)
	if isRange {
		last = port(to)
	}
	switch {
	case item == "":
		p.wrong(s.Line, "%s: item %d is empty: there is a comma too many", s.Key, i+1)
	case strings.ContainsAny(item, " \t"):
		p.wrong(s.Line, "%s: item %d is %q: Portsentry allows no blanks in a list, take them out", s.Key, i+1, shown(item))
	case first == 0 || last == 0:
		p.wrong(s.Line, "%s: item %d is %q: not a port from 1 to 65535", s.Key, i+1, shown(item))
	case isRange && p.version == V1:
		p.wrong(s.Line, "%s: item %d is %q: Portsentry 1.2 knows no ranges and watched port %d alone: write the ports one by one", s.Key, i+1, item, first)
	case last < first:
		p.wrong(s.Line, "%s: item %d is %q: the range is reversed", s.Key, i+1, item)
	default:
		var out []uint16
		for n := int(first); n <= int(last); n++ {
			out = append(out, uint16(n))
		}
		return out
	}
	return nil
}

// port reads a port; 0 is none.
func port(s string) uint16 {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || s[0] == '+' {
		return 0
	}
	return uint16(n)
}
