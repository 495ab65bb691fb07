package listener

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// largestDatagram is more bytes than the kernel sends at once: as many messages
// as fit in NLMSG_GOODSIZE, at most 8 KiB, or one (nfulnl_log_packet in
// net/netfilter/nfnetlink_log.c), which has copyRange bytes of a packet and
// some hundreds about it.
const largestDatagram = 16 << 10

// A reader reads datagrams into the one buffer that it has. To receive from a
// netlink.Conn allocates a buffer for each, and several iterators.
type reader struct {
	conn syscall.RawConn
	try  func(fd uintptr) (done bool) // for conn.Read
	buf  []byte
	n    int   // of the last try
	err  error // of the last try
}

func newReader(conn syscall.RawConn) *reader {
	r := &reader{conn: conn, buf: make([]byte, largestDatagram)}
	r.try = r.read // made here, since it is allocated
	return r
}

func (r *reader) read(fd uintptr) (done bool) {
	for {
		r.n, r.err = unix.Read(int(fd), r.buf)
		if !errors.Is(r.err, unix.EINTR) {
			return !errors.Is(r.err, unix.EAGAIN)
		}
	}
}

// next waits for a datagram, which is valid until the next call. The error is
// that of the kernel, or wraps fs.ErrClosed: the socket was closed, or the
// deadline is over.
func (r *reader) next() ([]byte, error) {
	if err := r.conn.Read(r.try); err != nil {
		return nil, fmt.Errorf("%w: %w", fs.ErrClosed, err)
	}
	if r.err != nil {
		return nil, os.NewSyscallError("read", r.err)
	}
	return r.buf[:r.n], nil
}
