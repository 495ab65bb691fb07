//go:build bench

package bench

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nftsentry/integration/netns"
	"nftsentry/integration/packet"
)

// A wire is the link between the router and the server, seen from the router.
type wire struct {
	fd   int
	data [128]byte
	oob  [128]byte
}

// A sighting is a packet of TCP or UDP that has passed, or an ICMP message that
// a port is unreachable: that one is as if it came from the port.
type sighting struct {
	at             time.Time // by the kernel's clock, as the router's interface had it
	source, target netip.AddrPort
	protocol       uint8
	flags          packet.Flags // of TCP
}

// tap opens the wire. What passes waits until it is read.
func tap(t testing.TB, router *netns.Host) *wire {
	t.Helper()
	w := &wire{fd: -1}
	router.Do(t, func() {
		link, err := net.InterfaceByName("srv")
		if err != nil {
			t.Fatal(err)
		}
		w.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Close(w.fd) })
		err = errors.Join(
			unix.SetsockoptInt(w.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20),
			unix.SetsockoptInt(w.fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
			unix.Bind(w.fd, &unix.SockaddrLinklayer{Protocol: ethAll, Ifindex: link.Index}),
		)
		if err != nil {
			t.Fatal(err)
		}
	})
	return w
}

// ethAll is ETH_P_ALL in network order: only a socket of all protocols sees
// what leaves.
const ethAll = unix.ETH_P_ALL>>8 | unix.ETH_P_ALL&0xff<<8

// drain hands on what has passed since the last time, in order.
func (w *wire) drain(t testing.TB, see func(sighting)) {
	t.Helper()
	for {
		n, oobn, _, _, err := unix.Recvmsg(w.fd, w.data[:], w.oob[:], unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EAGAIN) {
			return
		}
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if s, ok := parse(w.data[:n]); ok {
			s.at = stamp(t, w.oob[:oobn])
			see(s)
		}
	}
}

// stamp is the time of SCM_TIMESTAMPNS, see socket(7).
func stamp(t testing.TB, oob []byte) time.Time {
	t.Helper()
	header, data, _, err := unix.ParseOneSocketControlMessage(oob)
	if err != nil || header.Type != unix.SCM_TIMESTAMPNS || len(data) < 16 {
		t.Fatalf("a packet without a time: %v, %v", header, err)
	}
	return time.Unix(int64(binary.NativeEndian.Uint64(data)), int64(binary.NativeEndian.Uint64(data[8:])))
}

// parse reads an IP packet without options or extension headers.
func parse(p []byte) (s sighting, ok bool) {
	source, target, protocol, p, ok := unwrap(p)
	if !ok || len(p) < 8 {
		return s, false
	}
	s = sighting{
		source:   netip.AddrPortFrom(source, binary.BigEndian.Uint16(p)),
		target:   netip.AddrPortFrom(target, binary.BigEndian.Uint16(p[2:])),
		protocol: protocol,
	}
	switch {
	case protocol == unix.IPPROTO_UDP:
		return s, true
	case protocol == unix.IPPROTO_TCP && len(p) >= 20:
		s.flags = packet.Flags(p[13])
		return s, true
	case protocol == unix.IPPROTO_ICMP && [2]byte(p) == [2]byte{3, 3}, protocol == unix.IPPROTO_ICMPV6 && [2]byte(p) == [2]byte{1, 4}:
		about, ok := parse(p[8:]) // RFC 792 and RFC 4443, 3.1: it has what it is about
		s.source, s.target = about.target, about.source
		return s, ok
	}
	return s, false
}

// unwrap takes the IP header off.
func unwrap(p []byte) (source, target netip.Addr, protocol uint8, rest []byte, ok bool) {
	switch {
	case len(p) >= 20 && p[0] == 0x45:
		return netip.AddrFrom4([4]byte(p[12:])), netip.AddrFrom4([4]byte(p[16:])), p[9], p[20:], true
	case len(p) >= 40 && p[0]>>4 == 6:
		return netip.AddrFrom16([16]byte(p[8:])), netip.AddrFrom16([16]byte(p[24:])), p[6], p[40:], true
	}
	return source, target, 0, nil, false
}

// lost is how many packets there was no room for since the last time.
func (w *wire) lost(t testing.TB) uint32 {
	t.Helper()
	stats, err := unix.GetsockoptTpacketStats(w.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		t.Fatal(err)
	}
	return stats.Drops
}
