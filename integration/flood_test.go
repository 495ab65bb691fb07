package integration

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"nftsentry/integration/netns"
	"nftsentry/integration/packet"
	"nftsentry/listener"
)

// Sources that nobody has, as many as a flood needs.
var (
	forged  = netip.MustParsePrefix("64.0.0.0/4")
	forged6 = netip.MustParsePrefix("2001:db8:4000::/34")
)

// Ports of the default configuration that are watched, and that are decoys.
var (
	watchedPorts = []uint16{2, 3, 4, 5, 6, 7, 8, 9, 200, 201, 202, 203, 700, 701, 702, 1000}
	decoyPorts   = []uint16{1, 11, 15, 23, 79, 111, 119, 540, 1080, 2323, 31337, 54320}
)

// A siege is a guarded server under a flood of one kind.
type siege struct {
	*world
	*daemon
	name  string
	table int    // size of the connection table that the daemon sees
	chain string // that has the protection
	cfg   packet.FloodConfig
	send  func(context.Context, *testing.T, *netns.Host, packet.FloodConfig) error
}

// besiege makes ready for one flood of each kind, by IPv4 against a host as
// this machine is, and by IPv6 against one with a small connection table.
func besiege(t *testing.T) []*siege {
	t.Helper()
	var all []*siege
	for _, to := range []struct {
		name, target string
		sources      netip.Prefix
		table        int
	}{{"IPv4", server4, forged, 0}, {"IPv6, small table", server6, forged6, 8192}} {
		cfg := packet.FloodConfig{Target: netip.MustParseAddr(to.target), Sources: to.sources}
		watched, decoys := cfg, cfg
		watched.Ports, decoys.Ports = watchedPorts, decoyPorts
		all = append(all,
			&siege{name: "watched, " + to.name, chain: "notice", cfg: watched, send: synFlood},
			&siege{name: "decoys, " + to.name, chain: "divert", cfg: decoys, send: synFlood},
			&siege{name: "UDP, " + to.name, chain: "notice", cfg: watched, send: udpFlood},
		)
		for _, s := range all[len(all)-3:] {
			s.world = newWorld(t)
			keepResets(t, s.server)
			if to.table > 0 {
				smallTable(t, s.server, to.table)
			}
			s.daemon = guard(t, s.server, `udp.watch = "1-1024"`)
			s.table = tracked(t, s.server, "nf_conntrack_max")
		}
	}
	return all
}

func synFlood(ctx context.Context, _ *testing.T, from *netns.Host, cfg packet.FloodConfig) error {
	_, err := packet.Flood(ctx, from, cfg)
	return err
}

// udpFlood is packet.Flood by UDP. It is not as fast.
func udpFlood(ctx context.Context, t *testing.T, from *netns.Host, cfg packet.FloodConfig) error {
	t.Helper()
	sender := packet.Open(t, from)
	for i := uint64(0); ctx.Err() == nil; i++ {
		p := cfg.Packet(i)
		sender.Send(t, packet.UDP{Source: p.Source, Target: p.Target}.Bytes())
	}
	return nil
}

// tracked is a number that connection tracking shows on a host: nf_conntrack_count or nf_conntrack_max.
func tracked(t testing.TB, host *netns.Host, what string) int {
	t.Helper()
	var data []byte
	host.Do(t, func() {
		var err error
		if data, err = os.ReadFile("/proc/sys/net/netfilter/" + what); err != nil {
			t.Fatal(err)
		}
	})
	n, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// smallTable has a host see a connection table of another size. The true one
// belongs to the whole machine.
func smallTable(t *testing.T, host *netns.Host, most int) {
	t.Helper()
	const path = "/proc/sys/net/netfilter/nf_conntrack_max" // a file of its own in each namespace
	file := filepath.Join(t.TempDir(), "max")
	if err := os.WriteFile(file, []byte(strconv.Itoa(most)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	host.Do(t, func() {
		if err := unix.Mount(file, path, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() {
		host.Do(t, func() {
			if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		})
	})
}

// unprotect takes the rules out of a chain that keep a flood out of
// connection tracking.
func unprotect(t testing.TB, host *netns.Host, chain string) {
	t.Helper()
	nft := netns.Tool(t, "nft")
	rules := regexp.MustCompile(`(?m)^\s+(?:limit rate over .*"flooded"|.*ct timeout set).* # handle (\d+)$`)
	found := rules.FindAllStringSubmatch(host.Output(t, nft, "-a", "list", "chain", "inet", "nftsentry", chain), -1)
	if len(found) < 2 {
		t.Fatalf("chain %s has %d rules of protection", chain, len(found))
	}
	for _, m := range found {
		host.Output(t, nft, "delete", "rule", "inet", "nftsentry", chain, "handle", m[1])
	}
}

// TestConnectionTableStaysFree floods servers in all ways at once, each on a
// world of its own, and then again without the protection.
func TestConnectionTableStaysFree(t *testing.T) {
	all := besiege(t)
	for i, peak := range underSiege(t, all, 5*time.Second) {
		s := all[i]
		t.Logf("%s: at most %d connections are tracked, %.1f %%", s.name, peak, 100*float64(peak)/float64(s.table))
		if peak >= s.table/4 || peak < s.table/256 {
			t.Errorf("%s: %d connections are tracked, want fewer than a quarter of %d, and some", s.name, peak, s.table)
		}
	}
	for _, s := range all {
		s.pause(t) // or it would put them back
		unprotect(t, s.server, s.chain)
	}
	for i, peak := range underSiege(t, all, patience) {
		if s := all[i]; peak < s.table/4 {
			t.Errorf("%s: %d connections are tracked without the protection, which proves nothing", s.name, peak)
		}
	}
}

// keepResets has a host refuse connections in silence. With a reset, or with
// any rule against it that comes later, connection tracking forgets the
// connection at once, and a flood of closed ports leaves no trace.
func keepResets(t *testing.T, host *netns.Host) {
	t.Helper()
	nft := netns.Tool(t, "nft")
	host.Output(t, nft, "add table inet silent")
	host.Output(t, nft, "add chain inet silent output { type filter hook output priority raw; }")
	host.Output(t, nft, "add rule inet silent output tcp flags & rst == rst drop")
}

// underSiege floods all at once, and returns how many connections each of
// them has tracked at the most. A flood ends when the table is full to a quarter.
func underSiege(t *testing.T, all []*siege, lasts time.Duration) []int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), lasts)
	defer cancel()
	peaks := make([]int, len(all))
	var g errgroup.Group
	for i, s := range all {
		ctx, enough := context.WithCancel(ctx)
		g.Go(func() error { return s.send(ctx, t, s.router, s.cfg) })
		g.Go(func() error {
			defer enough()
			for ; ctx.Err() == nil && peaks[i] < s.table/4; time.Sleep(20 * time.Millisecond) {
				peaks[i] = max(peaks[i], tracked(t, s.server, "nf_conntrack_count"))
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	return peaks
}

// knock sends SYNs to ports of the server in the name of a source.
func knock(t *testing.T, from *packet.Sender, source string, ports ...uint16) {
	t.Helper()
	for i, port := range ports {
		from.Send(t, packet.TCP{
			Source: netip.AddrPortFrom(netip.MustParseAddr(source), 40000+uint16(i)),
			Target: netip.AddrPortFrom(netip.MustParseAddr(server4), port), Flags: packet.SYN,
		}.Bytes())
	}
}

// fill fills a set of the table with elements that do not matter, in pieces
// that nft(8) can send.
func fill(t *testing.T, host *netns.Host, set, lasts string) {
	t.Helper()
	nft := netns.Tool(t, "nft")
	file := filepath.Join(t.TempDir(), "full.nft")
	for high := 0; high < 256; high += 4 {
		var b strings.Builder
		for i := range 4 * 256 {
			key := netip.AddrFrom4([4]byte{100, 64, byte(high + i>>8), byte(i)}).String()
			if strings.HasPrefix(set, "probes") {
				key += " . tcp . 9"
			}
			fmt.Fprintf(&b, "%s timeout %s,", key, lasts)
		}
		if err := os.WriteFile(file, fmt.Appendf(nil, "add element inet nftsentry %s { %s }", set, b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		host.Output(t, nft, "-f", file)
	}
}

const (
	notTrusted   = "unproven evidence is not trusted for now"
	trustedAgain = "unproven evidence is trusted again"
)

// TestFullSets has no room left in the kernel for more evidence. Nothing that
// can be forged makes a block then; a decoy does.
func TestFullSets(t *testing.T) {
	w := newWorld(t)
	d := guard(t, w.server, "")
	sender := packet.Open(t, w.router)
	var crowded time.Time // when there was no room for the last time, or later
	for i, set := range []string{"probes4", "suspects4"} {
		crowded = underFullSet(t, w, d, sender, i, set)
	}
	d.must("unblock", "--all")
	knock(t, sender, "10.7.8.3", 7, 8, 9) // the kernel trusts again as soon as there is room
	if b := d.listed(); b.Source != "10.7.8.3" || b.Evidence != "unproven" {
		t.Errorf("with room again: listed as %+v", b)
	}
	eventually(t, "it is trusted again", patience, func() bool { return d.said(notTrusted) == d.said(trustedAgain) })
	if took := time.Since(crowded); took < 8*time.Second {
		t.Errorf("trusted again after %v, want ten seconds of calm", took)
	}
	if got := d.said(notTrusted); got > 2 { // ten seconds may go by before the second set is full
		t.Errorf("said %d times that evidence is not trusted, want once or, on a slow machine, twice", got)
	}
	if s := d.status(); len(s.Problems) != 0 {
		t.Errorf("problems %q, want none any more", s.Problems)
	}
}

// underFullSet floods a host of which one set is full, for as long as it takes
// the kernel to say so twice, and returns when the flood was about to end. The
// i-th set has sources of its own.
func underFullSet(t *testing.T, w *world, d *daemon, sender *packet.Sender, i int, set string) (until time.Time) {
	t.Helper()
	fill(t, w.server, set, "10m")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var flood errgroup.Group
	flood.Go(func() error {
		_, err := packet.Flood(ctx, w.router, packet.FloodConfig{
			Target: netip.MustParseAddr(server4), Ports: watchedPorts, Sources: forged, Repeat: 3, Rate: 1000, Seed: uint64(i)})
		return err
	})
	began := time.Now()
	honest, scanner := fmt.Sprintf("10.7.%d.2", i), fmt.Sprintf("10.7.%d.3", i)
	knock(t, sender, honest, 7, 7, 7, 7, 7, 7)
	knock(t, sender, scanner, watchedPorts...)
	eventually(t, "the set is known to be full", patience, func() bool { return d.said(notTrusted) > d.said(trustedAgain) })
	if s := d.status(); len(s.Problems) != 1 || !strings.Contains(s.Problems[0], "a set of the kernel is full") || s.Watched.Crowded == 0 {
		t.Errorf("%s is full: %d probes not counted, problems %q, want one", set, s.Watched.Crowded, s.Problems)
	}
	expectProven(t, w, d, fmt.Sprintf("10.8.0.%d", 10+i))
	time.Sleep(time.Until(began.Add(1200 * time.Millisecond)))
	until = time.Now()
	cancel()
	if err := flood.Wait(); err != nil {
		t.Fatal(err)
	}
	if got := d.sources(); len(got) != i+1 {
		t.Errorf("%s is full: blocked %v, want who was at a decoy", set, got)
	}
	w.server.Output(t, netns.Tool(t, "nft"), "flush", "set", "inet", "nftsentry", set)
	return until
}

// expectProven has a new address of the client connect to a decoy, and be
// blocked and listed within a second, or a few on a busy machine.
func expectProven(t *testing.T, w *world, d *daemon, address string) {
	t.Helper()
	w.client.Addr(t, "eth0", address+"/24")
	began := time.Now()
	_, _ = touch(w.client, address, server4, 23)
	eventually(t, address+" is blocked", time.Until(began.Add(bound(time.Second))), func() bool {
		return strings.Contains(d.nftSet("blocked4"), address+" timeout")
	})
	eventually(t, address+" is listed", patience, func() bool { return slices.Contains(d.sources(), address) })
}

// TestBudget has forged sources reach the trigger, more than the budget has
// blocks for.
func TestBudget(t *testing.T) {
	const sources, budget = 50, 5
	for _, ports := range []int{1, 3} {
		t.Run(fmt.Sprintf("trigger.ports %d", ports), func(t *testing.T) {
			w := newWorld(t)
			d := guard(t, w.server, fmt.Sprintf("trigger.budget = \"%d/m\"\ntrigger.ports = %d", budget, ports))
			_, err := packet.Flood(t.Context(), w.router, packet.FloodConfig{
				Target: netip.MustParseAddr(server4), Ports: watchedPorts[:12], Sources: netip.MustParsePrefix("10.7.0.0/24"),
				Repeat: uint64(ports), Count: uint64(sources * ports)})
			if err != nil {
				t.Fatal(err)
			}
			eventually(t, "all probes are counted", patience, func() bool {
				s := d.status()
				return s.Watched.BudgetSpent == sources-budget && s.Blocks.Live == budget
			})
			if got := d.status().Problems; len(got) != 1 || !strings.Contains(got[0], "trigger.budget is spent") {
				t.Errorf("problems %q, want that the budget is spent", got)
			}
			if log := d.log.String(); strings.Count(log, notTrusted) != 1 || !strings.Contains(log, "trigger.budget is spent") {
				t.Error("want one warning that the budget is spent")
			}
			expectProven(t, w, d, "10.8.0.10")
			if got := len(d.list()); got != budget+1 {
				t.Errorf("%d blocked, want %d unproven and one proven", got, budget)
			}
		})
	}
}

// TestStalled stops the daemon while sources are blocked by the kernel, with
// and without room for the messages about it. None of them is lost.
func TestStalled(t *testing.T) {
	const sources = 20
	for _, overrun := range []bool{false, true} {
		t.Run(fmt.Sprintf("overrun %t", overrun), func(t *testing.T) {
			w := newWorld(t)
			d := guard(t, w.server, "")
			if err := d.cmd.Process.Signal(unix.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			if overrun {
				overwhelm(t, w)
			}
			sender := packet.Open(t, w.router)
			for i := range sources {
				knock(t, sender, fmt.Sprintf("10.7.0.%d", i+1), 7, 8, 9)
			}
			if got := strings.Count(d.nftSet("blocked4"), "10.7.0."); got != sources {
				t.Fatalf("the kernel has blocked %d, want %d", got, sources)
			}
			if err := d.cmd.Process.Signal(unix.SIGCONT); err != nil {
				t.Fatal(err)
			}
			eventually(t, "all are listed", patience, func() bool { return len(d.list()) == sources })
			for _, b := range d.list() {
				if b.Evidence != "unproven" || b.Origin != "kernel" || b.Comment == "" || b.Until.Sub(b.Since).Round(2*time.Second) != 10*time.Minute {
					t.Errorf("listed as %+v", b)
				}
			}
			eventually(t, "the file has all", patience, func() bool {
				return strings.Count(d.file("portsentry.blocked.tcp"), "Host: 10.7.0.") == sources
			})
			if s := d.status(); (s.Watched.Overruns > 0) != overrun {
				t.Errorf("%d overruns, want some: %t", s.Watched.Overruns, overrun)
			}
		})
	}
}

// overwhelm has the kernel tell of more probes than there is room for.
func overwhelm(t *testing.T, w *world) {
	t.Helper()
	unprotect(t, w.server, "notice")
	_, err := packet.Flood(t.Context(), w.router, packet.FloodConfig{
		Target: netip.MustParseAddr(server4), Ports: watchedPorts, Sources: forged, Count: 60_000})
	if err != nil {
		t.Fatal(err)
	}
}

// TestGroupTaken has another program read the group in which the kernel tells
// of probes.
func TestGroupTaken(t *testing.T) {
	host := netns.New(t, "host")
	host.Do(t, func() {
		other, err := listener.OpenNFLOG(61999, zap.NewNop())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = other.Close() })
	})
	p := newProgram(t, host, "")
	r := p.command("run")
	want := regexp.MustCompile(`\Anftsentry: NFLOG group 61999 is taken by another program: set trigger.nflog_group to a free one\n\z`)
	if r.code != 1 || !want.MatchString(r.stderr) || r.stdout != "" {
		t.Errorf("exit status %d, stdout %q, stderr %q", r.code, r.stdout, r.stderr)
	}
	p.configure("trigger.nflog_group = 61998")
	if code := p.run().end(unix.SIGTERM); code != 0 {
		t.Errorf("exit status %d with a group of its own", code)
	}
}
