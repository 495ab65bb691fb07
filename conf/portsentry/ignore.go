package portsentry

import (
	"net/netip"
	"regexp"
	"strings"
)

// An IgnoreKind is who reads an ignore file.
type IgnoreKind int

// The kinds.
const (
	Ignore1      IgnoreKind = iota + 1 // Portsentry 1.2
	IgnoreStatic                       // Debian's program that makes 1.2's file of portsentry.ignore.static
	Ignore2                            // Portsentry 2.x
)

// ParseIgnore gives the addresses and prefixes that Portsentry ignored, and the lines that it read in another way than
// they were meant. There are no mistakes: Portsentry has none here but for 2.x, which does not start with some lines.
// The prefixes are masked.
func ParseIgnore(name string, data []byte, kind IgnoreKind) ([]netip.Prefix, []Trap) {
	s := &ignoreScan{report: report{file: name}, kind: kind}
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		whole, ended := strings.CutSuffix(line, "\n")
		s.line(n, strings.TrimSuffix(whole, "\r"), ended)
	}
	return s.out, s.traps
}

type ignoreScan struct {
	report
	kind IgnoreKind
	out  []netip.Prefix
}

// staticLine is what Debian's program keeps.
var staticLine = regexp.MustCompile(`^\s*([0-9]{1,3}(?:\.[0-9]{1,3}){3}(?:/[0-9]{1,2})?)\s*(#|$)`)

func (s *ignoreScan) line(n int, line string, ended bool) {
	trimmed := strings.TrimSpace(line)
	if trimmed == "" || trimmed[0] == '#' {
		return
	}
	entry, _, _ := strings.Cut(strings.ReplaceAll(trimmed, "\t", " "), " ")
	entry, _, _ = strings.Cut(entry, "#")
	prefix, exact, ok := entryOf(entry)
	if problem := s.problem(line, entry, ok, prefix, ended); problem != "" {
		s.trap(n, "%q: %s", shown(trimmed), problem)
		return
	}
	if s.kind == Ignore2 && !exact {
		s.trap(n, "%q: bits are set behind the prefix, and Portsentry 2.x ignored nobody by it: write %q for the network or %q for the single address",
			shown(trimmed), prefix, prefixAddr(entry))
		return
	}
	s.out = append(s.out, prefix)
	if strings.HasSuffix(entry, ".0") && entry != "0.0.0.0" {
		s.trap(n, "%q: without a mask this is one address alone: write %q if the network was meant", shown(trimmed), entry+"/"+maskFor(entry))
	}
}

// problem says why Portsentry did not ignore by a line; "" if it did.
func (s *ignoreScan) problem(line, entry string, ok bool, prefix netip.Prefix, ended bool) string {
	blank := line[0] == ' ' || line[0] == '\t'
	switch {
	case s.kind == Ignore2 && strings.ContainsFunc(line, notOf2):
		return "a character that Portsentry 2.x does not start with: blanks, remarks and capitals are not allowed there"
	case s.kind != Ignore2 && ok && prefix.Addr().Is6():
		return "Portsentry 1.2 knows no IPv6 and ignored nobody by it"
	case !ok:
		return "neither an address nor a prefix such as \"192.0.2.0/24\": Portsentry ignored nobody by it; names are not looked up"
	case s.kind == IgnoreStatic && !staticLine.MatchString(line):
		return "something follows the address, and portsentry-build-ignore-file left the line out: put a # before the remark"
	case blank:
		return "the line begins with a blank, and Portsentry 1.2 ignored nobody by it"
	case prefix.Bits() == 0:
		return "a prefix of length 0 is everybody, and undefined in Portsentry 1.2: take it out"
	case !ended && s.kind != IgnoreStatic:
		return "the last line has no newline, and Portsentry read it wrong: end it with one"
	}
	return ""
}

// notOf2 are the characters that 2.x does not know.
func notOf2(r rune) bool { return !strings.ContainsRune("0123456789abcdef.:/", r) }

// entryOf reads an address or a prefix; exact is false where bits are set behind the prefix, which is given masked.
func entryOf(s string) (p netip.Prefix, exact, ok bool) {
	if !strings.Contains(s, "/") {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			return p, false, false
		}
		return netip.PrefixFrom(a, a.BitLen()), true, true
	}
	p, err := netip.ParsePrefix(s)
	return p.Masked(), p == p.Masked(), err == nil
}

func prefixAddr(entry string) string {
	address, _, _ := strings.Cut(entry, "/")
	return address
}

// maskFor guesses the length that somebody has left out: of whole bytes that are not 0.
func maskFor(entry string) string {
	switch {
	case strings.HasSuffix(entry, ".0.0.0"):
		return "8"
	case strings.HasSuffix(entry, ".0.0"):
		return "16"
	}
	return "24"
}
