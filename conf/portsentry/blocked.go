package portsentry

import (
	"encoding/binary"
	"net/netip"
	"strings"
)

// The address families of Linux that 2.x writes, see linux/socket.h.
const (
	familyIPv4 = 2  // AF_INET
	familyIPv6 = 10 // AF_INET6
)

// ParseBlocked reads a blocked file: text, as 1.2 writes it, or binary, as 2.x does. The name is what errors call it,
// which are of type Errors. A last line or record that a crash has cut short is left out.
func ParseBlocked(name string, data []byte) ([]Entry, error) {
	r := &report{file: name}
	var out []Entry
	if isBinary(data) {
		out = r.records(data)
	} else {
		out = r.entries(string(data))
	}
	if err := r.err(); err != nil {
		return nil, err
	}
	return out, nil
}

// isBinary tells by the first address family, whose bytes begin no line of text.
func isBinary(data []byte) bool {
	if len(data) < 2 {
		return false
	}
	family := binary.NativeEndian.Uint16(data)
	return family == familyIPv4 || family == familyIPv6
}

// records reads the binary form: a sa_family_t of 2 bytes in the host's own order, and an address of 4 or 16 bytes in the
// network's.
func (r *report) records(data []byte) []Entry {
	var out []Entry
	for rest := data; len(rest) >= 2; {
		size := 4
		switch family := binary.NativeEndian.Uint16(rest); family {
		case familyIPv4:
		case familyIPv6:
			size = 16
		default:
			r.wrong(0, "byte %d: the address family %d is neither IPv4 nor IPv6: the file is damaged, or of a machine of another byte order; move it away",
				len(data)-len(rest), family)
			return nil
		}
		if len(rest) < 2+size {
			break
		}
		address, _ := netip.AddrFromSlice(rest[2 : 2+size])
		out = append(out, Entry{Address: address.Unmap()})
		rest = rest[2+size:]
	}
	return out
}

// entries reads the text form.
func (r *report) entries(text string) []Entry {
	var out []Entry
	n := 0
	for line := range strings.Lines(text) {
		n++
		whole, ended := strings.CutSuffix(line, "\n")
		if strings.TrimSpace(whole) == "" {
			continue
		}
		e, err := ParseEntry(whole)
		if err == nil {
			out = append(out, e)
		} else if ended {
			r.wrong(n, "%q: %v: take it out", shown(whole), err)
		}
	}
	return out
}
