package listener

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"
)

// compare compares events as they are.
var compare = cmpopts.EquateComparable(netip.AddrPort{})

var (
	source4, target4 = netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("198.51.100.1")
	source6, target6 = netip.MustParseAddr("2001:db8:7::1"), netip.MustParseAddr("2001:db8::1")
)

// tcp is a TCP header from port 40000 to port 23.
func tcp(flags byte) []byte {
	b := make([]byte, 20)
	binary.BigEndian.PutUint16(b, 40000)
	binary.BigEndian.PutUint16(b[2:], 23)
	b[12], b[13] = 5<<4, flags
	return b
}

// udp is a UDP header from port 40000 to port 161, with data.
func udp(data string) []byte {
	b := binary.BigEndian.AppendUint16(nil, 40000)
	b = binary.BigEndian.AppendUint16(b, 161)
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(data)))
	return append(append(b, 0, 0), data...)
}

// ip4 is an IPv4 packet; the offset of a fragment is in units of 8 bytes.
func ip4(protocol byte, offset uint16, options, payload []byte) []byte {
	b := make([]byte, 20)
	b[0] = byte(4<<4 | (20+len(options))/4)
	binary.BigEndian.PutUint16(b[2:], uint16(20+len(options)+len(payload)))
	binary.BigEndian.PutUint16(b[6:], offset)
	b[8], b[9] = 64, protocol
	copy(b[12:], source4.AsSlice())
	copy(b[16:], target4.AsSlice())
	return slices.Concat(b, options, payload)
}

// ip6 is an IPv6 packet.
func ip6(next byte, payload ...[]byte) []byte {
	b := make([]byte, 40)
	rest := slices.Concat(payload...)
	b[0] = 6 << 4
	binary.BigEndian.PutUint16(b[4:], uint16(len(rest)))
	b[6], b[7] = next, 64
	copy(b[8:], source6.AsSlice())
	copy(b[24:], target6.AsSlice())
	return append(b, rest...)
}

// extension is an extension header of a size in bytes; its length field is
// what RFC 8200, or for AH RFC 4302, makes of that.
func extension(next, length byte, size int) []byte {
	b := make([]byte, size)
	b[0], b[1] = next, length
	return b
}

// fragment is the extension header of a fragment.
func fragment(next byte, offset uint16) []byte {
	b := extension(next, 0xff, 8) // the second byte is reserved, and no length
	binary.BigEndian.PutUint16(b[2:], offset<<3|1)
	return b
}

// put returns a packet with bytes replaced.
func put(b []byte, at int, value ...byte) []byte {
	b = bytes.Clone(b)
	copy(b[at:], value)
	return b
}

func event4(protocol Protocol, kind Kind, sport, dport uint16) Event {
	return Event{
		Source: netip.AddrPortFrom(source4, sport), Target: netip.AddrPortFrom(target4, dport),
		Protocol: protocol, Kind: kind,
	}
}

func event6(protocol Protocol, kind Kind, sport, dport uint16) Event {
	e := event4(protocol, kind, sport, dport)
	e.Source, e.Target = netip.AddrPortFrom(source6, sport), netip.AddrPortFrom(target6, dport)
	return e
}

type packetTest struct {
	name      string
	etherType uint16
	packet    []byte
	want      Event
	err       error
}

func v4(name string, packet []byte, want Event) packetTest {
	return packetTest{name, unix.ETH_P_IP, packet, want, nil}
}

func v6(name string, packet []byte, want Event) packetTest {
	return packetTest{name, unix.ETH_P_IPV6, packet, want, nil}
}

func bad(name string, etherType uint16, packet []byte, err error) packetTest {
	return packetTest{name, etherType, packet, Event{}, err}
}

const (
	tcpNo, udpNo, icmpNo   = unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_ICMP
	hopNo, routeNo, fragNo = unix.IPPROTO_HOPOPTS, unix.IPPROTO_ROUTING, unix.IPPROTO_FRAGMENT
	destNo, ahNo, noneNo   = unix.IPPROTO_DSTOPTS, unix.IPPROTO_AH, unix.IPPROTO_NONE
)

var (
	routerAlert = []byte{0x94, 4, 0, 0}
	syn4        = ip4(tcpNo, 0, nil, tcp(flagSYN))
	syn6        = ip6(tcpNo, tcp(flagSYN))
	mapped      = netip.MustParseAddr("::ffff:192.0.2.7")
)

// extensions is a packet with n extension headers before TCP.
func extensions(n int) []byte {
	var all [][]byte
	for range n - 1 {
		all = append(all, extension(destNo, 0, 8))
	}
	return ip6(destNo, append(all, extension(tcpNo, 0, 8), tcp(flagSYN))...)
}

var packetTests = []packetTest{
	v4("tcp", syn4, event4(TCP, Syn, 40000, 23)),
	v4("udp", ip4(udpNo, 0, nil, udp("hello")), event4(UDP, Datagram, 40000, 161)),
	v4("options", ip4(tcpNo, 0, routerAlert, tcp(flagFIN)), event4(TCP, Fin, 40000, 23)),
	v4("most options", ip4(tcpNo, 0, make([]byte, 40), tcp(0)), event4(TCP, Null, 40000, 23)),
	v4("options cut off", ip4(tcpNo, 0, make([]byte, 40), nil)[:59], event4(TCP, 0, 0, 0)),
	v4("first fragment", ip4(udpNo, 0x2000, nil, udp("hello")), event4(UDP, Datagram, 40000, 161)),
	v4("do not fragment", ip4(tcpNo, 0x4000, nil, tcp(flagSYN)), event4(TCP, Syn, 40000, 23)),
	v4("second fragment", ip4(tcpNo, 0x2001, nil, tcp(flagSYN)), event4(TCP, 0, 0, 0)),
	v4("last fragment", ip4(udpNo, 0x1fff, nil, udp("hello")), event4(UDP, 0, 0, 0)),
	v4("fragment of 8 bytes", ip4(tcpNo, 0x2000, nil, tcp(flagSYN)[:8]), event4(TCP, 0, 40000, 23)),
	v4("more than the total length", append(ip4(tcpNo, 0, nil, nil), tcp(flagSYN)...), event4(TCP, 0, 0, 0)),
	v4("icmp", ip4(icmpNo, 0, nil, tcp(0)), event4(0, 0, 0, 0)),
	v4("answer", ip4(tcpNo, 0, nil, tcp(flagSYN|flagACK)), event4(TCP, 0, 40000, 23)),
	bad("IPv6 as IPv4", unix.ETH_P_IP, syn6, errIPv4),
	bad("short header", unix.ETH_P_IP, put(syn4, 0, 0x44), errIPv4),
	bad("short total length", unix.ETH_P_IP, put(syn4, 2, 0, 19), errIPv4),
	bad("total length without options", unix.ETH_P_IP, put(ip4(tcpNo, 0, routerAlert, tcp(0)), 2, 0, 20), errIPv4),
	bad("ARP", unix.ETH_P_ARP, syn4, errEtherType),
	bad("empty", unix.ETH_P_IP, nil, errIPv4),

	v6("tcp", syn6, event6(TCP, Syn, 40000, 23)),
	v6("udp", ip6(udpNo, udp("hello")), event6(UDP, Datagram, 40000, 161)),
	v6("hop-by-hop", ip6(hopNo, extension(tcpNo, 1, 16), tcp(0)), event6(TCP, Null, 40000, 23)),
	v6("routing", ip6(routeNo, extension(tcpNo, 2, 24), tcp(flagSYN)), event6(TCP, Syn, 40000, 23)),
	v6("destination options", ip6(destNo, extension(udpNo, 0, 8), udp("")), event6(UDP, Datagram, 40000, 161)),
	v6("AH", ip6(ahNo, extension(tcpNo, 4, 24), tcp(flagSYN)), event6(TCP, Syn, 40000, 23)),
	v6("first fragment", ip6(fragNo, fragment(tcpNo, 0), tcp(flagSYN)), event6(TCP, Syn, 40000, 23)),
	v6("second fragment", ip6(fragNo, fragment(tcpNo, 1), tcp(flagSYN)), event6(TCP, 0, 0, 0)),
	v6("last fragment", ip6(fragNo, fragment(udpNo, 0x1fff), udp("")), event6(UDP, 0, 0, 0)),
	v6("all of them", ip6(hopNo, extension(routeNo, 0, 8), extension(fragNo, 0, 8), fragment(ahNo, 0),
		extension(destNo, 1, 12), extension(tcpNo, 1, 16), tcp(flagSYN)), event6(TCP, Syn, 40000, 23)),
	v6("as many as may be", extensions(maxExtensions), event6(TCP, Syn, 40000, 23)),
	v6("one more", extensions(maxExtensions+1), event6(0, 0, 0, 0)),
	v6("extension cut off", ip6(destNo, extension(tcpNo, 255, 8)), event6(TCP, 0, 0, 0)),
	v6("no next header", ip6(noneNo, tcp(flagSYN)), event6(0, 0, 0, 0)),
	v6("more than the payload length", put(syn6, 4, 0, 4), event6(TCP, 0, 40000, 23)),
	v6("jumbogram", put(syn6, 4, 0, 0), event6(TCP, Syn, 40000, 23)),
	bad("IPv4 as IPv6", unix.ETH_P_IPV6, append(bytes.Clone(syn4), make([]byte, 40)...), errIPv6),
	bad("mapped source", unix.ETH_P_IPV6, put(syn6, 8, mapped.AsSlice()...), errMapped),
	bad("mapped target", unix.ETH_P_IPV6, put(syn6, 24, mapped.AsSlice()...), errMapped),
}

func (tt packetTest) String() string { return fmt.Sprintf("%#x %s", tt.etherType, tt.name) }

func TestParsePacket(t *testing.T) {
	for _, tt := range packetTests {
		var got Event
		err := parsePacket(&got, tt.etherType, tt.packet)
		if !errors.Is(err, tt.err) {
			t.Errorf("%v: error %v, want %v", tt, err, tt.err)
		}
		if diff := cmp.Diff(tt.want, got, compare); diff != "" {
			t.Errorf("%v: event (-want +got):\n%s", tt, diff)
		}
	}
}

// TestCut cuts packets at every length: what is left of them says the same as
// the whole, or nothing.
func TestCut(t *testing.T) {
	for _, tt := range packetTests {
		if tt.err != nil {
			continue
		}
		header := ipv4Header
		if tt.etherType == unix.ETH_P_IPV6 {
			header = ipv6Header
		}
		for n := range tt.packet {
			var got Event
			err := parsePacket(&got, tt.etherType, tt.packet[:n:n])
			if n < header && (err == nil || got != Event{}) {
				t.Errorf("%v: cut at %d: %v, %+v, want an error and nothing else", tt, n, err, got)
			}
			if n >= header && (err != nil || !partOf(got, tt.want)) {
				t.Errorf("%v: cut at %d: %v, %+v, want part of %+v", tt, n, err, got, tt.want)
			}
		}
	}
}

// partOf reports whether an event says nothing that the whole does not.
func partOf(part, whole Event) bool {
	return part.Source.Addr() == whole.Source.Addr() && part.Target.Addr() == whole.Target.Addr() &&
		(part.Source.Port() == 0 || part.Source.Port() == whole.Source.Port()) &&
		(part.Target.Port() == 0 || part.Target.Port() == whole.Target.Port()) &&
		(part.Protocol == 0 || part.Protocol == whole.Protocol) &&
		(part.Kind == 0 || part.Kind == whole.Kind)
}

// TestCutWhere says from which length on a packet tells what.
func TestCutWhere(t *testing.T) {
	for n, want := range map[int]Event{
		20: event4(TCP, 0, 0, 0),
		23: event4(TCP, 0, 0, 0),
		24: event4(TCP, 0, 40000, 23),
		33: event4(TCP, 0, 40000, 23),
		34: event4(TCP, Syn, 40000, 23),
	} {
		var got Event
		if err := parsePacket(&got, unix.ETH_P_IP, syn4[:n]); err != nil {
			t.Errorf("cut at %d: %v", n, err)
		}
		if diff := cmp.Diff(want, got, compare); diff != "" {
			t.Errorf("cut at %d: event (-want +got):\n%s", n, diff)
		}
	}
}

// TestClassify goes through every combination of flags. The names are written
// in the order FIN, SYN, PSH, URG.
func TestClassify(t *testing.T) {
	want := map[string]Kind{
		"----": Null, "--P-": Null, "---U": Null, "--PU": Null,
		"F---": Fin, "F-P-": Fin, "F--U": Fin, "F-PU": Xmas,
		"-S--": Syn, "-SP-": Syn, "-S-U": Syn, "-SPU": Syn,
		"FS--": SynFin, "FSP-": SynFin, "FS-U": SynFin, "FSPU": SynFin,
	}
	for flags := range 256 {
		name := []byte("----")
		for i, bit := range []int{flagFIN, flagSYN, flagPSH, flagURG} {
			if flags&bit != 0 {
				name[i] = "FSPU"[i]
			}
		}
		kind := want[string(name)]
		if flags&(flagACK|flagRST) != 0 {
			kind = 0
		}
		if got := classify(byte(flags)); got != kind {
			t.Errorf("flags %#02x: %v, want %v", flags, got, kind)
		}
	}
}

func FuzzParsePacket(f *testing.F) {
	for _, tt := range packetTests {
		f.Add(tt.etherType, tt.packet)
	}
	f.Fuzz(func(t *testing.T, etherType uint16, b []byte) {
		var whole Event
		if err := parsePacket(&whole, etherType, b); err != nil {
			if (whole != Event{}) {
				t.Errorf("%v, and still %+v", err, whole)
			}
			return
		}
		checkEvent(t, whole)
		for n := len(b) - 1; n >= 0; n-- {
			var part Event
			if err := parsePacket(&part, etherType, b[:n:n]); err == nil && !partOf(part, whole) {
				t.Errorf("cut at %d: %+v, want part of %+v", n, part, whole)
			}
		}
	})
}

// checkEvent checks what holds for every event.
func checkEvent(t *testing.T, e Event) {
	t.Helper()
	for _, a := range []netip.Addr{e.Source.Addr(), e.Target.Addr()} {
		if !a.IsValid() || a.Is4In6() || a.Zone() != "" {
			t.Errorf("address %v in %+v", a, e)
		}
	}
	kinds := map[Protocol][]Kind{0: {0}, TCP: {0, Syn, Fin, Null, Xmas, SynFin}, UDP: {0, Datagram}}
	if !slices.Contains(kinds[e.Protocol], e.Kind) {
		t.Errorf("kind %v of protocol %d", e.Kind, e.Protocol)
	}
}
