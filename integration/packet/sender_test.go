package packet

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"nftsentry/integration/netns"
)

// pair is two hosts with a link between them; b answers the forged sources by way of a.
func pair(t *testing.T) (a, b *netns.Host) {
	t.Helper()
	a, b = netns.New(t, "a"), netns.New(t, "b")
	netns.Link(t, a, b, "eth0", "eth1", []string{"192.0.2.1/24", "2001:db8::1/64", "fe80::1/64"},
		[]string{"192.0.2.2/24", "2001:db8::2/64", "fe80::2/64"})
	b.Route(t, "default", "192.0.2.1")
	b.Route(t, "default", "2001:db8::1")
	return a, b
}

// A tap sees the packets that arrive at a host.
type tap struct{ fd int }

func newTap(t *testing.T, host *netns.Host) tap {
	t.Helper()
	fd, err := -1, error(nil)
	host.Do(t, func() { fd, err = openTap() })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20); err != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<20) // in a user namespace as much as the host allows
	}
	return tap{fd}
}

// await waits for the next packet that fits and returns it; nil if none comes.
func (p tap) await(t *testing.T, wait time.Duration, fits func([]byte) bool) []byte {
	t.Helper()
	b := make([]byte, 2048)
	for deadline := time.Now().Add(wait); time.Now().Before(deadline); {
		n, from, err := unix.Recvfrom(p.fd, b, 0)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		sa, ok := from.(*unix.SockaddrLinklayer)
		if ok && sa.Pkttype != unix.PACKET_OUTGOING && n > 14 && fits(b[14:n]) {
			return bytes.Clone(b[14:n])
		}
	}
	return nil
}

// arrives fails the test unless this packet arrives, byte by byte.
func (p tap) arrives(t *testing.T, packet []byte) {
	t.Helper()
	if p.await(t, 3*time.Second, func(b []byte) bool { return bytes.Equal(packet, b) }) == nil {
		t.Errorf("packet % x has not arrived", packet)
	}
}

func TestSendForged(t *testing.T) {
	a, b := pair(t)
	s, seen := Open(t, a), newTap(t, b)
	tests := []struct{ name, source, target string }{
		{"elsewhere, IPv4", "198.18.7.7", "192.0.2.2"},
		{"the target itself, IPv4", "192.0.2.2", "192.0.2.2"},
		{"own address, IPv4", "192.0.2.1", "192.0.2.2"},
		{"neighbour, IPv4", "192.0.2.77", "192.0.2.2"},
		{"loopback, IPv4", "127.0.0.1", "192.0.2.2"},
		{"unspecified, IPv4", "0.0.0.0", "192.0.2.2"},
		{"broadcast, IPv4", "255.255.255.255", "192.0.2.2"},
		{"multicast, IPv4", "224.0.0.1", "192.0.2.2"},
		{"to the broadcast address", "198.18.7.7", "192.0.2.255"},
		{"elsewhere, IPv6", "2001:db8:7::7", "2001:db8::2"},
		{"the target itself, IPv6", "2001:db8::2", "2001:db8::2"},
		{"own address, IPv6", "2001:db8::1", "2001:db8::2"},
		{"link-local, IPv6", "fe80::77", "2001:db8::2"},
		{"loopback, IPv6", "::1", "2001:db8::2"},
		{"unspecified, IPv6", "::", "2001:db8::2"},
		{"multicast, IPv6", "ff02::1", "2001:db8::2"},
		{"IPv4-mapped, IPv6", "::ffff:198.18.7.7", "2001:db8::2"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			source, target := netip.MustParseAddr(tt.source), netip.MustParseAddr(tt.target)
			p := TCP{Source: netip.AddrPortFrom(source, 40000), Target: netip.AddrPortFrom(target, 23), Flags: SYN, ID: 7}.Bytes()
			s.Send(t, p)
			seen.arrives(t, p)
		})
	}
}

func TestSendBound(t *testing.T) {
	a, b := pair(t)
	s, seen := Open(t, a), newTap(t, b)
	s.Bind(t, "eth0")
	for _, target := range []string{"fe80::2", "ff02::1"} {
		p := UDP{Source: source6, Target: netip.AddrPortFrom(netip.MustParseAddr(target), 9)}.Bytes()
		s.Send(t, p)
		seen.arrives(t, p)
	}
}

func TestSendToItself(t *testing.T) {
	h := netns.New(t, "a")
	s, seen := Open(t, h), newTap(t, h)
	for _, addr := range []string{"127.0.0.1", "::1"} {
		self := netip.MustParseAddr(addr)
		p := TCP{Source: netip.AddrPortFrom(self, 40000), Target: netip.AddrPortFrom(self, 23), Flags: SYN, ID: 7}.Bytes()
		s.Send(t, p)
		seen.arrives(t, p)
	}
}

func TestSendErrors(t *testing.T) {
	a, _ := pair(t)
	s := Open(t, a)
	elsewhere := netip.MustParseAddrPort("203.0.113.1:23")
	tests := []struct {
		name   string
		packet []byte
		want   error // nil for one without a name
	}{
		{"empty", nil, nil},
		{"cut", TCP{Source: source6, Target: target6}.Bytes()[:39], nil},
		{"no route", TCP{Source: source4, Target: elsewhere}.Bytes(), unix.ENETUNREACH},
		{"no route, unspecified source", TCP{Source: netip.AddrPortFrom(netip.IPv4Unspecified(), 1), Target: elsewhere}.Bytes(), unix.ENETUNREACH},
		{"larger than the link", UDP{Source: source6, Target: target6, Payload: make([]byte, 1500)}.Bytes(), unix.EMSGSIZE},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := s.transmit(t.Context(), tt.packet); err == nil || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("want %v, got %v", tt.want, err)
			}
		})
	}
}

// TestSYNIsAnswered has the kernel judge: it answers a SYN only if all of it is right.
func TestSYNIsAnswered(t *testing.T) {
	a, b := pair(t)
	s := Open(t, a)
	syn := func(source string) TCP {
		target := "192.0.2.2:23"
		if netip.MustParseAddrPort(source).Addr().Is6() {
			target = "[2001:db8::2]:23"
		}
		return TCP{Source: netip.MustParseAddrPort(source), Target: netip.MustParseAddrPort(target), Flags: SYN, Seq: 99}
	}
	const from4, from6 = "198.18.7.7", "[2001:db8:7::7]"
	options := syn(from4 + ":1002")
	options.IPOptions, options.Options = []byte{0x94, 4, 0, 0}, []byte{2, 4, 5, 0xb4, 1}
	options6 := syn(from6 + ":2006")
	options6.Options = []byte{2, 4, 5, 0xb4, 1, 1, 1, 1, 1, 1, 1, 1}
	bad4, bad6 := syn(from4+":1003"), syn(from6+":2003")
	bad4.BadChecksum, bad6.BadChecksum = true, true
	tests := []struct {
		name    string
		packets [][]byte
		source  netip.AddrPort
		want    bool
	}{
		{"IPv4", [][]byte{syn(from4 + ":1001").Bytes()}, syn(from4 + ":1001").Source, true},
		{"options, IPv4", [][]byte{options.Bytes()}, options.Source, true},
		{"fragments, IPv4", Fragment(options.Bytes(), 8), options.Source, true},
		{"bad checksum, IPv4", [][]byte{bad4.Bytes()}, bad4.Source, false},
		{"IPv6", [][]byte{syn(from6 + ":2001").Bytes()}, syn(from6 + ":2001").Source, true},
		{"20 extension headers", [][]byte{syn(from6 + ":2002").WithExtensions(20).Bytes()}, syn(from6 + ":2002").Source, true},
		{"150 extension headers", [][]byte{syn(from6 + ":2004").WithExtensions(150).Bytes()}, syn(from6 + ":2004").Source, true},
		{"all extension headers", [][]byte{syn(from6+":2005").WithHeaders(HopByHop(), DestinationOptions(), Routing(), DestinationOptions()).Bytes()},
			syn(from6 + ":2005").Source, true},
		{"fragments, IPv6", Fragment(options6.Bytes(), 24), options6.Source, true},
		{"fragments that cut the TCP header, IPv6", Fragment(syn(from6+":2009").Bytes(), 8), syn(from6 + ":2009").Source, false},
		{"extension headers in fragments", Fragment(syn(from6+":2007").WithExtensions(20).Bytes(), 64), syn(from6 + ":2007").Source, true},
		{"atomic fragment", Fragment(syn(from6+":2008").Bytes(), 1000), syn(from6 + ":2008").Source, true},
		{"bad checksum, IPv6", [][]byte{bad6.Bytes()}, bad6.Source, false},
	}
	for _, address := range []string{"192.0.2.2:23", "[2001:db8::2]:23"} {
		l, err := b.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			seen := newTap(t, a)
			s.Send(t, tt.packets...)
			wait := 3 * time.Second
			if !tt.want {
				wait = 200 * time.Millisecond
			}
			got := seen.await(t, wait, func(p []byte) bool { return isAnswer(p, tt.source) })
			if tt.want != (got != nil) {
				t.Errorf("answered: want %t, got %t", tt.want, got != nil)
			}
		})
	}
}

// isAnswer reports whether a packet is a SYN-ACK to the SYN with sequence number 99 from a source.
func isAnswer(p []byte, source netip.AddrPort) bool {
	_, target, err := ends(p)
	if err != nil || target != source.Addr() {
		return false
	}
	tcp := p[size6:]
	if target.Is4() {
		tcp = p[size4:]
	}
	return len(tcp) >= sizeTCP && binary.BigEndian.Uint16(tcp[2:]) == source.Port() &&
		binary.BigEndian.Uint32(tcp[8:]) == 100 && Flags(tcp[13]) == SYN|ACK
}

func TestUDPArrives(t *testing.T) {
	a, b := pair(t)
	s := Open(t, a)
	long := make([]byte, 5000)
	for i := range long {
		long[i] = uint8(mix(uint64(i)))
	}
	for _, tt := range []struct {
		listen string
		source netip.AddrPort
	}{{"192.0.2.2:161", source4}, {"[2001:db8::2]:161", source6}} {
		conn, err := b.ListenPacket("udp", tt.listen)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		target := conn.LocalAddr().(*net.UDPAddr).AddrPort()
		short := UDP{Source: tt.source, Target: target, Payload: []byte("abc")}
		s.Send(t, short.Bytes())
		receives(t, conn, short)
		whole := UDP{Source: tt.source, Target: target, Payload: long}
		s.Send(t, Fragment(whole.Bytes(), 1400)...)
		receives(t, conn, whole)
		if tt.source.Addr().Is6() {
			whole = whole.WithExtensions(3)
			s.Send(t, Fragment(whole.Bytes(), 1400)...)
			receives(t, conn, whole)
		}
	}
}

// receives fails the test unless the next datagram is this one.
func receives(t *testing.T, conn net.PacketConn, want UDP) {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1<<16)
	n, from, err := conn.ReadFrom(b)
	if err != nil {
		t.Fatal(err)
	}
	if got := from.(*net.UDPAddr).AddrPort(); want.Source != got {
		t.Errorf("source: want %s, got %s", want.Source, got)
	}
	if diff := cmp.Diff(want.Payload, b[:n]); diff != "" {
		t.Errorf("payload (-want +got):\n%s", diff)
	}
}
