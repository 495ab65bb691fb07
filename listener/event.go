package listener

import (
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// unknown is the name of every value that has none.
const unknown = "unknown"

// A Protocol is the transport protocol of a probe, by its IP protocol number.
// The zero value is for probes of which it cannot be told.
type Protocol uint8

// The protocols in which probes are noticed.
const (
	TCP Protocol = unix.IPPROTO_TCP
	UDP Protocol = unix.IPPROTO_UDP
)

var protocolNames = [...]string{TCP: "tcp", UDP: "udp"}

// String is the name of the protocol in lower case.
func (p Protocol) String() string { return name(protocolNames[:], p) }

// A Kind says what a probe was. The zero value is for packets of which the
// end with the transport header is missing, and for TCP packets that answer.
type Kind uint8

// The kinds of probes. All but Connect and Datagram are TCP packets without
// ACK and RST, told apart by their flags; ECE and CWR do not count.
const (
	Connect  Kind = iota + 1 // a TCP connection that was completed
	Syn                      // SYN without FIN
	Fin                      // FIN, alone or with one of PSH and URG
	Null                     // neither SYN nor FIN
	Xmas                     // FIN, PSH and URG
	SynFin                   // SYN and FIN, whatever else
	Datagram                 // a UDP packet
)

var kindNames = [...]string{
	Connect: "connect", Syn: "syn", Fin: "fin", Null: "null", Xmas: "xmas", SynFin: "syn-fin", Datagram: "udp",
}

// String is the kind in the words of the documentation.
func (k Kind) String() string { return name(kindNames[:], k) }

// scanTypes are the names of reportPacketType in portsentry.c of Portsentry
// 1.2, and the beginning of its "Connect from host". Its blank before "TCP
// NULL scan" is left out, as in version 2.
var scanTypes = [...]string{
	0:        "Unknown Type",
	Connect:  "Connect",
	Syn:      "TCP SYN/Normal scan",
	Fin:      "TCP FIN scan",
	Null:     "TCP NULL scan",
	Xmas:     "TCP XMAS scan",
	SynFin:   "Unknown Type: TCP Packet Flags: SYN: 1 FIN: 1 ACK: 0 PSH: 0 URG: 0 RST: 0",
	Datagram: "UDP scan",
}

// Portsentry is the kind in the words of Portsentry 1.2's log. Of an unknown
// kind it is "Unknown Type".
func (k Kind) Portsentry() string {
	if int(k) < len(scanTypes) {
		return scanTypes[k]
	}
	return scanTypes[0]
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

// A Verdict says what the kernel has made of a probe.
type Verdict uint8

// The verdicts of the kernel.
const (
	Noticed   Verdict = iota // nothing yet: it is counted, or the decoy's to judge
	Exempted                 // nothing: the source is a peer, and this does not count
	Convicted                // the source is blocked, and this packet is dropped
	Crowded                  // nothing: a set is full, and this is not counted
	Overspent                // nothing: the source would be blocked, but the budget is spent
)

var verdictNames = [...]string{
	Noticed: "noticed", Exempted: "exempted", Convicted: "convicted", Crowded: "crowded", Overspent: "overspent",
}

// String is the verdict in one word.
func (v Verdict) String() string { return name(verdictNames[:], v) }

// An Event is one probe of one tripwire.
type Event struct {
	Time     time.Time      // when it was noticed; carries the monotonic clock
	Source   netip.AddrPort // who; unmapped, without zone
	Target   netip.AddrPort // the address and port that the source asked for; port 0 if it cannot be told
	Protocol Protocol
	Kind     Kind
	Evidence Evidence
	Verdict  Verdict
}

// name looks a value up in a table of names.
func name[T ~uint8](names []string, value T) string {
	if int(value) < len(names) && names[value] != "" {
		return names[value]
	}
	return unknown
}
