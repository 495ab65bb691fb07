//go:build bench

package bench

import (
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nftsentry/integration/packet"
)

// A view is what the router sees of one scan.
type view struct {
	services []uint16 // of the server, for the protocol that is scanned
	trip     trip

	probes   map[uint16]bool // by port, whether the first came after what has the guard block
	replies  map[uint16]bool // by port, whether the first says that it is open
	began    time.Time       // the first probe
	last     time.Time       // the last reply
	silence  int             // questions in a row that were not answered
	question uint16          // the last one's source port
}

// A trip is what has a guard block: some of the watched ports, touched.
type trip struct {
	watched   map[uint16]bool // nil where that is not known
	ports     int             // distinct ones
	handshake bool            // it takes the end of a handshake to touch one

	touched map[uint16]bool
}

func newTrip(t testing.TB, g *running) trip {
	t.Helper()
	tr := trip{ports: len(g.closed), touched: make(map[uint16]bool)}
	if len(g.closed) == 0 {
		tr.ports, tr.handshake = len(g.ports), true
	}
	if g.watched != nil {
		tr.watched = g.watched(t)
	}
	return tr
}

// feel takes note of a packet to the server.
func (tr *trip) feel(s sighting) {
	if tr.watched[s.target.Port()] && s.protocol == unix.IPPROTO_TCP && (!tr.handshake || s.flags == packet.ACK) {
		tr.touched[s.target.Port()] = true
	}
}

// over reports whether the guard has reason to block.
func (tr *trip) over() bool { return tr.watched != nil && len(tr.touched) >= tr.ports }

// Questions are asked from the privileged ports: no scanner sends from one.
const lastQuestion = 1023

// probe takes note of a packet from the scanner.
func (v *view) probe(s sighting) {
	if s.source.Port() <= lastQuestion {
		return
	}
	port := s.target.Port()
	if v.began.IsZero() {
		v.began, v.last = s.at, s.at
	}
	if _, again := v.probes[port]; !again {
		v.probes[port] = v.trip.over()
	}
	if !slices.Contains(v.services, port) {
		v.trip.feel(s)
	}
}

// reply takes note of a packet to the scanner. The first that tells of a port
// counts: what has claimed to be open may reset the connection later.
func (v *view) reply(s sighting) {
	port := s.source.Port()
	if s.target.Port() <= lastQuestion {
		v.silence = 0
		return
	}
	open := s.protocol == unix.IPPROTO_UDP || s.flags&(packet.SYN|packet.ACK) == packet.SYN|packet.ACK
	shut := s.protocol != unix.IPPROTO_UDP && (s.protocol != unix.IPPROTO_TCP || s.flags&packet.RST != 0)
	if _, again := v.replies[port]; again || !open && !shut {
		return
	}
	v.replies[port], v.last = open, s.at
}

// ask is the next question, which only a blocked source gets no answer to: a
// SYN to a service.
func (v *view) ask(source, server netip.Addr) []byte {
	v.silence++
	v.question = v.question%lastQuestion + 1
	return packet.TCP{
		Source: netip.AddrPortFrom(source, v.question), Target: netip.AddrPortFrom(server, tcpServices[0]), Flags: packet.SYN,
	}.Bytes()
}

// cut reports whether the scanner gets no answers any more.
func (v *view) cut() bool { return v.silence >= 15 }

// A lesson is what a scanner has learnt: of how many ports.
type lesson struct {
	services, closed, tripwires int // what they really are; tripwires are among the closed
	posing                      int // closed, but they claim to be open
	lateServices, lateClosed    int // probed after what has the guard block
}

func (v *view) lesson() (l lesson) {
	for port, open := range v.replies {
		late := count(v.probes[port])
		switch {
		case slices.Contains(v.services, port):
			l.services++
			l.lateServices += late
		case open:
			l.posing++
		default:
			l.closed++
			l.lateClosed += late
			l.tripwires += count(v.trip.watched[port])
		}
	}
	return l
}

func count(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

var portRange = regexp.MustCompile(`(\d+)(?:-(\d+))?`)

// portsIn reads a list of ports and ranges of ports.
func portsIn(t testing.TB, list string) map[uint16]bool {
	t.Helper()
	ports := make(map[uint16]bool)
	for _, m := range portRange.FindAllStringSubmatch(list, -1) {
		first := portOf(t, m[1])
		last := first
		if m[2] != "" {
			last = portOf(t, m[2])
		}
		for port := int(first); port <= int(last); port++ {
			ports[uint16(port)] = true
		}
	}
	return ports
}

func portOf(t testing.TB, text string) uint16 {
	t.Helper()
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	return uint16(port)
}
