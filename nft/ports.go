package nft

import (
	"encoding/binary"
	"slices"
	"sync"

	"github.com/mdlayher/netlink"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// ownPorts are the port ids of the sockets by which a Table changes the kernel,
// and the Monitors that are not to hear of it.
//
// The kernel sends the events of a transaction in datagrams of their own, each
// with the port id of who made it as nlmsg_pid, before the transaction is
// acknowledged (nft_commit_notify in net/netfilter/nf_tables_api.c), and asks
// the filter of each subscriber's socket first (do_one_broadcast in
// net/netlink/af_netlink.c). So an id is ours just as long as its socket is
// open, and events of 65,536 elements of our own cost no room and no time.
type ownPorts struct {
	mu       sync.Mutex // guards all below
	live     []uint32
	monitors []*Monitor
}

// opened takes the port id of a socket in before it is used.
func (p *ownPorts) opened(id uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.live = append(p.live, id)
	p.filter()
}

// closing gives a port id back before somebody else can have it.
func (p *ownPorts) closing(id uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.live = slices.DeleteFunc(p.live, func(live uint32) bool { return live == id })
	p.filter()
}

// filter brings all monitors up to date. One that cannot be hears of what we
// do ourselves, and has it looked at in vain.
func (p *ownPorts) filter() {
	for _, m := range p.monitors {
		if err := leaveOut(m.conn, p.live); err != nil {
			m.log.Warn("cannot tell our own changes of the table from those of others", zap.Error(err))
		}
	}
}

func (p *ownPorts) watch(m *Monitor) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.monitors = append(p.monitors, m)
	return leaveOut(m.conn, p.live)
}

func (p *ownPorts) unwatch(m *Monitor) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.monitors = slices.DeleteFunc(p.monitors, func(other *Monitor) bool { return other == m })
}

// leaveOut has the kernel drop, at a socket, the datagrams whose first message
// comes from one of the port ids.
func leaveOut(conn *netlink.Conn, ids []uint32) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	code := filterCode(ids)
	program := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	var attachErr error
	err = raw.Control(func(fd uintptr) {
		attachErr = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &program)
	})
	if err != nil {
		return err
	}
	return attachErr
}

// filterCode is leaveOut for the kernel's machine, which takes what it loads
// for big-endian: Documentation/networking/filter.rst.
func filterCode(ids []uint32) []unix.SockFilter {
	const portOffset = 12 // of nlmsg_pid in struct nlmsghdr, include/uapi/linux/netlink.h
	code := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: portOffset}}
	for i, id := range ids {
		k := binary.BigEndian.Uint32(binary.NativeEndian.AppendUint32(nil, id))
		code = append(code, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: uint8(len(ids) - i), K: k})
	}
	return append(code,
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff}, // bytes to keep
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	)
}
