package listener

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Sizes in bytes.
const (
	ipv4Header = 20 // without options, RFC 791 section 3.1
	ipv6Header = 40 // RFC 8200 section 3
	ports      = 4  // source and destination, with which TCP and UDP begin
	flagsAt    = 13 // where the flags are in a TCP header, RFC 9293 section 3.1
)

// The flags of a TCP header, RFC 9293 section 3.1.
const (
	flagFIN = 1 << iota
	flagSYN
	flagRST
	flagPSH
	flagACK
	flagURG
)

const (
	ipv4Offset = 0x1fff // the part of its field that is the offset of a fragment, RFC 791 section 3.1
	ipv6Offset = 0xfff8 // the same, RFC 8200 section 4.5
	// maxExtensions is how many extension headers an IPv6 packet may have.
	// Honest ones have two or three.
	maxExtensions = 8
	// minExtension is the size of the smallest extension header in bytes.
	minExtension = 8
)

var (
	errEtherType = errors.New("neither an IPv4 nor an IPv6 packet")
	errIPv4      = errors.New("not an IPv4 header")
	errIPv6      = errors.New("not an IPv6 header")
	errMapped    = errors.New("IPv4 address in an IPv6 packet")
)

// parsePacket reads an IP packet, whose end may be missing, into the event.
// The Ethernet type, of include/uapi/linux/if_ether.h, says which IP it is.
//
// With a whole IP header there is always a source, a target and no error. The
// rest of the event is left at zero as far as the packet does not say it: in
// all fragments but the first, and where its transport header is cut off.
func parsePacket(e *Event, etherType uint16, b []byte) error {
	switch etherType {
	case unix.ETH_P_IP:
		return parseIPv4(e, b)
	case unix.ETH_P_IPV6:
		return parseIPv6(e, b)
	default:
		return errEtherType
	}
}

func parseIPv4(e *Event, b []byte) error {
	if len(b) < ipv4Header || b[0]>>4 != 4 {
		return errIPv4
	}
	header, total := 4*int(b[0]&0xf), int(binary.BigEndian.Uint16(b[2:]))
	if header < ipv4Header || total < header {
		return errIPv4
	}
	e.Source = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[12:])), 0)
	e.Target = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[16:])), 0)
	e.Protocol = watched(b[9])
	later := binary.BigEndian.Uint16(b[6:])&ipv4Offset != 0
	if b = b[:min(len(b), total)]; later || len(b) < header {
		return nil
	}
	parseTransport(e, b[header:])
	return nil
}

// parseIPv6 refuses IPv4 addresses in IPv6 packets. The kernel lets them in
// (commit dcc32f4f183a took back that it does not), but no IPv4 host has sent
// such a packet: unmapped, the address would blame a stranger, and as it is
// nobody here could hold it.
func parseIPv6(e *Event, b []byte) error {
	if len(b) < ipv6Header || b[0]>>4 != 6 {
		return errIPv6
	}
	source, target := netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:]))
	if source.Is4In6() || target.Is4In6() {
		return errMapped
	}
	e.Source, e.Target = netip.AddrPortFrom(source, 0), netip.AddrPortFrom(target, 0)
	if n := int(binary.BigEndian.Uint16(b[4:])); n != 0 { // 0 is a jumbogram, RFC 2675
		b = b[:min(len(b), ipv6Header+n)]
	}
	protocol, transport := skipExtensions(b[6], b[ipv6Header:])
	e.Protocol = watched(protocol)
	parseTransport(e, transport)
	return nil
}

// skipExtensions walks from the first header after the IPv6 header to that of
// the transport protocol. It returns the last protocol that a header named,
// and what follows; nothing if that is not the beginning of its header.
func skipExtensions(next byte, b []byte) (protocol byte, transport []byte) {
	for n := 0; isExtension(next); n++ {
		if n == maxExtensions || len(b) < minExtension {
			return next, nil
		}
		size := extensionSize(next, b[1])
		later := next == unix.IPPROTO_FRAGMENT && binary.BigEndian.Uint16(b[2:])&ipv6Offset != 0
		next = b[0]
		if later || len(b) < size {
			return next, nil
		}
		b = b[size:]
	}
	return next, b
}

// isExtension knows the headers that the kernel does: ipv6_ext_hdr in
// net/ipv6/exthdrs_core.c, but for "no next header", after which nothing comes.
func isExtension(header byte) bool {
	switch header {
	case unix.IPPROTO_HOPOPTS, unix.IPPROTO_ROUTING, unix.IPPROTO_FRAGMENT, unix.IPPROTO_AH, unix.IPPROTO_DSTOPTS:
		return true
	default:
		return false
	}
}

// extensionSize is the size of an extension header in bytes, at least
// minExtension: RFC 8200 section 4, and RFC 4302 section 2.2 for AH.
func extensionSize(header, length byte) int {
	switch header {
	case unix.IPPROTO_FRAGMENT:
		return minExtension
	case unix.IPPROTO_AH:
		return 4 * (int(length) + 2)
	default:
		return 8 * (int(length) + 1)
	}
}

// watched is the protocol of that number, or zero if no probes are noticed in it.
func watched(number byte) Protocol {
	if p := Protocol(number); p == TCP || p == UDP {
		return p
	}
	return 0
}

// parseTransport reads what is there of a transport header.
func parseTransport(e *Event, b []byte) {
	if e.Protocol == 0 || len(b) < ports {
		return
	}
	e.Source = netip.AddrPortFrom(e.Source.Addr(), binary.BigEndian.Uint16(b))
	e.Target = netip.AddrPortFrom(e.Target.Addr(), binary.BigEndian.Uint16(b[2:]))
	switch {
	case e.Protocol == UDP:
		e.Kind = Datagram
	case len(b) > flagsAt:
		e.Kind = classify(b[flagsAt])
	}
}

// classify tells the kind of a TCP packet by its flags. It is zero with ACK or
// RST, which the rules let pass: such packets answer.
func classify(flags byte) Kind {
	switch {
	case flags&(flagACK|flagRST) != 0:
		return 0
	case flags&(flagSYN|flagFIN) == flagSYN|flagFIN:
		return SynFin
	case flags&flagSYN != 0:
		return Syn
	case flags&(flagFIN|flagPSH|flagURG) == flagFIN|flagPSH|flagURG:
		return Xmas
	case flags&flagFIN != 0:
		return Fin
	default:
		return Null
	}
}
