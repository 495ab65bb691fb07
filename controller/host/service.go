package host

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A Service is a port on which a socket of the host waits for others.
type Service struct {
	Protocol byte // by its IP protocol number, TCP or UDP
	Port     uint16
}

// Services returns the ports on which the host serves others now, sorted: listening TCP sockets, and UDP sockets that
// are connected to nobody. What is bound to a loopback address serves nobody else, and is left out.
func (w *Watcher) Services() ([]Service, error) {
	found := make(map[Service]struct{})
	for _, q := range []struct {
		protocol byte
		state    uint32
	}{{unix.IPPROTO_TCP, tcpListen}, {unix.IPPROTO_UDP, tcpClose}} {
		for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
			err := w.kernel.sockets(context.Background(), diagRequest(family, q.protocol, 1<<q.state), func(b []byte) error {
				local, err := parseSocket(b)
				if err == nil && !local.Addr().IsLoopback() && local.Port() != 0 {
					found[Service{q.protocol, local.Port()}] = struct{}{}
				}
				return err
			})
			if err != nil {
				return nil, fmt.Errorf("read sockets: %w", err)
			}
		}
	}
	return sortedServices(found), nil
}

func sortedServices(found map[Service]struct{}) []Service {
	var all []Service
	for s := range found {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b Service) int { return int(a.Protocol)<<16 + int(a.Port) - int(b.Protocol)<<16 - int(b.Port) })
	return all
}

// States of sockets, include/net/tcp_states.h; a UDP socket that is not connected is "closed".
const (
	tcpClose  = 7
	tcpListen = 10
)

// Sizes and offsets of struct inet_diag_req_v2 and struct inet_diag_msg.
// https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/include/uapi/linux/inet_diag.h
const (
	sockDiagByFamily = 20
	diagRequestSize  = 56
	diagMessageSize  = 72
	diagPortOffset   = 4 // family, state, timer, retrans; then the socket's id: ports, addresses
	diagAddrOffset   = 8
)

// diagRequest asks for all sockets of a family and protocol that are in one of some states.
func diagRequest(family, protocol byte, states uint32) []byte {
	b := make([]byte, diagRequestSize)
	b[0], b[1] = family, protocol
	binary.NativeEndian.PutUint32(b[4:], states)
	return b
}

// parseSocket reads the local address and port of an inet_diag_msg.
func parseSocket(b []byte) (netip.AddrPort, error) {
	if len(b) < diagMessageSize {
		return netip.AddrPort{}, fmt.Errorf("message of %d bytes about a socket, %d expected", len(b), diagMessageSize)
	}
	addr := netip.AddrFrom16([16]byte(b[diagAddrOffset:]))
	if b[0] == unix.AF_INET {
		addr = netip.AddrFrom4([4]byte(b[diagAddrOffset:]))
	}
	return netip.AddrPortFrom(addr.Unmap(), binary.BigEndian.Uint16(b[diagPortOffset:])), nil
}

// sockets calls each for the sockets that the request, made by diagRequest, asks for.
func (k rtnl) sockets(ctx context.Context, request []byte, each func([]byte) error) error {
	c, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, &netlink.Config{NetNS: k.netns, MessageBufferSize: dumpBuffer})
	if err != nil {
		return err
	}
	defer c.Close()
	defer wake(ctx, c)()
	_, err = dumpOnce(c, sockDiagByFamily, request, each)
	return err
}
