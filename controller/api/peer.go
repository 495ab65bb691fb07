package api

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"unsafe"

	"go.uber.org/zap/zapcore"
	"golang.org/x/sys/unix"
)

// A peer is who has made a connection, as the kernel knows it: it cannot be
// forged, and does not change when the socket is passed on.
type peer struct {
	pid    int32
	uid    uint32
	groups []uint32 // its own first
}

// MarshalLogObject is for the log.
func (p peer) MarshalLogObject(o zapcore.ObjectEncoder) error {
	o.AddInt32("pid", p.pid)
	o.AddUint32("uid", p.uid)
	return o.AddReflected("groups", p.groups)
}

// may tells whether the peer has a right to the control socket: root, the
// user with the number self, and the members of the group gid, -1 for none.
func (p peer) may(self, gid int) bool {
	return p.uid == 0 || int64(p.uid) == int64(self) ||
		gid >= 0 && slices.Contains(p.groups, uint32(gid))
}

// peerOf asks the kernel who has made a connection, socket(7).
func peerOf(conn *net.UnixConn) (p peer, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return peer{}, err
	}
	cerr := raw.Control(func(fd uintptr) { p, err = peerOn(int(fd)) })
	return p, errors.Join(cerr, err)
}

func peerOn(fd int) (peer, error) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return peer{}, fmt.Errorf("SO_PEERCRED: %w", err)
	}
	more, err := peerGroups(fd)
	if err != nil {
		return peer{}, fmt.Errorf("SO_PEERGROUPS: %w", err)
	}
	return peer{cred.Pid, cred.Uid, append([]uint32{cred.Gid}, more...)}, nil
}

// peerGroups are the supplementary groups: up to 65,536 of them, so the kernel
// tells how much room they need if there was too little, sk_getsockopt in
// net/core/sock.c.
func peerGroups(fd int) ([]uint32, error) {
	groups := make([]uint32, 64)
	for {
		size := uint32(4 * len(groups)) // socklen_t
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(unsafe.SliceData(groups))), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == 0:
			return groups[:size/4], nil
		case errno == unix.ERANGE && int(size/4) > len(groups):
			groups = make([]uint32, size/4)
		default:
			return nil, errno
		}
	}
}
