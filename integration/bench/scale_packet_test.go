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

	"nftsentry/integration/bench/figure"
	"nftsentry/integration/netns"
	"nftsentry/integration/packet"
	"nftsentry/nft"
)

// How the cost of a packet is measured: one thread has the sockets of both
// ends. A veth pair delivers in the softirq of the sender, so that each system
// call returns with its packets processed. Batches of a millisecond to the
// server with few blocks and to the one with many take turns in random order,
// and what else the machine does hits both alike. The figure of a round is the
// median of its batches.
const (
	fewBlocks    = 10
	packetRounds = 6 // with each of two pairs of servers, of which the full one is now the first and now the second
	packetRound  = 300 * time.Millisecond
	packetBatch  = 128
	honestPeers  = 250
	knockers     = 1 << 16 // packets of blocked sources that are ready to be sent
)

// packets measures what a packet costs with n blocks in place, and with few.
func (s *scale) packets(t *testing.T, n int) {
	for full := range 2 {
		t.Run(fmt.Sprint("full ", full), func(t *testing.T) { s.pair(t, n, full) })
	}
}

func (s *scale) pair(t *testing.T, n, full int) {
	client := netns.New(t, "client")
	var lines [2]*line // with few blocks and with many
	for i := range 2 {
		blocks, role := fewBlocks, 0
		if i == full {
			blocks, role = n, 1
		}
		lines[role] = newLine(t, client, i, blocks)
	}
	for range packetRounds {
		for _, kind := range []struct {
			name  string
			batch func(*line) error
		}{{"honest request and answer, UDP", (*line).exchange}, {"packet of a blocked source, SYN", (*line).knock}} {
			few, many := alternate(t, client, lines, kind.batch)
			s.add(fmt.Sprintf("%d blocks in place", fewBlocks), sentry.name, kind.name, "ns", few)
			s.add(fmt.Sprintf("%d blocks in place", n), sentry.name, kind.name, "ns", many)
			s.add(fmt.Sprintf("%d blocks in place", n), sentry.name, kind.name+fmt.Sprintf(", more than with %d blocks", fewBlocks), "%", 100*(many/few-1))
		}
	}
	for _, l := range lines {
		l.check(t)
	}
}

// alternate runs batches on both lines in turns, and returns the median time of
// a packet of each, in nanoseconds.
func alternate(t *testing.T, client *netns.Host, lines [2]*line, batch func(*line) error) (few, many float64) {
	t.Helper()
	var took [2][]float64
	client.Do(t, func() {
		for end := time.Now().Add(packetRound); time.Now().Before(end); {
			first := rand.IntN(2)
			for _, i := range []int{first, 1 - first} {
				began := time.Now()
				if err := batch(lines[i]); err != nil {
					t.Fatal(err)
				}
				took[i] = append(took[i], float64(time.Since(began))/packetBatch)
			}
		}
	})
	return figure.Quantile(took[0], 0.5), figure.Quantile(took[1], 0.5)
}

// A line is the way from the client to one of the two servers.
type line struct {
	server  *netns.Host
	near    []int // UDP sockets of the client
	far     int   // and that of the server
	raw     int
	knocks  [][]byte // packets of blocked sources
	target  unix.SockaddrInet4
	knocked uint64
	buf     [256]byte
}

func newLine(t *testing.T, client *netns.Host, i, blocks int) *line {
	t.Helper()
	l := &line{server: netns.New(t, "server")}
	near, far := fmt.Sprintf("10.77.%d.1", i), netip.AddrFrom4([4]byte{10, 77, byte(i), 2})
	netns.Link(t, client, l.server, fmt.Sprintf("c%d", i), "eth0", []string{near + "/24"}, []string{far.String() + "/24"})
	client.Output(t, netns.Tool(t, "ip"), "route", "add", "local", fmt.Sprintf("10.%d.0.0/16", 100+i), "dev", "lo")
	l.server.Route(t, "default", near)
	l.target = unix.SockaddrInet4{Port: 53, Addr: far.As4()}

	c := newCrowd(t, blocks)
	d := startSentry(t, l.server, roomFor(blocks))
	for _, file := range c.lists(t, 250_000) {
		d.must(t, "block", "--file", file, "--timeout", "1h")
	}
	for range knockers {
		source := netip.AddrPortFrom(c.addrs[rand.IntN(blocks)], 4242)
		l.knocks = append(l.knocks, packet.TCP{Source: source, Target: netip.AddrPortFrom(far, 80), Flags: packet.SYN}.Bytes())
	}
	l.open(t, client, byte(100+i))
	return l
}

// open makes the sockets.
func (l *line) open(t *testing.T, client *netns.Host, subnet byte) {
	t.Helper()
	l.server.Do(t, func() { l.far = socket(t, unix.SOCK_DGRAM, 0, [4]byte{}, 53) })
	client.Do(t, func() {
		for i := range honestPeers {
			fd := socket(t, unix.SOCK_DGRAM, 0, [4]byte{10, subnet, 1, byte(1 + i)}, 4242)
			if err := unix.Connect(fd, &l.target); err != nil {
				t.Fatal(err)
			}
			l.near = append(l.near, fd)
		}
		l.raw = socket(t, unix.SOCK_RAW, unix.IPPROTO_RAW, [4]byte{}, 0)
	})
}

// socket opens a socket that waits for a second at most, until the test ends.
func socket(t *testing.T, kind, protocol int, addr [4]byte, port int) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	err = errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1}),
		unix.Bind(fd, &unix.SockaddrInet4{Port: port, Addr: addr}))
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// exchange has a batch of requests answered, each of another peer.
func (l *line) exchange() error {
	for range packetBatch {
		near := l.near[rand.IntN(len(l.near))]
		if _, err := unix.Write(near, l.buf[:64]); err != nil {
			return fmt.Errorf("ask: %w", err)
		}
		n, from, err := unix.Recvfrom(l.far, l.buf[:], 0)
		if err != nil {
			return fmt.Errorf("hear the request: %w", err)
		}
		if err := unix.Sendto(l.far, l.buf[:n], 0, from); err != nil {
			return fmt.Errorf("answer: %w", err)
		}
		if _, err := unix.Read(near, l.buf[:]); err != nil {
			return fmt.Errorf("hear the answer: %w", err)
		}
	}
	return nil
}

// knock sends a batch of packets of blocked sources.
func (l *line) knock() error {
	l.knocked += packetBatch
	for range packetBatch {
		if err := unix.Sendto(l.raw, l.knocks[rand.IntN(len(l.knocks))], 0, &l.target); err != nil {
			return fmt.Errorf("knock: %w", err)
		}
	}
	return nil
}

// check sees that all knocks were dropped.
func (l *line) check(t *testing.T) {
	t.Helper()
	table, err := nft.Open(l.server.FD(), 64)
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	counters, err := table.Counters()
	if err != nil {
		t.Fatal(err)
	}
	if counters.Dropped.Packets < l.knocked {
		t.Errorf("%d packets of blocked sources are dropped, want %d", counters.Dropped.Packets, l.knocked)
	}
}
