package packet

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

const sizeUDP = 8 // of a UDP header, RFC 768

// A UDP is a UDP datagram in an IP packet of its own, IPv4 or IPv6 as its target is. Its fields are as those of [TCP].
type UDP struct {
	Source, Target netip.AddrPort
	Payload        []byte

	TTL            uint8
	ID             uint16
	IPOptions      []byte
	Extension      []byte
	ExtensionFirst uint8
	BadChecksum    bool
}

// Bytes returns the IP packet. It panics as [TCP.Bytes] does.
func (p UDP) Bytes() []byte {
	b := make([]byte, sizeUDP, sizeUDP+len(p.Payload))
	binary.BigEndian.PutUint16(b[0:], p.Source.Port())
	binary.BigEndian.PutUint16(b[2:], p.Target.Port())
	binary.BigEndian.PutUint16(b[4:], length("UDP datagram", sizeUDP+len(p.Payload)))
	b = append(b, p.Payload...)

	h := ip{p.Source.Addr(), p.Target.Addr(), p.TTL, p.ID, p.IPOptions, p.Extension, p.ExtensionFirst}
	binary.BigEndian.PutUint16(b[6:], spoil(h.checksum(unix.IPPROTO_UDP, b), p.BadChecksum))
	return h.wrap(unix.IPPROTO_UDP, b)
}

// WithHeaders returns the packet with these IPv6 extension headers in place of its own.
func (p UDP) WithHeaders(headers ...Header) UDP {
	p.ExtensionFirst, p.Extension = Chain(unix.IPPROTO_UDP, headers...)
	return p
}

// WithExtensions returns the packet with n destination options headers of 8 bytes in place of its own extension
// headers.
func (p UDP) WithExtensions(n int) UDP { return p.WithHeaders(repeat(n)...) }
