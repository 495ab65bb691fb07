//go:build bench

package bench

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nftsentry/integration/packet"
)

// blocksInPlace are the numbers of blocks that nftsentry has beforehand.
var blocksInPlace = []int{0, 60_000}

// Sources are blocked in rounds, so that what the machine does meanwhile hits
// all guards alike.
const (
	blockRounds = 4
	quickPace   = 50 * time.Microsecond
	slowPace    = time.Millisecond
)

// A contest is one way to be blocked, and those who block that way.
type contest struct {
	name       string
	how        func(t testing.TB, w *world, g *running, p *prober) // sets the touch
	port       uint16                                              // of the service that is probed
	contenders []contender
}

// A contender is a guard in a contest.
type contender struct {
	guard   string
	sources int           // in a round
	pace    time.Duration // of the probes: what takes seconds needs no finer one
}

// limit is after how long a source goes for one that is never blocked.
func (c contender) limit() time.Duration {
	if c.pace == slowPace {
		return 30 * time.Second
	}
	return 2 * time.Second
}

var contests = []contest{
	{"a connection to a decoy", connect, 80, []contender{
		{"nftsentry", 50, quickPace}, {"portsentry tcp", 20, quickPace}, {"fail2ban", 3, slowPace},
	}},
	{"SYNs to closed ports", scan, 80, []contender{
		{"nftsentry", 50, quickPace}, {"portsentry stcp", 20, quickPace}, {"portsentry atcp", 20, quickPace}, {"psad", 2, slowPace},
	}},
	{"failed logins in the log", fail, 22, []contender{
		{"sshguard", 5, slowPace}, {"fail2ban", 3, slowPace},
	}},
}

// TestBenchBlockTime measures, on the wire, how long a source still gets
// answers after what has it blocked, and how many, and for nftsentry how long
// it takes until the kernel has the block. The time is that of the first probe
// without an answer, so that up to a pace of it may be the prober's.
//
// The clock starts at the packet that completes the handshake with a decoy; at
// the last SYN to the ports that it takes: one for Portsentry, three for
// nftsentry, five for psad; and just before the lines of failed logins are
// written, three for sshguard and five for fail2ban, all at once.
func TestBenchBlockTime(t *testing.T) {
	r := record(t, "blocktime")
	for range blockRounds {
		for _, c := range contests {
			c.round(t, r)
		}
	}
	for _, blocks := range blocksInPlace {
		elementTime(t, r, blocks)
	}
}

// round has all contenders in turn, and nftsentry with each number of blocks.
func (c contest) round(t *testing.T, r *recorder) {
	for _, who := range c.contenders {
		i := slices.IndexFunc(all(), func(g guard) bool { return g.name == who.guard })
		if i < 0 {
			t.Fatalf("no guard is called %q", who.guard)
		}
		each(t, all()[i:i+1], func(t *testing.T, g guard) {
			counts := []int{0}
			if g.name == sentry.name {
				counts = blocksInPlace
			}
			for _, blocks := range counts {
				c.measure(t, r, g, who, blocks)
			}
		})
	}
}

// measure has a guard block some sources. The first does not count: some tools
// make their firewall table only then.
func (c contest) measure(t *testing.T, r *recorder, g guard, who contender, blocks int) {
	w := newWorld(t)
	service := w.serve(t, c.port)
	var guard *running
	if blocks > 0 {
		d := startSentry(t, w.server, "")
		d.fill(t, blocks)
		guard = d.running()
	} else {
		guard = g.start(t, w.server)
	}
	kase, never := c.name+inPlace(blocks), 0
	sender, wire := packet.Open(t, w.client), tap(t, w.router)
	for i, source := range w.sources(t, "10.8.%d.%d/16", 1+who.sources) {
		p := &prober{sender: sender, wire: wire, source: source, service: service, pace: who.pace, limit: who.limit()}
		c.how(t, w, guard, p)
		o, ok := p.run(t)
		if i == 0 {
			continue
		}
		if !ok {
			never++
			continue
		}
		r.add(kase, g.name, "time to block", "ms", milliseconds(o.touch))
		r.add(kase, g.name, "time from the first packet", "ms", milliseconds(o.first))
		r.add(kase, g.name, "answers meanwhile", "", float64(o.through))
	}
	if never == who.sources {
		t.Fatalf("%s blocks nobody", g.name)
	}
	r.add(kase, g.name, "sources never blocked", "%", 100*float64(never)/float64(who.sources))
}

// connect has a source connect to one decoy.
func connect(t testing.TB, w *world, g *running, p *prober) {
	t.Helper()
	p.ports, p.handshake = g.ports[:1], true
	fd := -1
	w.client.Do(t, func() {
		var err error
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
			t.Fatal(err)
		}
		if err = unix.Bind(fd, &unix.SockaddrInet4{Addr: p.source.As4()}); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { _ = unix.Close(fd) })
	p.touch = func() {
		err := unix.Connect(fd, &unix.SockaddrInet4{Addr: p.service.Addr().As4(), Port: int(p.ports[0])})
		if err != unix.EINPROGRESS {
			t.Fatalf("connect to %d: %v", p.ports[0], err)
		}
	}
}

// scan has a source send SYNs to ports that no service owns.
func scan(t testing.TB, _ *world, g *running, p *prober) {
	t.Helper()
	p.ports = g.closed
	var syns [][]byte
	for _, port := range p.ports {
		target := netip.AddrPortFrom(p.service.Addr(), port)
		syns = append(syns, packet.TCP{Source: netip.AddrPortFrom(p.source, 9000), Target: target, Flags: packet.SYN}.Bytes())
	}
	p.touch = func() { p.sender.Send(t, syns...) }
}

// fail has a source fail to log in, as the log tells.
func fail(t testing.TB, _ *world, g *running, p *prober) {
	t.Helper()
	p.touch = func() {
		p.began = time.Now()
		p.done = p.began
		g.fail(t, p.source)
	}
}

// serve has the server listen on a port. Nobody ever completes a handshake.
func (w *world) serve(t testing.TB, port uint16) netip.AddrPort {
	t.Helper()
	at := netip.AddrPortFrom(netip.MustParseAddr(server4), port)
	l, err := w.server.Listen("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return at
}

// sources gives the client more addresses. The pattern has two numbers, and the
// prefix length of the link.
func (w *world) sources(t testing.TB, pattern string, n int) (addrs []netip.Addr) {
	t.Helper()
	for i := range n {
		p := netip.MustParsePrefix(fmt.Sprintf(pattern, 1+i/250, 1+i%250))
		w.client.Addr(t, "eth0", p.String())
		addrs = append(addrs, p.Addr())
	}
	return addrs
}

func inPlace(blocks int) string {
	if blocks == 0 {
		return ""
	}
	return fmt.Sprintf(", %d blocks in place", blocks)
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
