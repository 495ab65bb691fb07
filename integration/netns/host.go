package netns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A Host is a network namespace of its own, with loopback up. It lives until its test ends, and longer only while
// sockets or processes are in it. All methods may be called at once.
type Host struct {
	name string
	ns   *os.File
}

// New makes a host; name is for messages only. Addresses are usable as soon as they are added: duplicate address
// detection and router solicitation are off. It skips the test where namespaces cannot be had, see [Require].
func New(t testing.TB, name string) *Host {
	t.Helper()
	Require(t)
	ns, err := newNamespace()
	if err != nil {
		t.Fatalf("host %s: %v", name, err)
	}
	t.Cleanup(func() { _ = ns.Close() })

	h := &Host{name: name, ns: ns}
	if err := h.do(loopbackUp); err != nil {
		t.Fatalf("host %s: %v", name, err)
	}
	for _, conf := range []string{"all", "default"} {
		h.Sysctl(t, "net.ipv6.conf."+conf+".accept_dad", "0")
		h.Sysctl(t, "net.ipv6.conf."+conf+".router_solicitations", "0")
	}
	return h
}

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

// do runs fn in the namespace, see onThread.
func (h *Host) do(fn func() error) error {
	return onThread(func() error {
		if err := unix.Setns(h.FD(), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter the network namespace of %s: %w", h.name, err)
		}
		return fn()
	})
}

// Do runs fn in the namespace of the host, in the calling goroutine, so that fn may call t.Fatal and panic as the test
// itself may. Sockets opened and processes started by fn stay in the namespace; goroutines started by fn are outside
// it, and must not call t.Fatal. Calls may be nested.
func (h *Host) Do(t testing.TB, fn func()) {
	t.Helper()
	err := h.do(func() error { fn(); return nil })
	if err != nil {
		t.Fatalf("host %s: %v", h.name, err)
	}
}

// Inside is Do without a test to fail.
func (h *Host) Inside(fn func() error) error { return h.do(fn) }

// String returns the name of the host.
func (h *Host) String() string { return h.name }

// FD returns a file descriptor of the namespace, for nftables.WithNetNSFd and netlink.Config. It is the Host's:
// callers do not close it.
func (h *Host) FD() int { return int(h.ns.Fd()) }

// Command returns a command that ends with the test process. It runs in the namespace if it is started by [Host.Start]
// or [Host.Output], or from within [Host.Do].
func (h *Host) Command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	return cmd
}

// Start starts cmd in the namespace. When the test ends it is killed, unless the test has waited for it; a test that
// waits in another goroutine sees to it that this is over by then.
func (h *Host) Start(t testing.TB, cmd *exec.Cmd) {
	t.Helper()
	if err := h.do(cmd.Start); err != nil {
		t.Fatalf("host %s: start %s: %v", h.name, cmd, err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
}

// Output runs a program in the namespace and returns what it wrote to its standard output. It fails the test if the
// program does, with what it wrote to its standard error.
func (h *Host) Output(t testing.TB, name string, args ...string) string {
	t.Helper()
	cmd := h.Command(name, args...)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	h.Start(t, cmd)
	if err := cmd.Wait(); err != nil {
		t.Fatalf("host %s: %s: %v\n%s%s", h.name, cmd, err, stdout.String(), stderr.String())
	}
	return stdout.String()
}

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
	err = h.do(func() error {
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
	err = h.do(func() error {
		l, err = lc.Listen(context.Background(), network, address)
		return err
	})
	return l, err
}

// ListenPacket listens in the namespace, as net.ListenPacket does. The caller closes the connection.
func (h *Host) ListenPacket(network, address string) (c net.PacketConn, err error) {
	err = h.do(func() error {
		c, err = net.ListenPacket(network, address)
		return err
	})
	return c, err
}

// Sysctl sets a parameter of the namespace, such as net.ipv4.ip_forward. The key is written with dots, or with slashes
// where a part of it has a dot itself.
func (h *Host) Sysctl(t testing.TB, key, value string) {
	t.Helper()
	if !strings.Contains(key, "/") {
		key = strings.ReplaceAll(key, ".", "/")
	}
	err := h.do(func() error { return os.WriteFile(filepath.Join("/proc/sys", key), []byte(value), 0) })
	if err != nil {
		t.Fatalf("host %s: set %s to %s: %v", h.name, key, value, err)
	}
}

// Forward makes the host a router for IPv4 and IPv6.
func (h *Host) Forward(t testing.TB) {
	t.Helper()
	h.Sysctl(t, "net.ipv4.ip_forward", "1")
	h.Sysctl(t, "net.ipv6.conf.all.forwarding", "1")
}
