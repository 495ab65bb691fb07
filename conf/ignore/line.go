package ignore

import (
	"bytes"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"unicode"
)

// An Entry is an address or a prefix in a file.
type Entry struct {
	Prefix netip.Prefix // masked, of full length for an address, without a zone, IPv4 as IPv4; never of length 0
	Line   int          // from 1
}

// What can be wrong with a line, and what to do.
const (
	notAddress  = `not an address or prefix such as "192.0.2.7" or "2001:db8::/32": write one, or put "#" before a comment`
	isName      = "a name, and names are not looked up: write its address"
	hasNUL      = `a NUL byte: save the file as text, or write it anew if it was damaged`
	hasZone     = `an address with a zone: leave out what follows the "%"`
	leadingZero = "a number begins with 0, which may mean octal: write it without"
	tooShort    = "an IPv4 address has four numbers from 0 to 255 with dots between: write all of them"
	noLength    = "the length of the prefix is missing after the slash: write it, or leave the slash out"
	notMask     = `not a netmask such as "255.255.255.0": write a length from 1 to 32 after the slash`
	everybody   = `this would ignore everybody, and the guard would be off: take the line out, or set mode = "observe" to block nobody`
	twoOnLine   = `a second address: give each a line of its own, or put "#" before a comment`
)

// parseLine reads a line without blanks at its beginning. A problem says what is wrong with it; without one, nothing may be
// found, as in a comment.
func parseLine(line []byte) (p netip.Prefix, found bool, problem string) {
	if bytes.IndexByte(line, 0) >= 0 {
		return netip.Prefix{}, false, hasNUL
	}
	line, _, _ = bytes.Cut(line, []byte("#"))
	if len(line) == 0 {
		return netip.Prefix{}, false, ""
	}
	word, rest := nextWord(line)
	second, _ := nextWord(rest)
	if len(second) > 1 && second[0] == '/' && isDigit(second[1]) && bytes.IndexByte(word, '/') < 0 {
		word, rest = append(word[:len(word):len(word)], second...), rest[len(second):] // "192.0.2.0 /24"
		second, _ = nextWord(rest)
	}
	p, problem = parseEntry(string(word))
	if problem == "" && beginsAddress(second) {
		problem = twoOnLine
	}
	return p, problem == "", problem
}

// nextWord gives the first word of a text, and the rest without what parts it from the word. Portsentry takes whatever
// stands after an address for a comment; commas are what people put there.
func nextWord(text []byte) (word, rest []byte) {
	end := bytes.IndexFunc(text, parts)
	if end < 0 {
		return text, nil
	}
	return text[:end], bytes.TrimLeftFunc(text[end:], parts)
}

func parts(r rune) bool { return r == ',' || r == ';' || unicode.IsSpace(r) }

func isDigit(b byte) bool { return '0' <= b && b <= '9' }

// beginsAddress tells whether a word is an address or a prefix, right or wrong.
func beginsAddress(word []byte) bool {
	if len(word) == 0 {
		return false
	}
	address, _, _ := bytes.Cut(word, []byte("/"))
	_, err := netip.ParseAddr(string(address))
	return err == nil
}

// parseEntry reads an address or a prefix.
func parseEntry(word string) (p netip.Prefix, problem string) {
	address, length, isPrefix := strings.Cut(word, "/")
	a, err := netip.ParseAddr(address)
	switch {
	case err != nil:
		return netip.Prefix{}, whyNot(address)
	case a.Zone() != "":
		return netip.Prefix{}, hasZone
	}
	bits := a.BitLen()
	if isPrefix {
		if bits, problem = parseLength(length, a); problem != "" {
			return netip.Prefix{}, problem
		}
	}
	const mapped = 96 // RFC 4291 section 2.5.5.2: what arrives is IPv4
	if a.Is4In6() && bits >= mapped {
		a, bits = a.Unmap(), bits-mapped
	}
	if bits == 0 {
		return netip.Prefix{}, everybody
	}
	return netip.PrefixFrom(a, bits).Masked(), ""
}

// parseLength reads what follows a slash: a length, or a netmask as of Portsentry's time.
func parseLength(s string, a netip.Addr) (bits int, problem string) {
	if mask, err := netip.ParseAddr(s); err == nil && mask.Is4() && a.Is4() {
		return maskLength(mask)
	}
	if s == "" {
		return 0, noLength
	}
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n > uint64(a.BitLen()) {
		return 0, fmt.Sprintf("the length of this prefix, what follows the slash, must be from 1 to %d: correct it", a.BitLen())
	}
	return int(n), ""
}

func maskLength(mask netip.Addr) (bits int, problem string) {
	for bits := range 33 {
		whole, err := netip.AddrFrom4([4]byte{255, 255, 255, 255}).Prefix(bits)
		if err == nil && whole.Addr() == mask {
			return bits, ""
		}
	}
	return 0, notMask
}

// whyNot says what is wrong with what should be an address.
func whyNot(s string) string {
	if strings.Trim(s, "0123456789.") == "" && strings.ContainsAny(s, "0123456789") {
		return whyNot4(strings.Split(s, "."))
	}
	if strings.ContainsFunc(s, func(r rune) bool { return unicode.IsLetter(r) && !strings.ContainsRune("abcdefABCDEF", r) }) && !strings.ContainsRune(s, ':') {
		return isName
	}
	return notAddress
}

func whyNot4(numbers []string) string {
	for _, n := range numbers {
		if len(n) > 1 && n[0] == '0' {
			return leadingZero
		}
	}
	return tooShort
}
