package listener

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// soOriginalDst asks connection tracking where a redirected connection was
// bound for: SO_ORIGINAL_DST of include/uapi/linux/netfilter_ipv4.h and
// IP6T_SO_ORIGINAL_DST of include/uapi/linux/netfilter_ipv6/ip6_tables.h have
// the same number.
const soOriginalDst = 80

// originalDestination tells the address and port to which the other end, at
// source, has connected. A socket for IPv6 and IPv4 takes both questions, and
// each is answered only for connections of its family.
func originalDestination(conn *net.TCPConn, source netip.Addr) (netip.AddrPort, error) {
	var dest netip.AddrPort
	err := control(conn, func(fd int) (err error) {
		if source.Is4() {
			dest, err = originalDestination4(fd)
		} else {
			dest, err = originalDestination6(fd)
		}
		return err
	})
	return dest, err
}

// originalDestination4 reads a struct sockaddr_in: family, then port and
// address in network order. An ipv6_mreq is large enough to hold it.
func originalDestination4(fd int) (netip.AddrPort, error) {
	mreq, err := unix.GetsockoptIPv6Mreq(fd, unix.SOL_IP, soOriginalDst)
	if err != nil {
		return netip.AddrPort{}, err
	}
	raw := mreq.Multiaddr
	addr := netip.AddrFrom4([4]byte(raw[4:8]))
	return netip.AddrPortFrom(addr, binary.BigEndian.Uint16(raw[2:4])), nil
}

// originalDestination6 reads a struct sockaddr_in6, with which an ip6_mtuinfo begins.
func originalDestination6(fd int) (netip.AddrPort, error) {
	info, err := unix.GetsockoptIPv6MTUInfo(fd, unix.SOL_IPV6, soOriginalDst)
	if err != nil {
		return netip.AddrPort{}, err
	}
	port := (*[2]byte)(unsafe.Pointer(&info.Addr.Port)) // in network order, whatever the host's
	return netip.AddrPortFrom(netip.AddrFrom16(info.Addr.Addr), binary.BigEndian.Uint16(port[:])), nil
}

// setUserTimeout makes the kernel give up on a client that acknowledges
// nothing: the answers of a source that has just been blocked do not arrive.
// A second after its reset connection tracking forgets the connection, and what
// is sent again then comes from the listener's own port, and gives it away.
func setUserTimeout(conn *net.TCPConn) error {
	return control(conn, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout.Milliseconds()))
	})
}

// answerTwice has the kernel send an answer that is not acknowledged again
// once, a second later. Connection tracking forgets the connection soon after,
// and what came then would come from the listener's own port, and give it away.
func answerTwice(_, _ string, raw syscall.RawConn) error {
	var failed error
	err := raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.SOL_TCP, unix.TCP_SYNCNT, 1) })
	return errors.Join(err, failed)
}

func control(conn *net.TCPConn, f func(fd int) error) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = f(int(fd)) }); err != nil {
		return err
	}
	return failed
}
