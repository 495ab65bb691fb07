package main

import (
	"fmt"
	"strings"

	"nftsentry/conf"
	"nftsentry/conf/portsentry"
)

// An assignment is a key of ours with its value.
type assignment struct {
	table, key, value string // the value as TOML
	off               bool   // commented out
}

// A change is what becomes of one setting of Portsentry.
type change struct {
	place   string // file and line; "" for none
	setting string
	old     string       // as Portsentry read it
	keys    []assignment // none if it is gone
	gone    string       // why it is no longer needed
	notes   []string     // how the new differs from the old
}

// note adds to the notes.
func (c *change) note(format string, args ...any) {
	c.notes = append(c.notes, fmt.Sprintf(format, args...))
}

// set adds a key that stands for the setting.
func (c *change) set(table, key, value string) {
	c.keys = append(c.keys, assignment{table: table, key: key, value: value})
}

// offer adds a key that is commented out.
func (c *change) offer(table, key, value string) {
	c.keys = append(c.keys, assignment{table: table, key: key, value: value, off: true})
}

// A translation is a configuration of Portsentry in ours.
type translation struct {
	*importSource
	changes []change
	errs    portsentry.Errors
}

// translate makes our configuration of Portsentry's. The error is of type portsentry.Errors.
func translate(in *importSource) (*translation, error) {
	t := &translation{importSource: in}
	t.tcp()
	t.udp()
	t.respond()
	t.trigger()
	t.ends()
	t.ignore()
	t.route()
	t.hostsDeny()
	t.command()
	t.rest()
	if len(t.errs) > 0 {
		return nil, t.errs
	}
	return t, nil
}

// change begins the change of a setting of portsentry.conf; ok is false if it is not set.
func (t *translation) change(key string) (c change, ok bool) {
	s, ok := t.config.Settings[key]
	if !ok {
		return change{setting: key, old: "(not set)"}, false
	}
	return change{place: fmt.Sprintf("%s:%d", t.config.File, s.Line), setting: key, old: quoted(s.Value)}, true
}

// mode begins the change of a mode.
func (t *translation) mode(s portsentry.Setting) change {
	c := change{setting: s.Key, old: quoted(s.Value)}
	if strings.HasPrefix(s.Key, "--") {
		c.old = "(the mode)"
	}
	if t.modesFile != "" && s.Line > 0 {
		c.place = fmt.Sprintf("%s:%d", t.modesFile, s.Line)
	}
	return c
}

func (t *translation) add(c change) { t.changes = append(t.changes, c) }

// gone adds the change of a setting that is no longer needed, if it is set.
func (t *translation) gone(key, why string, notes ...string) {
	if c, ok := t.change(key); ok {
		c.gone, c.notes = why, notes
		t.add(c)
	}
}

// quoted is a text as TOML. It has no control characters, as no setting of Portsentry has.
func quoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// ranges makes ranges of sorted ports.
func ranges(ports []uint16) []conf.PortRange {
	var out []conf.PortRange
	for _, p := range ports {
		if n := len(out); n > 0 && out[n-1].Last == p-1 {
			out[n-1].Last = p
			continue
		}
		out = append(out, conf.PortRange{First: p, Last: p})
	}
	return out
}

func portsText(ports []uint16) string { return quoted(conf.FormatPorts(ranges(ports))) }
