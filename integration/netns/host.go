package netns

import (
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"nftsentry/integration/namespace"
)

// A Host is a network namespace of its own, with loopback up. It lives until its test ends, and longer only while
// sockets or processes are in it. All methods may be called at once.
type Host struct{ *namespace.Host }

// New makes a host; name is for messages only. Addresses are usable as soon as they are added: duplicate address
// detection and router solicitation are off. It skips the test where namespaces cannot be had, see [Require].
func New(t testing.TB, name string) *Host {
	t.Helper()
	Require(t)
	h, err := namespace.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return &Host{h}
}

// Link joins two hosts by a veth pair with the given names (at most 15 bytes) and addresses in prefix notation, such
// as "192.0.2.1/24" and "2001:db8::1/64". Both ends are up, and their addresses usable, when it returns.
func Link(t testing.TB, a, b *Host, nameA, nameB string, addrsA, addrsB []string) {
	t.Helper()
	must(t, namespace.Join(a.Host, b.Host, nameA, nameB))
	a.Addr(t, nameA, addrsA...)
	b.Addr(t, nameB, addrsB...)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Do runs fn in the namespace of the host, in the calling goroutine, so that fn may call t.Fatal and panic as the test
// itself may. Sockets opened and processes started by fn stay in the namespace; goroutines started by fn are outside
// it, and must not call t.Fatal. Calls may be nested.
func (h *Host) Do(t testing.TB, fn func()) {
	t.Helper()
	err := h.Inside(func() error { fn(); return nil })
	if err != nil {
		t.Fatalf("host %s: %v", h, err)
	}
}

// Addr adds addresses in prefix notation to an interface of the host, usable at once.
func (h *Host) Addr(t testing.TB, ifname string, prefixes ...string) {
	t.Helper()
	must(t, h.Host.Addr(ifname, prefixes...))
}

// Route sets the route of the host to dst, a prefix or "default", by way of the next hop via. A link-local next hop has
// a zone: "fe80::1%eth0".
func (h *Host) Route(t testing.TB, dst, via string) {
	t.Helper()
	must(t, h.Host.Route(dst, via))
}

// Sysctl sets a parameter of the namespace, such as net.ipv4.ip_forward. The key is written with dots, or with slashes
// where a part of it has a dot itself.
func (h *Host) Sysctl(t testing.TB, key, value string) {
	t.Helper()
	must(t, h.Host.Sysctl(key, value))
}

// Forward makes the host a router for IPv4 and IPv6.
func (h *Host) Forward(t testing.TB) {
	t.Helper()
	h.Sysctl(t, "net.ipv4.ip_forward", "1")
	h.Sysctl(t, "net.ipv6.conf.all.forwarding", "1")
}

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
	if err := h.Inside(cmd.Start); err != nil {
		t.Fatalf("host %s: start %s: %v", h, cmd, err)
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
		t.Fatalf("host %s: %s: %v\n%s%s", h, cmd, err, stdout.String(), stderr.String())
	}
	return stdout.String()
}
