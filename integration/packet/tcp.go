package packet

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Flags are the control bits of TCP, RFC 9293, 3.1.
type Flags uint8

// The flags. No flag at all makes a NULL scan, FIN|PSH|URG an XMAS scan.
const (
	FIN Flags = 1 << iota
	SYN
	RST
	PSH
	ACK
	URG
	ECE
	CWR
)

const (
	sizeTCP       = 20 // of a TCP header without options
	defaultWindow = 64240
)

// A TCP is a TCP segment in an IP packet of its own, IPv4 or IPv6 as its target is.
type TCP struct {
	// Source is anybody's, of the target's family. An IPv6 packet may have an IPv4-mapped one.
	Source, Target netip.AddrPort
	Flags          Flags
	Seq, Ack       uint32
	Window         uint16 // 0 stands for 64240
	Urgent         uint16
	Options        []byte // of TCP, padded to a multiple of 4 bytes; at most 40
	Payload        []byte

	TTL       uint8  // or IPv6 hop limit; 0 stands for 64
	ID        uint16 // of IPv4; 0 leaves it to the kernel that sends
	IPOptions []byte // of IPv4, padded to a multiple of 4 bytes; at most 40

	// Extension holds ready-made IPv6 extension headers, of which ExtensionFirst is the number of the first and the
	// last leads to TCP. WithHeaders makes both.
	Extension      []byte
	ExtensionFirst uint8

	// BadChecksum makes the TCP checksum a wrong one.
	BadChecksum bool
}

// Bytes returns the IP packet. It panics on what cannot be one: addresses of two families, options of the other
// family, or more than fits.
func (p TCP) Bytes() []byte {
	options := pad4("TCP", p.Options)
	head := sizeTCP + len(options)
	b := make([]byte, head, head+len(p.Payload))
	binary.BigEndian.PutUint16(b[0:], p.Source.Port())
	binary.BigEndian.PutUint16(b[2:], p.Target.Port())
	binary.BigEndian.PutUint32(b[4:], p.Seq)
	binary.BigEndian.PutUint32(b[8:], p.Ack)
	b[12], b[13] = uint8(head/4)<<4, uint8(p.Flags)
	binary.BigEndian.PutUint16(b[14:], p.window())
	binary.BigEndian.PutUint16(b[18:], p.Urgent)
	copy(b[sizeTCP:], options)
	b = append(b, p.Payload...)

	h := ip{p.Source.Addr(), p.Target.Addr(), p.TTL, p.ID, p.IPOptions, p.Extension, p.ExtensionFirst}
	binary.BigEndian.PutUint16(b[16:], spoil(h.checksum(unix.IPPROTO_TCP, b), p.BadChecksum))
	return h.wrap(unix.IPPROTO_TCP, b)
}

func (p TCP) window() uint16 {
	if p.Window == 0 {
		return defaultWindow
	}
	return p.Window
}

// WithHeaders returns the packet with these IPv6 extension headers in place of its own.
func (p TCP) WithHeaders(headers ...Header) TCP {
	p.ExtensionFirst, p.Extension = Chain(unix.IPPROTO_TCP, headers...)
	return p
}

// WithExtensions returns the packet with n destination options headers of 8 bytes in place of its own extension
// headers.
func (p TCP) WithExtensions(n int) TCP { return p.WithHeaders(repeat(n)...) }

// spoil makes a checksum wrong if it shall be, and not zero, which would mean none in UDP over IPv4.
func spoil(checksum uint16, bad bool) uint16 {
	if !bad {
		return checksum
	}
	if checksum^0x5555 == 0 {
		return 0xaaaa
	}
	return checksum ^ 0x5555
}
