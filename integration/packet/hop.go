package packet

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// hopTimeout is how long a neighbour may take to answer. The kernel gives up after three seconds.
const hopTimeout = 4 * time.Second

// probeID marks our question in IPv4.
const probeID = 0x6e66

// A hop is the way to a target: an interface, and what stands before each packet that leaves by it.
type hop struct {
	index  int
	header []byte // of the link layer
}

// hop finds the way to a target. It has the kernel send a packet there and looks at the frame that this becomes, so
// that routes and neighbours need not be known. It takes a second where the first question to a neighbour is lost, and
// runs in the namespace of the sockets.
//
// Nobody answers this packet: it has no payload (RFC 8200, 4.7) and comes from the target itself.
func (c *conn) hop(ctx context.Context, target netip.Addr) (hop, error) {
	fd, err := openTap()
	if err != nil {
		return hop{}, fmt.Errorf("watch what is sent: %w", err)
	}
	defer unix.Close(fd)
	probe := ip{source: target, target: target, id: probeID}.wrap(unix.IPPROTO_NONE, nil)
	if err := c.send(target, probe); err != nil {
		return hop{}, fmt.Errorf("no way to %s: %w", target, err)
	}
	ctx, cancel := context.WithTimeout(ctx, hopTimeout)
	defer cancel()
	return await(ctx, fd, probe)
}

// openTap opens a socket that sees each frame that comes or goes.
func openTap() (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(htons(unix.ETH_P_ALL)))
	if err != nil {
		return -1, err
	}
	wait := unix.NsecToTimeval(int64(100 * time.Millisecond))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// await waits for the frame that carries a packet out.
func await(ctx context.Context, fd int, packet []byte) (hop, error) {
	b := make([]byte, 2048)
	for ctx.Err() == nil {
		n, from, err := unix.Recvfrom(fd, b, 0)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return hop{}, fmt.Errorf("watch what is sent: %w", err)
		}
		sa, ok := from.(*unix.SockaddrLinklayer)
		if ok && sa.Pkttype == unix.PACKET_OUTGOING && bytes.HasSuffix(b[:n], packet) {
			return hop{sa.Ifindex, bytes.Clone(b[:n-len(packet)])}, nil
		}
	}
	return hop{}, fmt.Errorf("no neighbour has answered: %w", ctx.Err())
}

// htons is n in network byte order.
func htons(n uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, n))
}

// send sends a packet over the hop just as it is.
func (h hop) send(fd int, packet []byte) error {
	frame := append(bytes.Clone(h.header), packet...)
	return retry(func() error { return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: h.index}) })
}

// retry repeats a system call that a signal has ended.
func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
