package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/nftables"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"nftsentry/controller/api"
	"nftsentry/integration/netns"
	"nftsentry/integration/packet"
	"nftsentry/state"
)

// The tests of resilience run at a size that fits CI, and by "make soak" at
// full size, without the race detector, where their bounds are those of the
// design. Elsewhere the bounds are four times as wide.
var soak = os.Getenv("NFTSENTRY_SOAK") != ""

// sized is a number in CI, and in a soak.
func sized[T any](ci, full T) T {
	if soak {
		return full
	}
	return ci
}

// bound is how long something may take that has a bar at full size.
func bound(bar time.Duration) time.Duration {
	if soak && !raceEnabled {
		return bar
	}
	return 4 * bar * slowness
}

// told logs what was measured.
func told(t *testing.T, what string, took []time.Duration) {
	t.Helper()
	slices.Sort(took)
	at := func(q float64) time.Duration {
		return took[min(len(took)-1, int(q*float64(len(took))))].Round(100 * time.Microsecond)
	}
	t.Logf("%s: n %d, p50 %v, p99 %v, max %v", what, len(took), at(.5), at(.99), at(1))
}

// strangers are blocks of n hosts that nobody has, of one family, which began
// five minutes ago. All are proven.
func strangers(n int, v6 bool, until func(i int) time.Time) []state.Block {
	since := time.Now().Add(-5 * time.Minute)
	all := make([]state.Block, n)
	for i := range all {
		a := netip.AddrFrom4([4]byte{100, 64 + byte(i>>16), byte(i >> 8), byte(i)})
		source := netip.PrefixFrom(a, 32)
		if v6 {
			a = netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 0x40, byte(i >> 16), byte(i >> 8), byte(i), 15: 1})
			source = netip.PrefixFrom(a, 64).Masked()
		}
		all[i] = state.Block{
			Source: source, Address: a, Since: since, Until: until(i), Port: 23, Protocol: "tcp", Kind: "connect",
			Evidence: "proven", Origin: state.OriginDecoy, Comment: "tcp/23 connect",
		}
	}
	return all
}

// hence is an end for all blocks.
func hence(d time.Duration) func(int) time.Time {
	at := time.Now().Add(d)
	return func(int) time.Time { return at }
}

// remember writes blocks to the state folder, as an earlier daemon has left
// them there.
func (p *program) remember(blocks ...state.Block) {
	p.t.Helper()
	store, err := state.Open(p.state(""), zap.NewNop())
	if err != nil {
		p.t.Fatal(err)
	}
	for _, b := range blocks {
		store.Save(b, nil)
	}
	ended, end := context.WithCancel(p.t.Context())
	end()
	if err := store.Run(ended); err != nil {
		p.t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		p.t.Fatal(err)
	}
}

// recorded reads the store that a daemon has left.
func (p *program) recorded() []string {
	p.t.Helper()
	store, err := state.Open(p.state(""), zap.NewNop())
	if err != nil {
		p.t.Fatal(err)
	}
	defer store.Close()
	live, err := store.Live()
	if err != nil {
		p.t.Fatal(err)
	}
	all := []string{}
	for _, b := range live {
		all = append(all, api.Display(b.Source))
	}
	slices.Sort(all)
	return all
}

// ask is a client as the commands have one, without a process for each.
func (p *program) ask() *api.Client { return api.NewClient(p.dir + "/sock") }

// health is status without a process.
func (d *daemon) health() api.Status {
	d.t.Helper()
	s, err := d.ask().Status(d.t.Context())
	if err != nil {
		d.t.Fatal(err)
	}
	return s
}

// live is list without a process, by the key in the kernel.
func (d *daemon) live() map[netip.Addr]api.Block {
	d.t.Helper()
	list, err := d.ask().List(d.t.Context())
	if err != nil {
		d.t.Fatal(err)
	}
	all := make(map[netip.Addr]api.Block, len(list))
	for _, b := range list {
		source, err := api.ParseSource(b.Source)
		if err != nil {
			d.t.Fatal(err)
		}
		all[source.Addr()] = b
	}
	if len(all) != len(list) {
		d.t.Errorf("%d of %d listed sources are listed twice", len(list)-len(all), len(list))
	}
	return all
}

// said is how many lines of the log have a message.
func (d *daemon) said(message string) int {
	return strings.Count(d.log.String(), `"msg":"`+message)
}

// logged are the lines of the log as fields. The last one may still be on its
// way.
func (d *daemon) logged() []map[string]any {
	d.t.Helper()
	var all []map[string]any
	for line := range strings.Lines(d.log.String()) {
		if !strings.HasSuffix(line, "\n") {
			break
		}
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			d.t.Fatalf("log line %q: %v", line, err)
		}
		all = append(all, fields)
	}
	return all
}

// ruler is a connection to nftables on a host, without the code under test.
func ruler(t *testing.T, host *netns.Host) *nftables.Conn {
	t.Helper()
	conn, err := nftables.New(nftables.WithNetNSFd(host.FD()))
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// ours is our table.
var ours = &nftables.Table{Name: "nftsentry", Family: nftables.TableFamilyINet}

// hostSet is a set of our table.
func hostSet(name string) *nftables.Set {
	key := nftables.TypeIPAddr
	if strings.HasSuffix(name, "6") {
		key = nftables.TypeIP6Addr
	}
	return &nftables.Set{Table: ours, Name: name, KeyType: key, HasTimeout: true, Interval: strings.HasPrefix(name, "nets")}
}

// held is what the kernel has in sets of our table, and how long each element
// has left. A set that is being resized tells of some elements twice.
func held(t *testing.T, host *netns.Host, sets ...string) map[netip.Addr]time.Duration {
	t.Helper()
	conn, all := ruler(t, host), make(map[netip.Addr]time.Duration)
	for _, name := range sets {
		elems, err := conn.GetSetElements(hostSet(name))
		if err != nil {
			t.Fatalf("list set %s: %v", name, err)
		}
		for _, e := range elems {
			if key, ok := netip.AddrFromSlice(e.Key); ok && !e.IntervalEnd {
				all[key] = e.Expires
			}
		}
	}
	return all
}

// complete waits until the kernel has so many hosts, as a set that is being
// resized may leave some out when it is read.
func complete(t *testing.T, host *netns.Host, want int, sets ...string) {
	t.Helper()
	got := 0
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if got = len(held(t, host, sets...)); got == want {
			return
		}
	}
	t.Errorf("the kernel has %d elements in %v, want %d", got, sets, want)
}

// An ear counts the answers that reach a host: SYN-ACKs and resets.
type ear struct {
	heard atomic.Int64
	last  atomic.Int64 // when the last one came, in nanoseconds since 1970
}

// overhear listens at the IPv4 and IPv6 addresses of the client.
func overhear(t *testing.T, w *world) *ear {
	t.Helper()
	e := &ear{}
	for network, address := range map[string]string{"ip4:tcp": client4, "ip6:tcp": client6} {
		conn, err := w.client.ListenPacket(network, address)
		if err != nil {
			t.Fatal(err)
		}
		var g errgroup.Group
		g.Go(func() error {
			buf := make([]byte, 2048)
			for {
				n, _, err := conn.ReadFrom(buf)
				if err != nil {
					return nil
				}
				const flags = 13 // RFC 9293, 3.1
				if n > flags && (packet.Flags(buf[flags])&packet.RST != 0 || packet.Flags(buf[flags])&(packet.SYN|packet.ACK) == packet.SYN|packet.ACK) {
					e.last.Store(time.Now().UnixNano())
					e.heard.Add(1)
				}
			}
		})
		t.Cleanup(func() { _ = conn.Close(); _ = g.Wait() })
	}
	return e
}

// insist has the client send SYNs to the web server, so many a second of each
// family or, for 0, as many as it can of IPv4, until stop is called.
func (w *world) insist(t *testing.T, rate int) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var g errgroup.Group
	for server, client := range map[string]string{server4: client4, server6: client6} {
		cfg := packet.FloodConfig{Target: netip.MustParseAddr(server), Ports: []uint16{80}, Rate: rate, Limit: time.Hour}
		cfg.Sources = netip.PrefixFrom(netip.MustParseAddr(client), cfg.Target.BitLen())
		if rate == 0 && cfg.Target.Is6() {
			cfg.Rate = 1000
		}
		g.Go(func() error {
			_, err := packet.Flood(ctx, w.client, cfg)
			return err
		})
	}
	stop = func() {
		t.Helper()
		cancel()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return stop
}

// ofProcess is a field of /proc/PID/status, as a number.
func (d *daemon) ofProcess(field string) int {
	d.t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	if err != nil {
		d.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), "\n"+field+":")
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		d.t.Fatal(err)
	}
	return n
}

// peak is the most memory that the daemon ever had resident.
func (d *daemon) peak() (mib float64) { return float64(d.ofProcess("VmHWM")) / 1024 }

// busy is how much processor time the daemon has used: utime and stime of
// proc_pid_stat(5), in hundredths of a second.
func (d *daemon) busy() time.Duration {
	d.t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", d.cmd.Process.Pid))
	if err != nil {
		d.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), ") ")
	fields := strings.Fields(rest)
	user, err1 := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	if err1 != nil || err2 != nil {
		d.t.Fatal(err1, err2)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}

// descriptors is how many files the daemon has open.
func (d *daemon) descriptors() int {
	d.t.Helper()
	all, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.cmd.Process.Pid))
	if err != nil {
		d.t.Fatal(err)
	}
	return len(all)
}
