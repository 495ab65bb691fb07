package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"syscall"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A batch is a transaction as the kernel gets it. The library makes its
// messages, but for those of many elements, which elementWriter appends: they
// would take the library ten times the memory of what is sent.
type batch struct {
	conn     *nftables.Conn // records what is to be sent; it has no socket
	parts    [][]byte       // whole messages, in order
	sequence uint32         // of the last message
	asked    int            // for how many messages an acknowledgement is asked
}

// partSize is how many bytes of a batch share a slice. One that is full is
// never copied into a longer one.
const partSize = 1 << 20

// headerLen is the length of struct nlmsghdr, include/uapi/linux/netlink.h.
const headerLen = 16

// newBatch begins a transaction.
func newBatch() (*batch, error) {
	b := &batch{}
	conn, err := nftables.New(nftables.WithTestDial(b.record))
	if err != nil {
		return nil, err
	}
	b.conn = conn
	b.message(netlink.Message{Header: netlink.Header{Type: unix.NFNL_MSG_BATCH_BEGIN, Flags: netlink.Request}, Data: batchData})
	return b, nil
}

// batchData is what the messages have around a batch: no family, version 0,
// and whom the batch is for, in big-endian order.
var batchData = []byte{unix.NFPROTO_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES}

// record takes the messages that the library would send.
func (b *batch) record(messages []netlink.Message) ([]netlink.Message, error) {
	for _, m := range messages {
		if m.Header.Type != unix.NFNL_MSG_BATCH_BEGIN && m.Header.Type != unix.NFNL_MSG_BATCH_END {
			b.message(m)
		}
	}
	return nil, io.EOF // no answers
}

// join appends what the library has gathered since the last time.
func (b *batch) join() error { return b.conn.Flush() }

// message appends a message of the library.
func (b *batch) message(m netlink.Message) {
	part := b.room(headerLen + len(m.Data) + 3)
	*part = append(b.header(*part, m.Header.Type, m.Header.Flags, len(m.Data)), m.Data...)
	for len(*part)%4 != 0 {
		*part = append(*part, 0)
	}
}

// room is a part with room for n bytes.
func (b *batch) room(n int) *[]byte {
	if last := len(b.parts) - 1; last < 0 || cap(b.parts[last])-len(b.parts[last]) < n {
		b.parts = append(b.parts, make([]byte, 0, max(n, b.nextPart())))
	}
	return &b.parts[len(b.parts)-1]
}

// nextPart is the size of the next part: most batches are small.
func (b *batch) nextPart() int {
	if len(b.parts) == 0 {
		return 4096
	}
	return partSize
}

// header appends the header of the next message, which has so many bytes of
// data.
func (b *batch) header(part []byte, kind netlink.HeaderType, flags netlink.HeaderFlags, data int) []byte {
	b.sequence++
	if flags&netlink.Acknowledge != 0 {
		b.asked++
	}
	part = binary.NativeEndian.AppendUint32(part, uint32(headerLen+data))
	part = binary.NativeEndian.AppendUint16(part, uint16(kind))
	part = binary.NativeEndian.AppendUint16(part, uint16(flags))
	part = binary.NativeEndian.AppendUint32(part, b.sequence)
	return binary.NativeEndian.AppendUint32(part, 0) // the kernel knows who sends
}

// send sends the batch as one datagram and waits for what comes of it. After
// an error the connection is not to be used again. Errors are those of the
// kernel, and ErrNotApplied if some messages are not acknowledged.
func (b *batch) send(conn *netlink.Conn) error {
	if err := b.join(); err != nil {
		return err
	}
	b.message(netlink.Message{Header: netlink.Header{Type: unix.NFNL_MSG_BATCH_END, Flags: netlink.Request}, Data: batchData})
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	if err := b.write(raw); err != nil {
		return os.NewSyscallError("sendmsg", err)
	}
	b.parts = nil // nothing is needed while the answers are read
	return b.answers(raw)
}

func (b *batch) write(raw syscall.RawConn) (err error) {
	kernel := &unix.SockaddrNetlink{Family: unix.AF_NETLINK}
	closed := raw.Write(func(fd uintptr) bool {
		_, err = unix.SendmsgBuffers(int(fd), b.parts, nil, kernel, 0)
		return !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR)
	})
	return errors.Join(closed, err)
}

// answers reads what the kernel has said. It has said all by the time that the
// batch is sent: netlink_unicast_kernel in
// https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/net/netlink/af_netlink.c
func (b *batch) answers(raw syscall.RawConn) error {
	var errs []error
	acknowledged := 0
	err := receive(raw, false, func(h netlink.Header, data []byte) bool {
		if h.Type != netlink.Error || len(data) < 4 || h.Sequence == 0 || h.Sequence > b.sequence {
			return true
		}
		switch errno := -int32(binary.NativeEndian.Uint32(data)); {
		case errno == 0:
			acknowledged++
		case !slices.Contains(errs, error(unix.Errno(errno))):
			errs = append(errs, unix.Errno(errno))
		}
		return true
	})
	switch {
	case err != nil:
		return errors.Join(append(errs, err)...)
	case len(errs) > 0:
		return errors.Join(errs...)
	case acknowledged < b.asked:
		return fmt.Errorf("%d of %d changes are acknowledged: %w", acknowledged, b.asked, ErrNotApplied)
	}
	return nil
}

// datagram is more than any dump uses; what is longer is an error with the
// request in it.
const datagram = 64 << 10

// buffers are those that nobody reads into now.
var buffers = sync.Pool{New: func() any { return new([datagram]byte) }}

// receive hands all messages that arrive to f, which must not keep data, until
// f is false or, unless it waits, nothing is left.
func receive(raw syscall.RawConn, wait bool, f func(h netlink.Header, data []byte) bool) error {
	buf := buffers.Get().(*[datagram]byte)[:]
	defer buffers.Put((*[datagram]byte)(buf))
	for more := true; more; {
		var n int
		var err error
		closed := raw.Read(func(fd uintptr) bool {
			n, _, err = unix.Recvfrom(int(fd), buf, unix.MSG_DONTWAIT)
			return !errors.Is(err, unix.EINTR) && (!wait || !errors.Is(err, unix.EAGAIN))
		})
		switch {
		case closed != nil:
			return closed
		case errors.Is(err, unix.EAGAIN):
			return nil
		case err != nil:
			return os.NewSyscallError("recvfrom", err)
		}
		more = eachMessage(buf[:n], f)
	}
	return nil
}

// eachMessage calls f with each message of a datagram. Of one that is cut
// short there is as much as there is. It is false when f is.
func eachMessage(b []byte, f func(h netlink.Header, data []byte) bool) bool {
	for len(b) >= headerLen {
		h := netlink.Header{
			Length: binary.NativeEndian.Uint32(b), Type: netlink.HeaderType(binary.NativeEndian.Uint16(b[4:])),
			Flags: netlink.HeaderFlags(binary.NativeEndian.Uint16(b[6:])), Sequence: binary.NativeEndian.Uint32(b[8:]),
		}
		end := max(headerLen, min(int(h.Length), len(b)))
		if !f(h, b[headerLen:end]) {
			return false
		}
		b = b[min(len(b), (end+3)&^3):]
	}
	return true
}
