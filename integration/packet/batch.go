package packet

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// batch is how many packets one system call sends.
const batch = 64

// A flood is a batch of frames, the same but for source, ports, sequence number and checksums, and the socket that they
// leave by.
type flood struct {
	cfg    FloodConfig
	conn   *conn
	frames []frame
	msgs   []message

	sumIP, sumTCP uint64 // what the checksums cover, without what differs
}

// A frame is a packet in its place on the link, by its parts.
type frame struct{ ip, tcp []byte }

// A message is struct mmsghdr of sendmmsg(2).
type message struct {
	header unix.Msghdr
	length uint32
}

// openFlood finds the way to the target and makes the frames. It runs in the namespace of the sender.
func openFlood(ctx context.Context, cfg FloodConfig) (*flood, error) {
	c, err := openConn()
	if err != nil {
		return nil, err
	}
	h, err := c.hop(ctx, cfg.Target)
	if err == nil {
		err = h.take(c.link)
	}
	if err != nil {
		return nil, errors.Join(err, c.close())
	}
	f := &flood{cfg: cfg, conn: c}
	f.build(h.header)
	return f, nil
}

// take has a socket send over the hop, past the queues of its interface.
func (h hop) take(fd int) error {
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: h.index}); err != nil {
		return fmt.Errorf("bind to interface %d: %w", h.index, err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1); err != nil {
		return fmt.Errorf("pass by the queue: %w", err)
	}
	return nil
}

// build makes the frames from a packet in which all that differs is zero, but for the target's port.
func (f *flood) build(link []byte) {
	zero, size := netip.IPv6Unspecified(), size6
	if f.cfg.Target.Is4() {
		zero, size = netip.IPv4Unspecified(), size4
	}
	target := netip.AddrPortFrom(f.cfg.Target, 0)
	p := TCP{Source: netip.AddrPortFrom(zero, 0), Target: target, Flags: SYN, ID: floodID}.Bytes()
	f.sumIP = uint64(^binary.BigEndian.Uint16(p[10:])) // in IPv6 not used
	f.sumTCP = uint64(^binary.BigEndian.Uint16(p[size+16:]))

	f.frames, f.msgs = make([]frame, batch), make([]message, batch)
	iovs := make([]unix.Iovec, batch)
	for i := range batch {
		b := append(append([]byte(nil), link...), p...)
		f.frames[i] = frame{ip: b[len(link):], tcp: b[len(link)+size:]}
		iovs[i].Base = &b[0]
		iovs[i].SetLen(len(b))
		f.msgs[i].header.Iov = &iovs[i]
		f.msgs[i].header.SetIovlen(1)
	}
}

// fill makes the first n frames the packets from the given one on.
func (f *flood) fill(first uint64, n int) {
	for i := range n {
		if f.cfg.Target.Is4() {
			f.fill4(f.frames[i], first+uint64(i))
		} else {
			f.fill6(f.frames[i], first+uint64(i))
		}
	}
}

func (f *flood) fill4(b frame, i uint64) {
	_, source := f.cfg.source(i)
	binary.BigEndian.PutUint32(b.ip[12:], uint32(source))
	binary.BigEndian.PutUint16(b.ip[10:], ^fold(f.sumIP+words(source)))
	f.fillTCP(b.tcp, words(source), i)
}

func (f *flood) fill6(b frame, i uint64) {
	hi, lo := f.cfg.source(i)
	binary.BigEndian.PutUint64(b.ip[8:], hi)
	binary.BigEndian.PutUint64(b.ip[16:], lo)
	f.fillTCP(b.tcp, words(hi)+words(lo), i)
}

// fillTCP fills in a TCP header; source is the sum of the source's words. The new checksum comes from the old one and
// what has changed, as in RFC 1624, where all that has changed was zero.
func (f *flood) fillTCP(b []byte, source, i uint64) {
	port, seq := f.cfg.origin(i)
	target := f.cfg.Ports[i%uint64(len(f.cfg.Ports))]
	binary.BigEndian.PutUint16(b[0:], port)
	binary.BigEndian.PutUint16(b[2:], target)
	binary.BigEndian.PutUint32(b[4:], seq)
	binary.BigEndian.PutUint16(b[16:], ^fold(f.sumTCP+source+uint64(port)+uint64(target)+words(uint64(seq))))
}

// words is the sum of the four 16-bit words in n.
func words(n uint64) uint64 { return n>>48 + n>>32&0xffff + n>>16&0xffff + n&0xffff }

// run sends until the context ends or all have left.
func (f *flood) run(ctx context.Context) (sent uint64, err error) {
	start := time.Now()
	for total := f.cfg.count(); sent < total; {
		n := min(total-sent, batch, f.due(ctx, start, sent))
		if ctx.Err() != nil {
			return sent, nil
		}
		f.fill(sent, int(n))
		taken, err := f.send(int(n))
		if err != nil {
			return sent, fmt.Errorf("send to %s: %w", f.cfg.Target, err)
		}
		sent += taken
	}
	return sent, nil
}

// due waits until the next packet may leave, and returns how many may then; none if the context ends first.
func (f *flood) due(ctx context.Context, start time.Time, sent uint64) uint64 {
	if f.cfg.Rate == 0 {
		return batch
	}
	rate := float64(f.cfg.Rate)
	next := start.Add(time.Duration(float64(sent+1) / rate * float64(time.Second)))
	if wait := time.Until(next); wait > 0 {
		select {
		case <-ctx.Done():
			return 0
		case <-time.After(wait):
		}
	}
	return uint64(max(1, time.Since(start).Seconds()*rate-float64(sent)))
}

// send hands the first n frames to the kernel and returns how many it took, which may be none where the link is busy.
func (f *flood) send(n int) (uint64, error) {
	taken, _, errno := unix.Syscall6(unix.SYS_SENDMMSG,
		uintptr(f.conn.link), uintptr(unsafe.Pointer(&f.msgs[0])), uintptr(n), 0, 0, 0)
	switch errno {
	case 0:
		return uint64(taken), nil
	case unix.EINTR:
		return 0, nil
	case unix.ENOBUFS, unix.EAGAIN:
		time.Sleep(100 * time.Microsecond)
		return 0, nil
	}
	return 0, errno
}
