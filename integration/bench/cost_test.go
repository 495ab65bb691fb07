//go:build bench

package bench

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nftsentry/integration/bench/figure"
	"nftsentry/integration/netns"
)

// How the cost is measured: one thread on one CPU has the sockets of both
// ends. A veth pair delivers in the softirq of the sender, so that each system
// call returns with its packets processed. Short batches on the floor and on
// the guarded host take turns in random order, and what else the machine does
// hits both alike. The figure of a round is the median of its batches.
const (
	costRound  = 150 * time.Millisecond
	costRounds = 3 // with each of two pairs of hosts, of which the guarded one is now the first and now the second
	costCPU    = 1
)

// A floor is a host without a guard, and the numbers of blocks to compare with.
type floor struct {
	guard
	blocks []int
}

var floors = []floor{{unguarded, []int{0, 1000, 60_000}}, {plainFirewall, []int{0, 60_000}}}

// plainFirewall is what most hosts have, besides a guard or without one.
var plainFirewall = guard{
	name: "plain firewall", needs: []string{"nft"}, version: unguarded.version,
	start: func(t testing.TB, host *netns.Host) *running {
		t.Helper()
		feed(t, host, plainRules, netns.Tool(t, "nft"), "-f", "-")
		return &running{}
	},
}

const plainRules = `table inet fw {
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

// TestBenchCost measures what each tool costs the honest, beside an empty
// ruleset and beside a plain firewall: a bulk TCP stream, new connections, and
// round trips on an open connection. Each floor is also compared with a copy of
// itself, which shows the noise.
func TestBenchCost(t *testing.T) {
	r := record(t, "cost")
	for _, fl := range floors {
		t.Run(fl.name, func(t *testing.T) {
			guards := append([]guard{fl.guard}, all()[1:]...)
			each(t, guards, func(t *testing.T, g guard) { fl.compare(t, r, g) })
		})
	}
}

// compare has a guard beside the floor.
func (fl floor) compare(t *testing.T, r *recorder, g guard) {
	for at := range 2 {
		t.Run(fmt.Sprint("lane ", at), func(t *testing.T) {
			ls := newLanes(t, fl, g, at)
			held := 0
			for _, blocks := range fl.blocks {
				if blocks > held && ls.guard.block == nil {
					return
				}
				if blocks > held {
					ls.guard.block(t, held, blocks)
					held = blocks
				}
				kase := fmt.Sprintf("%s, %s blocks", fl.name, figure.Number(float64(blocks)))
				for range costRounds {
					ls.measure(t, func(tool, measure, unit string, v float64) { r.add(kase, tool, measure, unit, v) })
				}
			}
		})
	}
}

// newLanes makes a client and two hosts, of which one has the guard.
func newLanes(t *testing.T, fl floor, g guard, guarded int) *lanes {
	t.Helper()
	ls := &lanes{client: netns.New(t, "client"), names: [2]string{fl.name, g.name}}
	ls.client.Sysctl(t, "net.ipv4.tcp_max_tw_buckets", "16")
	ls.client.Sysctl(t, "net.ipv4.ip_local_port_range", "10000 65000")
	first, second := newLane(t, ls.client, 0), newLane(t, ls.client, 1)
	ls.both = [2]*lane{first, second}
	if guarded == 0 {
		ls.both = [2]*lane{second, first}
	}
	fl.start(t, ls.both[0].host)
	if g.name != fl.name && g.name != psad.name { // psad comes with such rules
		fl.start(t, ls.both[1].host)
	}
	ls.guard = g.start(t, ls.both[1].host)
	if exists("/proc/sys/net/netfilter") { // connections are tracked, and not to be remembered from round to round
		first.host.Sysctl(t, "net.netfilter.nf_conntrack_tcp_timeout_time_wait", "2")
		second.host.Sysctl(t, "net.netfilter.nf_conntrack_tcp_timeout_time_wait", "2")
	}
	ls.client.Do(t, func() {
		for _, l := range ls.both {
			if err := l.open(); err != nil {
				t.Fatal(err)
			}
		}
	})
	t.Cleanup(ls.close)
	return ls
}

// lanes are two servers side by side.
type lanes struct {
	client *netns.Host
	both   [2]*lane // the floor's and the guard's
	names  [2]string
	guard  *running
}

func (ls *lanes) close() {
	for _, l := range ls.both {
		for _, fd := range []int{l.near, l.far, l.listener} {
			_ = unix.Close(fd)
		}
	}
}

// segments sets how many packets of a stream the client hands to the links at
// once. Interfaces that gather what they receive make such large packets too.
func (ls *lanes) segments(t *testing.T, most int) {
	t.Helper()
	for i := range ls.both {
		ls.client.Output(t, netns.Tool(t, "ip"), "link", "set", laneLink(i), "gso_max_segs", fmt.Sprint(most))
	}
}

// measure does a round of each kind of traffic.
func (ls *lanes) measure(t *testing.T, add func(tool, measure, unit string, v float64)) {
	t.Helper()
	more := func(measure string, took [2][]float64) {
		t.Helper()
		add(ls.names[1], measure+", time more than the floor", "%", 100*(median(took[1])/median(took[0])-1))
	}
	const gigabit = 8 * lanePiece // bits in a nanosecond are gigabits in a second
	for _, kind := range []struct {
		name string
		most int
	}{{"bulk stream", 65535}, {"bulk stream in single packets", 1}} {
		ls.segments(t, kind.most)
		took := ls.round(t, (*lane).bulk)
		for i, name := range ls.names {
			add(name, kind.name, "Gbit/s", gigabit/median(took[i]))
		}
		more(kind.name, took)
	}
	ls.segments(t, 65535)
	took := ls.round(t, (*lane).connects)
	for i, name := range ls.names {
		add(name, "new connections", "/s", 1e9/median(took[i]))
	}
	more("new connections", took)
	took = ls.round(t, (*lane).roundTrips)
	for i, name := range ls.names {
		add(name, "round trip", "µs", median(took[i])/1e3)
		add(name, "round trip, 95 %", "µs", figure.Quantile(took[i], 0.95)/1e3)
		add(name, "round trip, 99 %", "µs", figure.Quantile(took[i], 0.99)/1e3)
	}
	more("round trip", took)
}

func median(of []float64) float64 { return figure.Quantile(of, 0.5) }

// round runs batches on both lanes in turns, and returns how long the pieces of
// each have taken, in nanoseconds.
func (ls *lanes) round(t *testing.T, batch func(*lane) ([]float64, error)) (took [2][]float64) {
	t.Helper()
	ls.client.Do(t, func() {
		defer pin(t)()
		for end := time.Now().Add(costRound); time.Now().Before(end); {
			first := rand.IntN(2)
			for _, i := range []int{first, 1 - first} {
				pieces, err := batch(ls.both[i])
				if err != nil {
					t.Fatalf("%s: %v", ls.names[i], err)
				}
				took[i] = append(took[i], pieces...)
			}
		}
	})
	return took
}

// pin keeps the calling thread on one CPU until the returned function is called.
func pin(t testing.TB) func() {
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
