package conf

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap/zapcore"
)

// A setting is a key that a file may have, in full, and what takes its value.
type setting struct {
	key  string
	take func(field)
}

// sectionHeaders are how the settings begin that are tables.
var sectionHeaders = map[string]string{
	"hook.exec": "[[hook.exec]]", "hook.mail": "[[hook.mail]]", "hook.webhook": "[[hook.webhook]]",
	"hook.hosts_deny": "[hook.hosts_deny]",
}

// settings are all keys, with what their values must be and where they go.
func (c *Config) settings() settings {
	all := settings{
		{"mode", one(&c.Mode, oneOf(Enforce, Observe))},

		{"tcp.decoy", one(&c.TCP.Decoy, portList)},
		{"tcp.watch", one(&c.TCP.Watch, portList)},
		{"tcp.exclude", one(&c.TCP.Exclude, portList)},
		{"tcp.respond", one(&c.TCP.Respond, oneOf(RespondLog, RespondBlock, RespondRun))},
		{"tcp.banner", one(&c.TCP.Banner, text(1024))},
		{"tcp.port", one(&c.TCP.Port, because(integer[uint16](0, 1023), "0 takes a free one, and above any process could take its place"))},

		{"udp.watch", one(&c.UDP.Watch, portList)},
		{"udp.exclude", one(&c.UDP.Exclude, portList)},
		{"udp.respond", one(&c.UDP.Respond, oneOf(RespondLog, RespondBlock, RespondRun))},

		{"trigger.connects", one(&c.Trigger.Connects, integer[int](1, 1000))},
		{"trigger.ports", one(&c.Trigger.Ports, integer[int](1, 1000))},
		{"trigger.window", one(&c.Trigger.Window, duration(time.Second, day))},
		{"trigger.budget", one(&c.Trigger.Budget, rate)},
		{"trigger.nflog_group", one(&c.Trigger.NFLOGGroup, integer[uint16](1, MaxNFLOGGroup))},

		{"block.timeout", one(&c.Block.Timeout, duration(time.Second, 365*day))},
		{"block.escalate", each(&c.Block.Escalate, duration(time.Second, 365*day))},
		{"block.forget", one(&c.Block.Forget, duration(time.Minute, 3650*day))},
		{"block.unproven", one(&c.Block.Unproven, duration(time.Second, 365*day))},
		{"block.prefix6", one(&c.Block.Prefix6, integer[int](48, 128))},
		{"block.action", one(&c.Block.Action, oneOf(Drop, Reject))},
		{"block.max", one(&c.Block.Max, integer[int](1024, 2_000_000))},

		{"ignore.sources", each(&c.Ignore.Sources, source)},
		{"ignore.files", each(&c.Ignore.Files, path(maxPath))},
		{"ignore.host", one(&c.Ignore.Host, boolean)},
		{"ignore.sessions", one(&c.Ignore.Sessions, portList)},
		{"ignore.interfaces", each(&c.Ignore.Interfaces, interfaceName)},

		{"state.dir", one(&c.State.Dir, path(maxPath))},

		{"control.socket", one(&c.Control.Socket, path(maxSocketPath))},
		{"control.group", one(&c.Control.Group, group)},

		{"metrics.listen", one(&c.Metrics.Listen, endpoint)},
		{"metrics.expose", one(&c.Metrics.Expose, boolean)},

		{"log.level", one(&c.Log.Level, oneOf(zapcore.DebugLevel, zapcore.InfoLevel, zapcore.WarnLevel, zapcore.ErrorLevel))},
		{"log.format", one(&c.Log.Format, oneOf(Auto, Console, JSON))},
		{"log.compat", one(&c.Log.Compat, boolean)},
	}
	return append(all, c.Hook.settings()...)
}

// check reports values that are right alone and wrong together.
func (c *Config) check(d *document) {
	if d.sound("tcp.port", "tcp.decoy") && Contains(c.TCP.Decoy, c.TCP.Port) {
		d.report("tcp.port", "this is a port of tcp.decoy: the listener needs one of its own, or 0 to take a free one")
	}
	if d.sound("tcp.port", "tcp.exclude") && Contains(c.TCP.Exclude, c.TCP.Port) {
		d.report("tcp.port", "this is a port of tcp.exclude: the listener needs one of its own, or 0 to take a free one")
	}
	if d.sound("block.timeout", "block.escalate") {
		c.checkEscalate(d)
	}
	if d.sound("metrics.listen", "metrics.expose", "control.socket") {
		c.checkMetrics(d)
	}
}

// checkMetrics reports metrics that others could read unless that is meant, and a socket that is used twice.
func (c *Config) checkMetrics(d *document) {
	at, err := netip.ParseAddrPort(c.Metrics.Listen)
	switch {
	case c.Metrics.Listen == c.Control.Socket:
		d.report("metrics.listen", "this is control.socket: the metrics need a socket of their own")
	case err == nil && !at.Addr().IsLoopback() && !c.Metrics.Expose:
		d.report("metrics.listen", fmt.Sprintf("others than this host could read the metrics: take \"127.0.0.1:%d\" or \"[::1]:%[1]d\", or set metrics.expose = true", at.Port()))
	}
}

// checkEscalate reports steps that would shorten a block. Of the default ones, it leaves out those that would.
func (c *Config) checkEscalate(d *document) {
	if _, own := d.places["block.escalate"]; !own {
		c.Block.Escalate = slices.DeleteFunc(c.Block.Escalate, func(step time.Duration) bool { return step < c.Block.Timeout })
		return
	}
	before := c.Block.Timeout
	for i, step := range c.Block.Escalate {
		if step < before {
			d.report(fmt.Sprintf("block.escalate[%d]", i),
				fmt.Sprintf("must not be shorter than the block before it, which lasts %q", FormatDuration(before)))
		}
		before = step
	}
}

type settings []setting

// find gives the setting of a key.
func (s settings) find(key string) (setting, bool) {
	i := slices.IndexFunc(s, func(one setting) bool { return one.key == key })
	if i < 0 {
		return setting{}, false
	}
	return s[i], true
}

// keys are the names of all keys, in full.
func (s settings) keys() []string {
	var out []string
	for _, one := range s {
		out = append(out, one.key)
	}
	return out
}

// tables are the names of all tables, in the order of their keys.
func (s settings) tables() []string {
	var out []string
	for _, one := range s {
		if table, _ := split(one.key); table != "" && !slices.Contains(out, table) {
			out = append(out, table)
		}
	}
	return out
}

// headers are how all tables begin, in the order of their keys.
func (s settings) headers() []string {
	var out []string
	for _, one := range s {
		header := sectionHeaders[one.key]
		if table, _ := split(one.key); header == "" && table != "" {
			header = "[" + table + "]"
		}
		if header != "" && !slices.Contains(out, header) {
			out = append(out, header)
		}
	}
	return out
}

// in are the keys of a table, without its name; "" is what stands outside of tables.
func (s settings) in(table string) []string {
	var out []string
	for _, one := range s {
		if t, name := split(one.key); t == table {
			out = append(out, name)
		}
	}
	return out
}

// split parts a key from its table, which is "" if it stands in none.
func split(key string) (table, name string) {
	i := strings.LastIndexByte(key, '.')
	return key[:max(i, 0)], key[i+1:]
}
