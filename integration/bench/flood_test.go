//go:build bench

package bench

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"nftsentry/integration/netns"
	"nftsentry/integration/packet"
)

// forged are sources that nobody has, as many as a flood needs.
var forged = netip.MustParsePrefix("64.0.0.0/4")

// Ports of a flood: those where both nftsentry and Portsentry wait for a scan,
// and those that nobody serves and that only who watches all below 1024 sees.
var (
	decoyPorts   = []uint16{1, 11, 15, 79, 111, 119, 540, 635, 1080, 1524, 2000, 5742, 6667, 12345, 20034, 31337}
	watchedPorts = []uint16{2, 3, 4, 5, 6, 7, 8, 9, 200, 201, 202, 203, 700, 701, 702, 1000}
)

// A flood is a stream of forged SYNs. Each source sends five, to five ports in
// a row: enough for any guard to block it.
type flood struct {
	to     string
	ports  []uint16
	rate   int // packets a second; 0 is as many as one core sends
	rounds int
}

var floods = []flood{
	{"decoy ports", decoyPorts, 1000, 3}, {"decoy ports", decoyPorts, 10_000, 3}, {"decoy ports", decoyPorts, 0, 3},
	{"watched ports", watchedPorts, 1000, 1}, {"watched ports", watchedPorts, 10_000, 3}, {"watched ports", watchedPorts, 0, 1},
}

func (f flood) String() string {
	if f.rate == 0 {
		return fmt.Sprintf("forged SYNs to %s, as many as one core sends", f.to)
	}
	return fmt.Sprintf("forged SYNs to %s, %d/s", f.to, f.rate)
}

const (
	// floodLasts is how long a flood is measured. What a guard needs to look
	// at what has come is added.
	floodLasts = 2 * time.Second
	visitEvery = 100 * time.Millisecond // of a client that does nothing wrong
	patience   = 3 * time.Second        // of that client
)

// TestBenchFlood floods hosts with forged SYNs while a client and a scanner
// come by, and has a forger try to get a host blocked that has done nothing.
// All of it begins anew, tool and network, for each flood.
func TestBenchFlood(t *testing.T) {
	r := record(t, "flood")
	each(t, all(), func(t *testing.T, g guard) { benchFramed(t, r, g) })
	installed := slices.DeleteFunc(all(), func(g guard) bool { return len(g.absent()) > 0 })
	for round := range slices.MaxFunc(floods, func(a, b flood) int { return a.rounds - b.rounds }).rounds {
		for _, f := range floods {
			if round < f.rounds {
				each(t, installed, func(t *testing.T, g guard) { benchFlood(t, r, g, f) })
			}
		}
	}
}

// A siege is a guarded host under a flood.
type siege struct {
	*world
	t     *testing.T
	r     *recorder
	flood flood
	guard guard
	tool  *running
	used  *account
}

func benchFlood(t *testing.T, r *recorder, g guard, f flood) {
	t.Helper()
	s := &siege{world: newWorld(t), t: t, r: r, flood: f, guard: g, used: openAccount(t)}
	forsake(t, s.router)
	echo(t, s.server, 80)
	s.tool = g.start(t, s.server)
	s.used.join(t, s.tool.pids)
	if ok, _ := s.reaches(client4); !ok { // the neighbours know each other from now on
		t.Fatal("no answer before the flood")
	}
	s.run()
	s.add("sources blocked", "", float64(len(refused(t, s.server))))
}

// forsake has the router lose what is sent to forged sources, as a network
// does that is not there; it would say that there is none, otherwise.
func forsake(t testing.TB, router *netns.Host) {
	t.Helper()
	router.Output(t, netns.Tool(t, "ip"), "route", "add", "blackhole", forged.String())
}

// echo serves a port: what comes goes back.
func echo(t testing.TB, host *netns.Host, port int) {
	t.Helper()
	l, err := host.Listen("tcp", ":"+strconv.Itoa(port))
	if err != nil {
		t.Fatal(err)
	}
	var all errgroup.Group
	all.Go(func() error {
		for {
			conn, err := l.Accept()
			if err != nil {
				return nil // it is closed
			}
			all.Go(func() error {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
				return nil
			})
		}
	})
	t.Cleanup(func() { _ = l.Close() })
}

func (s *siege) add(measure, unit string, values ...float64) {
	s.t.Helper()
	s.r.add(s.flood.String(), s.guard.name, measure, unit, values...)
}

// run floods the host. What the tool uses is measured first, with the client
// alone; the scanner comes after that, into the same flood.
func (s *siege) run() {
	s.t.Helper()
	ctx, stop := context.WithCancel(s.t.Context())
	defer stop()
	var all errgroup.Group
	began := time.Now()
	var sent uint64
	var flowed time.Duration
	all.Go(func() (err error) {
		sent, err = packet.Flood(ctx, s.router, packet.FloodConfig{
			Target: netip.MustParseAddr(server4), Ports: s.flood.ports, Sources: forged, Repeat: 5, Rate: s.flood.rate})
		flowed = time.Since(began)
		return err
	})
	s.measure()
	s.scan()
	stop()
	if err := all.Wait(); err != nil {
		s.t.Fatal(err)
	}
	rate := float64(sent) / flowed.Seconds()
	if rate < 500 || s.flood.rate > 1000 && rate < float64(s.flood.rate)/2 {
		s.t.Errorf("%.0f packets a second are no flood", rate)
	}
	s.add("sent", "packets/s", rate)
}

// measure takes what the tool and the machine use, and what the client sees.
func (s *siege) measure() {
	s.t.Helper()
	lasts := floodLasts + s.guard.lag
	ctx, cancel := context.WithTimeout(s.t.Context(), lasts)
	defer cancel()
	var client errgroup.Group
	var took []time.Duration
	failed := 0
	client.Go(func() error {
		took, failed = s.visit(ctx)
		return nil
	})
	began, cpu, machine, tracked := time.Now(), s.used.cpu(s.t), busy(s.t), 0
	var most usage
	for ctx.Err() == nil {
		now := s.used.usage(s.t)
		most.rss, most.processes = max(most.rss, now.rss), max(most.processes, now.processes)
		tracked = max(tracked, connections(s.t, s.server))
		time.Sleep(50 * time.Millisecond)
	}
	share := func(d time.Duration) float64 { return 100 * d.Seconds() / time.Since(began).Seconds() }
	if len(s.tool.pids) > 0 {
		s.add("CPU", "% of a core", share(s.used.cpu(s.t)-cpu))
		s.add("memory, most", "MiB", float64(most.rss)/(1<<20))
		s.add("processes, most", "", float64(most.processes))
	}
	s.add("CPU of the machine, forger and all", "% of a core", share(busy(s.t)-machine))
	s.add("connections tracked, most", "", float64(tracked))
	_ = client.Wait()
	s.add("client gets through", "%", 100*float64(len(took)-failed)/float64(len(took)))
	for _, d := range took {
		s.add("client connects in", "ms", ms(d))
	}
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// visit has the client connect again and again until ctx ends. It returns how
// long it took each time, and how many of these gave up at last.
func (s *siege) visit(ctx context.Context) (took []time.Duration, failed int) {
	var all errgroup.Group
	type visit struct {
		ok   bool
		took time.Duration
	}
	var visits []*visit
	for tick := time.NewTicker(visitEvery); ctx.Err() == nil; {
		v := new(visit)
		visits = append(visits, v)
		all.Go(func() error {
			v.ok, v.took = s.reaches(client4)
			return nil
		})
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	_ = all.Wait()
	for _, v := range visits {
		took = append(took, v.took)
		if !v.ok {
			failed++
		}
	}
	return took, failed
}

// reaches connects to the service from an address of the client, and reports
// how long that took.
func (w *world) reaches(from string) (ok bool, took time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	began := time.Now()
	conn, err := w.client.Dial(ctx, "tcp", server4+":80", from)
	took = time.Since(began)
	if err == nil {
		_ = conn.Close()
	}
	return err == nil, took
}

// scan has a source of its own connect to what has the tool block it, again
// and again each 100 ms until it is blocked.
func (s *siege) scan() {
	s.t.Helper()
	if len(s.tool.ports) == 0 {
		return
	}
	scanner := netip.MustParseAddr("10.8.1.2")
	s.client.Addr(s.t, "eth0", scanner.String()+"/16")
	began := time.Now()
	blocked := false
	for !blocked && time.Since(began) < floodLasts+2*s.guard.lag {
		for _, port := range s.tool.ports {
			ctx, cancel := context.WithTimeout(s.t.Context(), 100*time.Millisecond)
			if conn, err := s.client.Dial(ctx, "tcp", net.JoinHostPort(server4, strconv.Itoa(int(port))), scanner.String()); err == nil {
				_ = conn.Close()
			}
			cancel()
		}
		blocked = refused(s.t, s.server)[scanner]
	}
	if !blocked {
		s.add("scanner is blocked meanwhile", "", 0)
		return
	}
	s.add("scanner is blocked meanwhile", "", 1)
	s.add("scanner is blocked after", "ms", ms(time.Since(began)))
}

// busy is how long the cores of the machine have worked, of proc_stat(5), in
// steps of 10 ms.
func busy(t testing.TB) time.Duration {
	t.Helper()
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(stat), "\n")
	ticks := 0
	for i, word := range strings.Fields(line)[1:] {
		if n, _ := strconv.Atoi(word); i != 3 && i != 4 && i < 8 { // neither idle and iowait, nor guests, which are in user
			ticks += n
		}
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// connections is how many connections a host tracks; 0 where it tracks none.
func connections(t testing.TB, host *netns.Host) (n int) {
	t.Helper()
	host.Do(t, func() {
		if data, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_count"); err == nil {
			n, _ = strconv.Atoi(strings.TrimSpace(string(data)))
		}
	})
	return n
}
