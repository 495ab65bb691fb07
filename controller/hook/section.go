package hook

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Our lines stand in a section of their own at the top of hosts.deny, so that no line without an end, and none that ends in
// a backslash, can stand before it. Both marks are comments to hosts_access(5); the first has the pattern of the lines, so
// that they are known after the pattern has changed.
const (
	sectionBegin = "# nftsentry begin; what is between the marks comes and goes: "
	sectionEnd   = "# nftsentry end"
)

// token is what stands for the source in a line.
const token = "$TARGET$"

// A section is what of hosts.deny is ours.
type section map[netip.Prefix]bool

// parseSection takes a file apart: our lines, and all else byte by byte. Lines between the marks that are not ours belong to
// the rest. A section without an end is an error.
func parseSection(file string) (ours section, rest string, err error) {
	at := strings.Index("\n"+file, "\n"+sectionBegin)
	if at < 0 {
		return section{}, file, nil
	}
	pattern, after, found := strings.Cut(file[at+len(sectionBegin):], "\n")
	if !found || !strings.Contains(pattern, token) {
		return nil, "", fmt.Errorf("the line that begins with %q is damaged: take it and our lines below it out", sectionBegin)
	}
	ours = make(section)
	var others strings.Builder
	for after != "" {
		var line string
		line, after, _ = strings.Cut(after, "\n")
		if line == sectionEnd {
			return ours, file[:at] + others.String() + after, nil
		}
		if p, ok := readLine(pattern, line); ok {
			ours[p] = true
		} else {
			others.WriteString(line + "\n")
		}
	}
	return nil, "", fmt.Errorf("the line %q is missing: put it below our lines, or take them out", sectionEnd)
}

// text is a file with a section on top of all else; without, if the section is empty.
func (s section) text(pattern, rest string) string {
	if len(s) == 0 {
		return rest
	}
	var b strings.Builder
	b.WriteString(sectionBegin + pattern + "\n")
	for _, p := range slices.SortedFunc(maps.Keys(s), netip.Prefix.Compare) {
		b.WriteString(writeLine(pattern, p) + "\n")
	}
	b.WriteString(sectionEnd + "\n" + rest)
	return b.String()
}

// writeLine is the line of a source.
func writeLine(pattern string, p netip.Prefix) string {
	return strings.ReplaceAll(pattern, token, denyTarget(p))
}

// readLine finds the source that a line is of.
func readLine(pattern, line string) (netip.Prefix, bool) {
	start := strings.Index(pattern, token)
	if len(line) < start || line[:start] != pattern[:start] {
		return netip.Prefix{}, false
	}
	for end := start + 1; end <= min(len(line), start+maxWord*2); end++ {
		p, ok := readTarget(line[start:end])
		if ok && writeLine(pattern, p) == line {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

// denyTarget writes a source as hosts_access(5) reads it: "192.0.2.7", "192.0.2.0/255.255.255.0", "[2001:db8::7]" or
// "[2001:db8::]/64".
func denyTarget(p netip.Prefix) string {
	text := p.Addr().String()
	switch {
	case p.Addr().Is4() && p.IsSingleIP():
		return text
	case p.Addr().Is4():
		return text + "/" + net.IP(net.CIDRMask(p.Bits(), 32)).String()
	case p.IsSingleIP():
		return "[" + text + "]"
	}
	return "[" + text + "]/" + strconv.Itoa(p.Bits())
}

// readTarget reads what denyTarget writes.
func readTarget(s string) (netip.Prefix, bool) {
	address, length, isPrefix := strings.Cut(s, "/")
	bare := strings.TrimSuffix(strings.TrimPrefix(address, "["), "]")
	addr, err := netip.ParseAddr(bare)
	if err != nil {
		return netip.Prefix{}, false
	}
	bits := addr.BitLen()
	if isPrefix && addr.Is4() {
		mask, err := netip.ParseAddr(length)
		if err != nil || !mask.Is4() {
			return netip.Prefix{}, false
		}
		bits, _ = net.IPMask(mask.AsSlice()).Size()
	} else if isPrefix {
		if bits, err = strconv.Atoi(length); err != nil {
			return netip.Prefix{}, false
		}
	}
	p := netip.PrefixFrom(addr, bits)
	return p, p.IsValid() && denyTarget(p) == s
}
