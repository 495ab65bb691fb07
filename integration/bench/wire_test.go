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

// A sighting is a TCP segment in IPv4 that has passed.
type sighting struct {
	at             time.Time // by the kernel's clock, as the router's interface had it
	source, target netip.AddrPort
	flags          packet.Flags
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

// parse reads an IPv4 packet without options.
func parse(p []byte) (s sighting, ok bool) {
	const size = 20
	if len(p) < size+size || p[0] != 0x45 || p[9] != unix.IPPROTO_TCP {
		return s, false
	}
	tcp := p[size:]
	return sighting{
		source: netip.AddrPortFrom(netip.AddrFrom4([4]byte(p[12:])), binary.BigEndian.Uint16(tcp)),
		target: netip.AddrPortFrom(netip.AddrFrom4([4]byte(p[16:])), binary.BigEndian.Uint16(tcp[2:])),
		flags:  packet.Flags(tcp[13]),
	}, true
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
