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
//
// A file that a line of hosts.deny names, "ALL: /path : DENY", has patterns and no comments: hostfile_match in libwrap's
// hosts_access.c takes each word for a pattern. There the marks are one word each, which is no name that a host can have.
type marks struct{ begin, end string }

var (
	lineMarks = marks{"# nftsentry begin; what is between the marks comes and goes: ", "# nftsentry end"}
	wordMarks = marks{"#nftsentry-begin:", "#nftsentry-end"}
)

// token is what stands for the source in a line.
const token = "$TARGET$"

// marksOf are the marks of lines with a pattern: one that is no rule is for a file of patterns.
func marksOf(pattern string) marks {
	if pattern == token {
		return wordMarks
	}
	return lineMarks
}

// A section is what of hosts.deny is ours.
type section map[netip.Prefix]bool

// parseSection takes a file apart: our lines, and all else byte by byte. Lines between the marks that are not ours belong to
// the rest. A section without an end is an error.
func parseSection(file string) (ours section, rest string, err error) {
	at, m := findSection(file)
	if at < 0 {
		return section{}, file, nil
	}
	pattern, after, found := strings.Cut(file[at+len(m.begin):], "\n")
	if !found || !strings.Contains(pattern, token) {
		return nil, "", fmt.Errorf("the line that begins with %q is damaged: take it and our lines below it out", m.begin)
	}
	ours = make(section)
	var others strings.Builder
	for after != "" {
		var line string
		line, after, _ = strings.Cut(after, "\n")
		if line == m.end {
			return ours, file[:at] + others.String() + after, nil
		}
		if p, ok := readLine(pattern, line); ok {
			ours[p] = true
		} else {
			others.WriteString(line + "\n")
		}
	}
	return nil, "", fmt.Errorf("the line %q is missing: put it below our lines, or take them out", m.end)
}

// findSection is where the first section of a file begins, and by which marks; -1 if there is none.
func findSection(file string) (at int, m marks) {
	at = -1
	for _, one := range []marks{lineMarks, wordMarks} {
		if i := strings.Index("\n"+file, "\n"+one.begin); i >= 0 && (at < 0 || i < at) {
			at, m = i, one
		}
	}
	return at, m
}

// text is a file with a section on top of all else; without, if the section is empty.
func (s section) text(pattern, rest string) string {
	if len(s) == 0 {
		return rest
	}
	m := marksOf(pattern)
	var b strings.Builder
	b.WriteString(m.begin + pattern + "\n")
	for _, p := range slices.SortedFunc(maps.Keys(s), netip.Prefix.Compare) {
		b.WriteString(writeLine(pattern, p) + "\n")
	}
	b.WriteString(m.end + "\n" + rest)
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
