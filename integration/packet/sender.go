package packet

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// sendTimeout is how many seconds a packet may wait for its turn. It takes microseconds.
const sendTimeout = 5

// A Host is where packets leave, such as a namespace.Host or a netns.Host.
type Host interface {
	fmt.Stringer
	Inside(func() error) error // runs in the host's network namespace
}

// A Test is what this package needs of a testing.TB.
type Test interface {
	Helper()
	Fatalf(format string, args ...any)
	Cleanup(func())
	Context() context.Context
}

// A Sender sends raw IP packets from a host. The kernel of the host routes them and resolves neighbours, but knows of no
// connection: if a target answers to one of the host's own addresses, the host resets that. All methods may be called
// at once.
type Sender struct {
	host Host
	conn *conn
}

// NewSender opens a Sender in the namespace of a host. The caller, who needs CAP_NET_RAW there, closes it.
func NewSender(host Host) (*Sender, error) {
	s := &Sender{host: host}
	err := host.Inside(func() (err error) {
		s.conn, err = openConn()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("host %s: %w", host, err)
	}
	return s, nil
}

// Close closes the sockets.
func (s *Sender) Close() error { return s.conn.close() }

// Open opens a Sender in the namespace of a host; it is closed when the test ends.
func Open(t Test, host Host) *Sender {
	t.Helper()
	s, err := NewSender(host)
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// Bind lets all packets leave by one interface of the host, as those to link-local and multicast targets have to.
func (s *Sender) Bind(t Test, ifname string) {
	t.Helper()
	for _, fd := range []int{s.conn.raw4, s.conn.raw6} {
		if err := unix.BindToDevice(fd, ifname); err != nil {
			t.Fatalf("host %s: send by %s: %v", s.host, ifname, err)
		}
	}
}

// Send is Transmit that fails the test if a packet cannot be sent.
func (s *Sender) Send(t Test, packets ...[]byte) {
	t.Helper()
	if err := s.Transmit(t.Context(), packets...); err != nil {
		t.Fatalf("%v", err)
	}
}

// Transmit sends whole IPv4 and IPv6 packets, one after the other, to the targets that they name, which may be the host
// itself. The source is whatever the packet says. Of an IPv4 packet the kernel sets the length and the header's
// checksum, and an identification that is zero. It fails if a packet cannot be sent, as one that is larger than the
// link takes; see [Fragment]. That a neighbour does not answer is not noticed.
func (s *Sender) Transmit(ctx context.Context, packets ...[]byte) error {
	for i, p := range packets {
		if err := s.transmit(ctx, p); err != nil {
			return fmt.Errorf("host %s: packet %d of %d, %d bytes: %w", s.host, i+1, len(packets), len(p), err)
		}
	}
	return nil
}

func (s *Sender) transmit(ctx context.Context, packet []byte) error {
	source, target, err := ends(packet)
	if err != nil {
		return err
	}
	if !source.Is4() || !source.IsUnspecified() {
		return s.conn.send(target, packet)
	}
	// The kernel would put its own address in place of 0.0.0.0 (raw_send_hdrinc in net/ipv4/raw.c).
	var h hop
	err = s.host.Inside(func() (err error) {
		h, err = s.conn.hop(ctx, target)
		return err
	})
	if err != nil {
		return err
	}
	return h.send(s.conn.link, packet)
}

// ends returns the source and the target of an IP packet.
func ends(packet []byte) (source, target netip.Addr, err error) {
	switch {
	case len(packet) >= size4 && packet[0]>>4 == 4:
		source, target = netip.AddrFrom4([4]byte(packet[12:])), netip.AddrFrom4([4]byte(packet[16:]))
	case len(packet) >= size6 && packet[0]>>4 == 6:
		source, target = netip.AddrFrom16([16]byte(packet[8:])), netip.AddrFrom16([16]byte(packet[24:]))
	default:
		err = errors.New("neither IPv4 nor IPv6")
	}
	return source, target, err
}

// A conn is the sockets that packets leave by.
type conn struct {
	raw4, raw6 int
	link       int // AF_PACKET, receives nothing
}

// openConn opens the sockets in the namespace of the calling thread. IPPROTO_RAW is IP_HDRINCL, and for IPv6
// IPV6_HDRINCL: see raw(7) and inet6_create in net/ipv6/af_inet6.c.
func openConn() (*conn, error) {
	c := &conn{-1, -1, -1}
	var err4, err6, errLink error
	c.raw4, err4 = socket(unix.AF_INET, unix.IPPROTO_RAW)
	c.raw6, err6 = socket(unix.AF_INET6, unix.IPPROTO_RAW)
	c.link, errLink = socket(unix.AF_PACKET, 0)
	if err := errors.Join(err4, err6, errLink); err != nil {
		return nil, errors.Join(fmt.Errorf("open raw sockets: %w", err), c.close())
	}
	if err := unix.SetsockoptInt(c.raw4, unix.SOL_SOCKET, unix.SO_BROADCAST, 1); err != nil {
		return nil, errors.Join(fmt.Errorf("allow broadcasts: %w", err), c.close())
	}
	return c, nil
}

// socket opens a raw socket that does not block for ever.
func socket(domain, protocol int) (int, error) {
	fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return -1, err
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: sendTimeout}); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

func (c *conn) close() error {
	var errs []error
	for _, fd := range []int{c.raw4, c.raw6, c.link} {
		if fd >= 0 {
			errs = append(errs, unix.Close(fd))
		}
	}
	return errors.Join(errs...)
}

// send sends an IP packet by the route to its target.
func (c *conn) send(target netip.Addr, packet []byte) error {
	if target.Is4() {
		return retry(func() error {
			return unix.Sendto(c.raw4, packet, 0, &unix.SockaddrInet4{Addr: target.As4()})
		})
	}
	return retry(func() error {
		return unix.Sendto(c.raw6, packet, 0, &unix.SockaddrInet6{Addr: target.As16()})
	})
}
