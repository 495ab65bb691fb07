package main

import (
	"fmt"
	"slices"

	"nftsentry/conf"
	"nftsentry/conf/portsentry"
)

// A side is one protocol of Portsentry, and what it is to become.
type side struct {
	table    string // ours: "tcp" or "udp"
	suffix   string // of Portsentry's keys: "TCP" or "UDP"
	mode     portsentry.Setting
	ports    []uint16
	exclude  []uint16
	first    int
	defaults []uint16 // of our exclude
}

func (t *translation) tcp() {
	d := conf.Default().TCP
	s := side{"tcp", "TCP", t.modes.TCP, t.config.TCPPorts, t.config.ExcludeTCP, t.config.FirstTCP, singles(d.Exclude)}
	c := t.mode(s.mode)
	switch s.mode.Value {
	case "":
		c.set("tcp", "decoy", `""`)
		c.set("tcp", "watch", `""`)
		c.note("nothing of TCP was watched")
	case "tcp":
		c.set("tcp", "watch", `""`)
		c.note("decoys answer on the old ports. What the kernel notices by itself, stealth scans among it, is off as it was: watch = \"1-1024\", the default, has that too")
	default:
		c.set("tcp", "decoy", `""`)
		c.note("the stealth modes answered nobody, and nor does watch. A lone packet can be forged, a connection to a decoy cannot: decoys beside it are better proof. Our default list of them is given as a comment")
		c.unprovenOnly()
	}
	t.hookMode(&c, s)
	if c.keys[0].key == "decoy" && s.mode.Value != "" {
		c.offer("tcp", "decoy", quoted(conf.FormatPorts(d.Decoy)))
	}
	t.add(c)
	t.side(s, map[bool]string{true: "decoy", false: "watch"}[s.mode.Value == "tcp"])
}

func (t *translation) udp() {
	s := side{"udp", "UDP", t.modes.UDP, t.config.UDPPorts, t.config.ExcludeUDP, t.config.FirstUDP, singles(conf.Default().UDP.Exclude)}
	c := t.mode(s.mode)
	if s.mode.Value == "" {
		c.set("udp", "watch", `""`)
		c.note("nothing of UDP was watched")
	} else {
		c.unprovenOnly()
	}
	t.hookMode(&c, s)
	t.add(c)
	t.side(s, "watch")
}

// unprovenOnly says what bounds the blocks of a mode that answers nobody.
func (c *change) unprovenOnly() {
	c.note("all that this mode notices can be forged, so that its blocks last for block.unproven at most, %s by default, whatever block.timeout says",
		conf.FormatDuration(conf.Default().Block.Unproven))
}

// hookMode has hooks be told of the mode that they know.
func (t *translation) hookMode(c *change, s side) {
	if s.mode.Value == "" {
		return
	}
	c.set("hook", "mode_"+s.table, quoted(s.mode.Value))
	if t.config.Version == portsentry.V2 {
		c.note("$MODE$ was \"stealth\" or \"connect\" and is %q now, as in Portsentry 1.2", s.mode.Value)
	} else if s.mode.Value != s.table {
		c.note("Portsentry wrote its blocked hosts to a file that ends in .%s; ours ends in .%s", s.mode.Value, s.table)
	}
}

// side translates the lists of ports of a protocol. Into is our list that takes them.
func (t *translation) side(s side, into string) {
	advanced := s.mode.Value == "a"+s.table
	if c, ok := t.change(s.suffix + "_PORTS"); ok {
		t.list(c, s, into, advanced)
	} else if s.mode.Value != "" && !advanced {
		t.missing(s, into)
	}
	first, set := t.change("ADVANCED_PORTS_" + s.suffix)
	exclude, excludes := t.change("ADVANCED_EXCLUDE_" + s.suffix)
	if !advanced {
		why := fmt.Sprintf("only the mode a%s reads it", s.table)
		first.gone, exclude.gone = why, why
		if set {
			t.add(first)
		}
		if excludes {
			t.add(exclude)
		}
		return
	}
	t.advanced(first, exclude, s)
}

// missing answers for a mode without its ports.
func (t *translation) missing(s side, into string) {
	key := s.suffix + "_PORTS"
	if t.config.Version == portsentry.V2 {
		c, _ := t.change(key)
		c.set(s.table, into, `""`)
		c.note("nothing of %s was watched", s.suffix)
		t.add(c)
		return
	}
	t.errs = append(t.errs, &portsentry.Error{File: t.config.File,
		Problem: fmt.Sprintf("%s is missing, without which Portsentry does not start in the mode %s: add it, or write %s_MODE=\"\"", key, s.mode.Value, s.suffix)})
}

// aboutUDP says what is different with datagrams.
func (c *change) aboutUDP(s side) {
	if s.table == "udp" {
		c.note("a datagram can be forged, and late answers look like probes: our own default watches none. Nothing is sent back, no banner either")
	}
}

// list translates TCP_PORTS or UDP_PORTS.
func (t *translation) list(c change, s side, into string, advanced bool) {
	if advanced || s.mode.Value == "" {
		c.gone = fmt.Sprintf("the mode %s does not read it", s.mode.Value)
		if s.mode.Value == "" {
			c.gone = fmt.Sprintf("there is no %s_MODE", s.suffix)
		}
		t.add(c)
		return
	}
	c.set(s.table, into, portsText(s.ports))
	c.aboutUDP(s)
	kept := portsWithout(s.defaults, s.ports)
	c.set(s.table, "exclude", portsText(kept))
	if len(kept) < len(s.defaults) {
		c.note("the excluded ports are our default ones, without those that the old list names: %s", conf.FormatPorts(ranges(portsWithout(s.defaults, kept))))
	} else {
		c.note("the excluded ports are our default ones, of which the old list names none")
	}
	t.add(c)
}

// advanced translates what the modes atcp and audp read. They watch the ports below a number; there is no port 0.
func (t *translation) advanced(first, exclude change, s side) {
	watch := `""`
	if s.first > 1 {
		watch = quoted(conf.PortRange{First: 1, Last: uint16(s.first - 1)}.String())
	}
	first.set(s.table, "watch", watch)
	first.note("Portsentry watched the ports below %d. Those with a service are left out as before, but as they come and go and not as they were at the start", s.first)
	first.aboutUDP(s)
	t.add(first)
	all := slices.Concat(s.exclude, s.defaults)
	slices.Sort(all)
	exclude.set(s.table, "exclude", portsText(slices.Compact(all)))
	exclude.note("ours are added, where honest clients knock by mistake: as before it was exclude = %s", portsText(s.exclude))
	t.add(exclude)
}

// singles are the ports in ranges, which are sorted.
func singles(ranges []conf.PortRange) []uint16 {
	var out []uint16
	for _, r := range ranges {
		for p := int(r.First); p <= int(r.Last); p++ {
			out = append(out, uint16(p))
		}
	}
	return out
}

// portsWithout are the ports that others do not have; both are sorted.
func portsWithout(ports, others []uint16) []uint16 {
	var out []uint16
	for _, p := range ports {
		if _, found := slices.BinarySearch(others, p); !found {
			out = append(out, p)
		}
	}
	return out
}
