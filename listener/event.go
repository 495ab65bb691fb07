package listener

import (
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// A Protocol is the transport protocol of a probe, by its IP protocol number.
type Protocol uint8

// The protocols in which probes are noticed.
const (
	TCP Protocol = unix.IPPROTO_TCP
)

// String is the name of the protocol in lower case.
func (p Protocol) String() string {
	if p == TCP {
		return "tcp"
	}
	return "unknown"
}

// A Kind says what a probe was.
type Kind uint8

// The kinds of probes.
const (
	Connect Kind = iota + 1 // a TCP connection that was completed
)

// String is the kind in the words of the documentation.
func (k Kind) String() string {
	if k == Connect {
		return "connect"
	}
	return "unknown"
}

// Evidence says how far the source of a probe can be trusted to be its source.
type Evidence uint8

// The degrees of evidence.
const (
	Unproven Evidence = iota // a lone packet, which anyone can send in another's name
	Proven                   // a completed handshake, which needs the answers to arrive
)

// String is "proven" or "unproven".
func (e Evidence) String() string {
	if e == Proven {
		return "proven"
	}
	return "unproven"
}

// An Event is one probe of one tripwire.
type Event struct {
	Time     time.Time      // when it was noticed; carries the monotonic clock
	Source   netip.AddrPort // who; unmapped, without zone
	Target   netip.AddrPort // the address and port that the source asked for
	Protocol Protocol
	Kind     Kind
	Evidence Evidence
}
