package packet

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

const (
	size4 = 20 // of an IPv4 header without options, RFC 791
	size6 = 40 // of an IPv6 header, RFC 8200

	defaultTTL = 64

	dontFragment  = 0x4000 // in the flags and fragment offset of IPv4
	moreFragments = 0x2000
)

// ip is what TCP and UDP packets have in common.
type ip struct {
	source, target netip.Addr
	ttl            uint8
	id             uint16
	options        []byte // IPv4
	extension      []byte // IPv6
	first          uint8  // number of the first extension header
}

// wrap returns the IP packet with a payload of the given protocol, and panics if it cannot be one.
func (h ip) wrap(protocol uint8, payload []byte) []byte {
	if h.source.Is4() != h.target.Is4() || !h.source.IsValid() || !h.target.IsValid() {
		panic(fmt.Sprintf("packet: no IP packet goes from %s to %s", h.source, h.target))
	}
	if h.ttl == 0 {
		h.ttl = defaultTTL
	}
	if h.target.Is4() {
		return h.wrap4(protocol, payload)
	}
	return h.wrap6(protocol, payload)
}

func (h ip) wrap4(protocol uint8, payload []byte) []byte {
	if h.extension != nil {
		panic("packet: extension headers in an IPv4 packet")
	}
	options := pad4("IPv4", h.options)
	head := size4 + len(options)
	b := make([]byte, head, head+len(payload))
	b[0] = 4<<4 | uint8(head/4)
	binary.BigEndian.PutUint16(b[2:], length("IPv4 packet", head+len(payload)))
	binary.BigEndian.PutUint16(b[4:], h.id)
	binary.BigEndian.PutUint16(b[6:], dontFragment)
	b[8], b[9] = h.ttl, protocol
	copy(b[12:], h.source.AsSlice())
	copy(b[16:], h.target.AsSlice())
	copy(b[size4:], options)
	binary.BigEndian.PutUint16(b[10:], ^fold(sum(b)))
	return append(b, payload...)
}

func (h ip) wrap6(protocol uint8, payload []byte) []byte {
	if h.options != nil {
		panic("packet: IPv4 options in an IPv6 packet")
	}
	b := make([]byte, size6, size6+len(h.extension)+len(payload))
	b[0] = 6 << 4
	binary.BigEndian.PutUint16(b[4:], length("IPv6 payload", len(h.extension)+len(payload)))
	b[6], b[7] = protocol, h.ttl
	if len(h.extension) > 0 {
		b[6] = h.first
	}
	copy(b[8:], h.source.AsSlice())
	copy(b[24:], h.target.AsSlice())
	return append(append(b, h.extension...), payload...)
}

// checksum is that of a TCP segment or UDP datagram whose own checksum is zero, with the pseudo header of RFC 9293,
// 3.1 and RFC 8200, 8.1.
func (h ip) checksum(protocol uint8, segment []byte) uint16 {
	s := sum(h.source.AsSlice()) + sum(h.target.AsSlice()) + uint64(protocol) + uint64(len(segment)) + sum(segment)
	c := ^fold(s)
	if c == 0 && protocol == unix.IPPROTO_UDP {
		return 0xffff // zero is none, RFC 768
	}
	return c
}

// pad4 fills options up to a multiple of 4 bytes with zeros, which end the list.
func pad4(what string, options []byte) []byte {
	if len(options) > 40 {
		panic(fmt.Sprintf("packet: %d bytes of %s options, at most 40 fit", len(options), what))
	}
	padded := make([]byte, (len(options)+3)/4*4)
	copy(padded, options)
	return padded
}

// length is n as the 16 bits that a header has for it.
func length(what string, n int) uint16 {
	if n > 0xffff {
		panic(fmt.Sprintf("packet: an %s of %d bytes, at most 65535 fit", what, n))
	}
	return uint16(n)
}

// sum adds up b in words of 16 bits, as RFC 1071 does before it folds the carries in.
func sum(b []byte) uint64 {
	var s uint64
	for ; len(b) >= 2; b = b[2:] {
		s += uint64(b[0])<<8 | uint64(b[1])
	}
	if len(b) == 1 {
		s += uint64(b[0]) << 8
	}
	return s
}

// fold adds the carries of a sum, RFC 1071.
func fold(s uint64) uint16 {
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}
