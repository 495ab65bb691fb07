//go:build bench

package bench

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
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
	rounds int // one only for tools that look but now and then
}

var floods = []flood{
	{"decoy ports", decoyPorts, 1000, 3}, {"decoy ports", decoyPorts, 10_000, 3}, {"decoy ports", decoyPorts, 0, 2},
	{"watched ports", watchedPorts, 1000, 1}, {"watched ports", watchedPorts, 10_000, 2}, {"watched ports", watchedPorts, 0, 1},
}

// String has neither a slash nor a comma: it names a test, and with that the
// folders of the tools, of which psad takes a list with commas.
func (f flood) String() string {
	if f.rate == 0 {
		return fmt.Sprintf("forged SYNs to %s as fast as one core sends", f.to)
	}
	return fmt.Sprintf("forged SYNs to %s at %d a second", f.to, f.rate)
}

// lastsEnv is how long each flood is measured, such as "10s"; two seconds
// unless it says so. What a guard needs to look at what has come is added.
const lastsEnv = "NFTSENTRY_BENCH_FLOOD"

const (
	visitEvery = 100 * time.Millisecond // of a client that does nothing wrong
	giveUp     = 3 * time.Second        // of that client
	stranger4  = "10.8.2.2"             // behind the router as well; has done nothing
)

// TestBenchFlood floods hosts with forged SYNs while a client and a scanner
// come by, and has a forger try to get hosts blocked that have done nothing.
// All of it begins anew, tool and network, for each flood.
func TestBenchFlood(t *testing.T) {
	lasts, err := time.ParseDuration(cmp.Or(os.Getenv(lastsEnv), "2s"))
	if err != nil || lasts < time.Second || lasts > 30*time.Second {
		t.Fatalf("%s: want 1s up to 30s, got %q", lastsEnv, os.Getenv(lastsEnv))
	}
	r := record(t, "flood")
	var watchful []guard
	each(t, all(), func(t *testing.T, g guard) {
		if benchFramed(t, r, g) {
			watchful = append(watchful, g)
		}
	})
	for round := range slices.MaxFunc(floods, func(a, b flood) int { return a.rounds - b.rounds }).rounds {
		if round == 1 {
			watchful = slices.DeleteFunc(watchful, func(g guard) bool { return g.lag > 0 })
		}
		for _, f := range floods {
			if round < f.rounds {
				t.Run(f.String(), func(t *testing.T) {
					each(t, watchful, func(t *testing.T, g guard) { benchFlood(t, r, g, f, lasts) })
				})
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
	pids  []int // of the tool, helpers and all
	used  *account
	lasts time.Duration
}

func benchFlood(t *testing.T, r *recorder, g guard, f flood, lasts time.Duration) {
	t.Helper()
	s := &siege{world: newWorld(t), t: t, r: r, flood: f, guard: g, used: openAccount(t), lasts: lasts + g.lag}
	forsake(t, s.router)
	echo(t, s.server, 80)
	s.tool = g.start(t, s.server)
	s.pids = inhabitants(t, s.server)
	s.used.join(t, s.pids)
	s.client.Addr(t, "eth0", stranger4+"/16")
	if ok, _ := s.reaches(client4); !ok { // the neighbours know each other from now on
		t.Fatal("no answer before the flood")
	}
	s.run()
	blocked := refused(t, s.server)
	s.add("third host is blocked in it", "", one(blocked[netip.MustParseAddr(stranger4)]))
	maps.DeleteFunc(blocked, func(a netip.Addr, _ bool) bool { return !forged.Contains(a) })
	s.add("forged sources blocked", "", float64(len(blocked)))
}

// one is 1 for what is true.
func one(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// forsake has the router lose what is sent to forged sources, as a network
// does that is not there. It would answer that there is none, otherwise.
func forsake(t testing.TB, router *netns.Host) {
	t.Helper()
	router.Output(t, netns.Tool(t, "ip"), "route", "add", "blackhole", forged.String())
}

// echo serves a port until the test ends: what comes goes back.
func echo(t testing.TB, host *netns.Host, port int) {
	t.Helper()
	l, err := host.Listen("tcp", ":"+strconv.Itoa(port))
	if err != nil {
		t.Fatal(err)
	}
	context.AfterFunc(t.Context(), func() { _ = l.Close() })
	var all errgroup.Group
	all.Go(func() error {
		for {
			conn, err := l.Accept()
			if err != nil {
				return nil // it is closed
			}
			all.Go(func() error {
				defer context.AfterFunc(t.Context(), func() { _ = conn.Close() })()
				_, _ = io.Copy(conn, conn)
				return conn.Close()
			})
		}
	})
	t.Cleanup(func() { _ = all.Wait() })
}

func (s *siege) add(measure, unit string, values ...float64) {
	s.t.Helper()
	s.r.add(s.flood.String(), s.guard.name, measure, unit, values...)
}

// run floods the host. What the tool uses is measured first, with the client
// alone. After that, and into the same flood, the forger takes the name of a
// third host, and a scanner comes.
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
	frame(s.t, packet.Open(s.t, s.router), stranger4, s.tool)
	s.scan()
	stop()
	if err := all.Wait(); err != nil {
		s.t.Fatal(err)
	}
	rate := float64(sent) / flowed.Seconds()
	if rate < float64(cmp.Or(s.flood.rate, 10_000))/2 {
		s.t.Errorf("%.0f packets a second are no flood", rate)
	}
	s.add("sent", "packets/s", rate)
}

// measure takes what the tool and the machine use, and what the client sees.
func (s *siege) measure() {
	s.t.Helper()
	var client errgroup.Group
	var took []time.Duration
	failed := 0
	client.Go(func() error {
		took, failed = s.visit()
		return nil
	})
	began, cpu, machine, tracked := time.Now(), s.used.cpu(s.t), busy(s.t), 0
	var most usage
	for time.Since(began) < s.lasts {
		now := s.used.usage(s.t)
		most.rss, most.processes = max(most.rss, now.rss), max(most.processes, now.processes)
		tracked = max(tracked, connections(s.t, s.server))
		time.Sleep(50 * time.Millisecond)
	}
	share := func(d time.Duration) float64 { return 100 * d.Seconds() / time.Since(began).Seconds() }
	if len(s.pids) > 0 {
		s.add("CPU", "% of a core", share(s.used.cpu(s.t)-cpu))
		s.add("memory, most", "MiB", float64(most.rss)/(1<<20))
		s.add("processes, most", "", float64(most.processes))
	}
	s.add("CPU of the machine, forger and all", "% of a core", share(busy(s.t)-machine))
	s.add("connections tracked, most", "", float64(tracked))
	_ = client.Wait()
	s.add("client gets through", "%", 100*float64(len(took)-failed)/float64(len(took)))
	for _, d := range took {
		s.add("client connects in", "ms", milliseconds(d))
	}
}

// visit has the client connect again and again. It returns how long it took
// each time, and how many of these gave up at last.
func (s *siege) visit() (took []time.Duration, failed int) {
	took = make([]time.Duration, s.lasts/visitEvery)
	ok := make([]bool, len(took))
	var all errgroup.Group
	for i := range took {
		all.Go(func() error {
			ok[i], took[i] = s.reaches(client4)
			return nil
		})
		time.Sleep(visitEvery)
	}
	_ = all.Wait()
	for _, ok := range ok {
		failed += int(one(!ok))
	}
	return took, failed
}

// reaches connects to the service from an address of the client, and reports
// how long that took.
func (w *world) reaches(from string) (ok bool, took time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), giveUp)
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
// and again until it is blocked. It is too late six seconds after the tool has
// looked at what has come.
func (s *siege) scan() {
	s.t.Helper()
	ports := s.tool.ports
	if len(ports) == 0 {
		ports = s.tool.closed
	}
	if len(ports) == 0 {
		return
	}
	scanner := netip.MustParseAddr("10.8.1.2")
	s.client.Addr(s.t, "eth0", scanner.String()+"/16")
	began := time.Now()
	blocked := false
	for !blocked && time.Since(began) < 6*time.Second+s.guard.lag {
		for _, port := range ports {
			s.touch(scanner, port)
		}
		blocked = refused(s.t, s.server)[scanner]
	}
	s.add("scanner is blocked meanwhile", "", one(blocked))
	if blocked {
		s.add("scanner is blocked after", "ms", milliseconds(time.Since(began)))
	}
}

// touch connects to a port, if that takes no longer than 100 ms.
func (s *siege) touch(scanner netip.Addr, port uint16) {
	ctx, cancel := context.WithTimeout(s.t.Context(), 100*time.Millisecond)
	defer cancel()
	conn, err := s.client.Dial(ctx, "tcp", net.JoinHostPort(server4, strconv.Itoa(int(port))), scanner.String())
	if err == nil {
		_ = conn.Close()
	}
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
