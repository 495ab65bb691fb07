package namespace

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// A Host is a network namespace of its own, with loopback up. It lives until it is closed, and longer only while sockets
// or processes are in it. All methods may be called at once.
type Host struct {
	name string
	ns   *os.File
}

// Open makes a host; name is for messages only. Addresses are usable as soon as they are added: duplicate address
// detection and router solicitation are off. The caller, who needs CAP_SYS_ADMIN, closes it.
func Open(name string) (*Host, error) {
	ns, err := newNamespace()
	if err != nil {
		return nil, fmt.Errorf("host %s: %w", name, err)
	}
	h := &Host{name: name, ns: ns}
	if err := h.prepare(); err != nil {
		return nil, errors.Join(fmt.Errorf("host %s: %w", name, err), h.Close())
	}
	return h, nil
}

// prepare sets loopback up and makes addresses usable at once.
func (h *Host) prepare() error {
	if err := h.Inside(loopbackUp); err != nil {
		return err
	}
	for _, conf := range []string{"all", "default"} {
		for _, key := range []string{"accept_dad", "router_solicitations"} {
			if err := h.Sysctl("net.ipv6.conf."+conf+"."+key, "0"); err != nil {
				return err
			}
		}
	}
	return nil
}

// Close gives the namespace up.
func (h *Host) Close() error { return h.ns.Close() }

// newNamespace makes a network namespace and returns to that of the calling thread.
func newNamespace() (ns *os.File, err error) {
	err = onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
		ns, err = current()
		return err
	})
	return ns, err
}

// current opens the network namespace of the calling thread.
func current() (*os.File, error) {
	return os.Open("/proc/thread-self/ns/net")
}

// onThread runs fn on an OS thread of its own and puts the thread back into its network namespace afterwards, also if
// fn panics or ends its goroutine. A thread that cannot be put back is never used again.
func onThread(fn func() error) (err error) {
	runtime.LockOSThread()
	back, err := current()
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("find the way back: %w", err)
	}
	defer func() {
		defer back.Close()
		if serr := unix.Setns(int(back.Fd()), unix.CLONE_NEWNET); serr != nil {
			err = errors.Join(err, fmt.Errorf("return to the own network namespace: %w", serr))
			return // still locked: the thread ends with its goroutine
		}
		runtime.UnlockOSThread()
	}()
	return fn()
}

// Inside runs fn in the namespace, in the calling goroutine. Sockets opened and processes started by fn stay in the
// namespace; goroutines started by fn are outside it. Calls may be nested.
func (h *Host) Inside(fn func() error) error {
	return onThread(func() error {
		if err := unix.Setns(h.FD(), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter the network namespace of %s: %w", h.name, err)
		}
		return fn()
	})
}

// String returns the name of the host.
func (h *Host) String() string { return h.name }

// FD returns a file descriptor of the namespace, for nftables.WithNetNSFd and netlink.Config. It is the Host's:
// callers do not close it.
func (h *Host) FD() int { return int(h.ns.Fd()) }

// Dial connects from the namespace to an address and port. The local address, with or without a port, may be empty.
// One OS thread is in use until the connection is made or refused.
func (h *Host) Dial(ctx context.Context, network, address, local string) (conn net.Conn, err error) {
	if _, err := netip.ParseAddrPort(address); err != nil {
		return nil, err // a name would be looked up by other goroutines, outside the namespace
	}
	d := net.Dialer{}
	d.SetMultipathTCP(false)
	if d.LocalAddr, err = localAddr(network, local); err != nil {
		return nil, err
	}
	err = h.Inside(func() error {
		conn, err = d.DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// localAddr parses the local end of a connection.
func localAddr(network, local string) (net.Addr, error) {
	if local == "" {
		return nil, nil
	}
	ap, err := netip.ParseAddrPort(local)
	if err != nil {
		addr, aerr := netip.ParseAddr(local)
		if aerr != nil {
			return nil, aerr
		}
		ap = netip.AddrPortFrom(addr, 0)
	}
	if strings.HasPrefix(network, "udp") {
		return net.UDPAddrFromAddrPort(ap), nil
	}
	return net.TCPAddrFromAddrPort(ap), nil
}

// Listen listens in the namespace, as net.Listen does. The caller closes the listener.
func (h *Host) Listen(network, address string) (l net.Listener, err error) {
	lc := net.ListenConfig{}
	lc.SetMultipathTCP(false)
	err = h.Inside(func() error {
		l, err = lc.Listen(context.Background(), network, address)
		return err
	})
	return l, err
}

// ListenPacket listens in the namespace, as net.ListenPacket does. The caller closes the connection.
func (h *Host) ListenPacket(network, address string) (c net.PacketConn, err error) {
	err = h.Inside(func() error {
		c, err = net.ListenPacket(network, address)
		return err
	})
	return c, err
}

// Sysctl sets a parameter of the namespace, such as net.ipv4.ip_forward. The key is written with dots, or with slashes
// where a part of it has a dot itself.
func (h *Host) Sysctl(key, value string) error {
	if !strings.Contains(key, "/") {
		key = strings.ReplaceAll(key, ".", "/")
	}
	err := h.Inside(func() error { return os.WriteFile(filepath.Join("/proc/sys", key), []byte(value), 0) })
	if err != nil {
		return fmt.Errorf("set %s to %s: %w", key, value, err)
	}
	return nil
}
