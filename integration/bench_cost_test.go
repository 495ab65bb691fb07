//go:build bench

package integration

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"nftsentry/integration/netns"
)

// How the cost is measured: one thread on one CPU has the sockets of both
// ends. A veth pair delivers in the softirq of the sender, so that each system
// call returns with its packets processed. Batches of a millisecond on the
// plain and on the guarded host take turns in random order, and what else the
// machine does hits both alike. The figure of a round is the median of its
// batches, and that of a pairing the median of its rounds.
const (
	costRound    = 500 * time.Millisecond
	costRounds   = 3 // with one pair of hosts
	costPairs    = 4 // of which the guarded host is now the first and now the second
	costCPU      = 1
	costSources  = 250 // addresses of the client
	costBulk     = 128 << 10
	costBatches  = 8  // bulk writes in a batch
	costConnects = 15 // connections in a batch
)

const plainFirewall = `table inet fw {
	chain input {
		type filter hook input priority filter; policy drop;
		ct state established,related accept
		ct state invalid drop
		iif lo accept
		ip protocol icmp accept
		meta l4proto icmpv6 accept
		tcp dport { 22, 80, 443 } accept
	}
}
`

// TestBenchCost measures what the table costs the honest: the time of a bulk
// TCP stream and of new connections, against a plain firewall.
func TestBenchCost(t *testing.T) {
	var b bytes.Buffer
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "what\tblocks\trounds\tplain\tguarded\tmedian\tquartiles\tleast\tmost\t")
	for _, blocks := range []int{10, 60_000} {
		var bulk, single, connects costs
		for pair := range costPairs {
			lanes := costLanes(t, pair%2, blocks)
			for range costRounds {
				lanes.segments(t, 65535)
				bulk.add(lanes.round(t, (*lane).bulk))
				lanes.segments(t, 1)
				single.add(lanes.round(t, (*lane).bulk))
				lanes.segments(t, 65535)
				connects.add(lanes.round(t, (*lane).connects))
			}
			lanes.close()
		}
		bulk.row(table, "128 KiB of a bulk stream", blocks)
		single.row(table, "the same in single packets", blocks)
		connects.row(table, "a connection, 200 and 300 bytes", blocks)
	}
	_ = table.Flush()
	fmt.Print("\n" + b.String() + "\n")
}

// A costs is what each round has measured, in nanoseconds.
type costs struct{ plain, guarded, ratio []float64 }

func (c *costs) add(plain, guarded float64) {
	c.plain, c.guarded = append(c.plain, plain), append(c.guarded, guarded)
	c.ratio = append(c.ratio, 100*(guarded/plain-1))
}

func (c *costs) row(w *tabwriter.Writer, what string, blocks int) {
	slices.Sort(c.ratio)
	n := len(c.ratio)
	fmt.Fprintf(w, "%s\t%d\t%d\t%v\t%v\t%+.1f %%\t%+.1f to %+.1f\t%+.1f\t%+.1f\t\n", what, blocks, n,
		time.Duration(median(c.plain)).Round(10*time.Nanosecond), time.Duration(median(c.guarded)).Round(10*time.Nanosecond),
		median(c.ratio), c.ratio[n/4], c.ratio[n-1-n/4], c.ratio[0], c.ratio[n-1])
}

func median(of []float64) float64 {
	s := slices.Sorted(slices.Values(of))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// A lane is the way from the client to one of the two hosts.
type lane struct {
	listener int
	target   unix.SockaddrInet4
	near     int // ends of the bulk stream
	far      int
	subnet   byte // of the client's addresses
	buf      []byte
}

// lanes are the plain host's and the guarded host's.
type lanes struct {
	client *netns.Host
	both   [2]*lane
}

// costLanes makes a client and two hosts, of which one is guarded and has a number of blocks.
func costLanes(t *testing.T, guarded, blocks int) *lanes {
	t.Helper()
	ls := &lanes{client: netns.New(t, "client")}
	ls.client.Sysctl(t, "net.ipv4.tcp_max_tw_buckets", "16")
	ls.client.Sysctl(t, "net.ipv4.ip_local_port_range", "10000 65000")
	for i := range 2 {
		host := netns.New(t, "server")
		near, far := fmt.Sprintf("10.77.%d.1", i), fmt.Sprintf("10.77.%d.2", i)
		netns.Link(t, ls.client, host, fmt.Sprintf("c%d", i), "eth0", []string{near + "/24"}, []string{far + "/24"})
		ls.client.Output(t, netns.Tool(t, "ip"), "route", "add", "local", fmt.Sprintf("10.%d.0.0/16", 100+i), "dev", "lo")
		host.Route(t, "10.100.0.0/15", near)
		l := &lane{subnet: byte(100 + i), buf: make([]byte, 2*costBulk)}
		l.target = unix.SockaddrInet4{Port: 80, Addr: netip.MustParseAddr(far).As4()}
		host.Do(t, func() { l.listener = listenBulk(t) })
		firewall(t, host)
		role := 0
		if i == guarded {
			role = 1
			guard(t, host, "")
			fillBlocked(t, host, blocks)
		}
		host.Sysctl(t, "net.netfilter.nf_conntrack_tcp_timeout_time_wait", "2")
		ls.both[role] = l
	}
	ls.client.Do(t, func() {
		for _, l := range ls.both {
			if err := l.open(); err != nil {
				t.Fatal(err)
			}
		}
	})
	return ls
}

// segments sets how many packets of a stream the client hands to the links at
// once. Interfaces that gather what they receive make such large packets too.
func (ls *lanes) segments(t *testing.T, most int) {
	t.Helper()
	for i := range ls.both {
		ls.client.Output(t, netns.Tool(t, "ip"), "link", "set", fmt.Sprintf("c%d", i), "gso_max_segs", fmt.Sprint(most))
	}
}

func firewall(t *testing.T, host *netns.Host) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "fw.nft")
	if err := os.WriteFile(file, []byte(plainFirewall), 0o600); err != nil {
		t.Fatal(err)
	}
	host.Output(t, netns.Tool(t, "nft"), "-f", file)
}

// fillBlocked blocks addresses from all over the world.
func fillBlocked(t *testing.T, host *netns.Host, n int) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "blocked.nft")
	random := rand.New(rand.NewPCG(1, 2))
	seen := make(map[netip.Addr]bool)
	for len(seen) < n {
		var b strings.Builder
		for range min(2000, n-len(seen)) {
			r := random.Uint32()
			a := netip.AddrFrom4([4]byte{byte(16 + r>>24%200), byte(r >> 16), byte(r >> 8), byte(r)})
			if !seen[a] {
				seen[a] = true
				fmt.Fprintf(&b, "%s timeout 1h,", a)
			}
		}
		if err := os.WriteFile(file, fmt.Appendf(nil, "add element inet nftsentry blocked4 { %s }", b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		host.Output(t, netns.Tool(t, "nft"), "-f", file)
	}
}

func listenBulk(t *testing.T) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = errors.Join(
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<20),
			unix.Bind(fd, &unix.SockaddrInet4{Port: 80}), unix.Listen(fd, 128))
	}
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// open makes the bulk stream.
func (l *lane) open() (err error) {
	if l.near, l.far, err = l.connect(); err != nil {
		return err
	}
	return errors.Join(
		unix.SetsockoptInt(l.near, unix.SOL_SOCKET, unix.SO_SNDBUF, 4<<20),
		unix.SetsockoptInt(l.near, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1))
}

func (ls *lanes) close() {
	for _, l := range ls.both {
		for _, fd := range []int{l.near, l.far, l.listener} {
			_ = unix.Close(fd)
		}
	}
}

// connect makes a connection from one of the client's addresses, and accepts it.
func (l *lane) connect() (near, far int, err error) {
	near, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, 0, err
	}
	local := &unix.SockaddrInet4{Addr: [4]byte{10, l.subnet, 1, byte(1 + rand.IntN(costSources))}}
	err = errors.Join(
		unix.SetsockoptInt(near, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1),
		unix.Bind(near, local), unix.Connect(near, &l.target))
	if err == nil {
		far, _, err = unix.Accept4(l.listener, unix.SOCK_CLOEXEC)
	}
	return near, far, err
}

// bulk sends a batch of the bulk stream, and returns how many pieces it had.
func (l *lane) bulk() (int, error) {
	for range costBatches {
		if err := pass(l.near, l.far, l.buf, costBulk); err != nil {
			return 0, err
		}
	}
	return costBatches, nil
}

// connects makes a batch of connections with a small exchange, and returns how many.
func (l *lane) connects() (int, error) {
	for range costConnects {
		near, far, err := l.connect()
		if err != nil {
			return 0, err
		}
		err = errors.Join(pass(near, far, l.buf, 200), pass(far, near, l.buf, 300), unix.Close(near))
		if err == nil {
			_, err = unix.Read(far, l.buf[:1]) // the end
		}
		if err := errors.Join(err, unix.Close(far)); err != nil {
			return 0, err
		}
	}
	return costConnects, nil
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

// round runs batches on both lanes, and returns the median time of a piece of
// each, in nanoseconds.
func (ls *lanes) round(t *testing.T, batch func(*lane) (int, error)) (plain, guarded float64) {
	t.Helper()
	var took [2][]float64
	ls.client.Do(t, func() {
		back := pin(t)
		defer back()
		for end := time.Now().Add(costRound); time.Now().Before(end); {
			first := rand.IntN(2)
			for _, i := range []int{first, 1 - first} {
				began := time.Now()
				n, err := batch(ls.both[i])
				if err != nil {
					t.Fatal(err)
				}
				took[i] = append(took[i], float64(time.Since(began))/float64(n))
			}
		}
	})
	return median(took[0]), median(took[1])
}

// pin keeps the calling thread on one CPU until the returned function is called.
func pin(t *testing.T) func() {
	t.Helper()
	var before, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		t.Fatal(err)
	}
	one.Set(costCPU)
	if !before.IsSet(costCPU) {
		return func() {}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Fatal(err)
	}
	return func() { _ = unix.SchedSetaffinity(0, &before) }
}
