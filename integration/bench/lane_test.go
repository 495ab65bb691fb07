//go:build bench

package bench

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nftsentry/integration/netns"
)

const (
	laneSources  = 250 // addresses of the client
	lanePiece    = 128 << 10
	lanePieces   = 8  // of the bulk stream in a batch
	laneConnects = 15 // connections in a batch
	laneTrips    = 30 // round trips in a batch
)

// A lane is the way from the client to one of two servers.
type lane struct {
	host     *netns.Host
	listener int
	target   unix.SockaddrInet4
	near     int // ends of the open connection
	far      int
	subnet   byte // of the client's addresses
	buf      []byte
}

// laneLink is the client's interface to a lane.
func laneLink(i int) string { return fmt.Sprintf("c%d", i) }

// newLane makes a server for a client, with a listener on port 80.
func newLane(t testing.TB, client *netns.Host, i int) *lane {
	t.Helper()
	near, far := fmt.Sprintf("10.77.%d.1", i), fmt.Sprintf("10.77.%d.2", i)
	l := &lane{host: netns.New(t, "server"), subnet: byte(100 + i), buf: make([]byte, 2*lanePiece)}
	netns.Link(t, client, l.host, laneLink(i), "eth0", []string{near + "/24"}, []string{far + "/24"})
	client.Output(t, netns.Tool(t, "ip"), "route", "add", "local", fmt.Sprintf("10.%d.0.0/16", l.subnet), "dev", "lo")
	l.host.Route(t, "default", near)
	l.target = unix.SockaddrInet4{Port: 80, Addr: netip.MustParseAddr(far).As4()}
	l.host.Do(t, func() {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = errors.Join(
				unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<20),
				unix.Bind(fd, &unix.SockaddrInet4{Port: 80}), unix.Listen(fd, 128))
		}
		if err != nil {
			t.Fatal(err)
		}
		l.listener = fd
	})
	return l
}

// open makes the connection for the bulk stream and for round trips.
func (l *lane) open() (err error) {
	if l.near, l.far, err = l.connect(); err != nil {
		return err
	}
	return errors.Join(
		unix.SetsockoptInt(l.near, unix.SOL_SOCKET, unix.SO_SNDBUF, 4<<20),
		unix.SetsockoptInt(l.near, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
		unix.SetsockoptInt(l.far, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1))
}

// connect makes a connection from one of the client's addresses, and accepts it.
func (l *lane) connect() (near, far int, err error) {
	near, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, 0, err
	}
	local := &unix.SockaddrInet4{Addr: [4]byte{10, l.subnet, 1, byte(1 + rand.IntN(laneSources))}}
	err = errors.Join(
		unix.SetsockoptInt(near, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1),
		unix.Bind(near, local), unix.Connect(near, &l.target))
	if err == nil {
		far, _, err = unix.Accept4(l.listener, unix.SOCK_CLOEXEC)
	}
	return near, far, err
}

// bulk sends a batch of the bulk stream. The time is that of a piece.
func (l *lane) bulk() ([]float64, error) {
	began := time.Now()
	for range lanePieces {
		if err := pass(l.near, l.far, l.buf, lanePiece); err != nil {
			return nil, err
		}
	}
	return []float64{float64(time.Since(began)) / lanePieces}, nil
}

// connects makes a batch of connections with a small exchange. The time is that
// of one.
func (l *lane) connects() ([]float64, error) {
	began := time.Now()
	for range laneConnects {
		near, far, err := l.connect()
		if err != nil {
			return nil, err
		}
		err = errors.Join(pass(near, far, l.buf, 200), pass(far, near, l.buf, 300), unix.Close(near))
		if err == nil {
			_, err = unix.Read(far, l.buf[:1]) // the end
		}
		if err := errors.Join(err, unix.Close(far)); err != nil {
			return nil, err
		}
	}
	return []float64{float64(time.Since(began)) / laneConnects}, nil
}

// roundTrips sends small messages and answers. The times are those of each.
func (l *lane) roundTrips() (took []float64, err error) {
	for range laneTrips {
		began := time.Now()
		if err := errors.Join(pass(l.near, l.far, l.buf, 64), pass(l.far, l.near, l.buf, 64)); err != nil {
			return nil, err
		}
		took = append(took, float64(time.Since(began)))
	}
	return took, nil
}

// pass sends bytes from one socket to the other.
func pass(from, to int, buf []byte, n int) error {
	if sent, err := unix.Write(from, buf[:n]); err != nil || sent != n {
		return fmt.Errorf("sent %d of %d bytes: %w", sent, n, err)
	}
	for got := 0; got < n; {
		more, err := unix.Read(to, buf)
		if err != nil || more == 0 {
			return fmt.Errorf("read %d of %d bytes: %w", got, n, err)
		}
		got += more
	}
	return nil
}
