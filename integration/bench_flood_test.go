//go:build bench

package integration

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"golang.org/x/sync/errgroup"

	"nftsentry/integration/packet"
)

// benchFloodLasts is how long each of the two floods lasts.
const benchFloodLasts = 30 * time.Second

// A visits is how long somebody took who came again and again.
type visits struct {
	mu    sync.Mutex
	took  []time.Duration // guarded by mu
	total int             // guarded by mu
}

func (v *visits) add(took time.Duration, ok bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.total++
	if ok {
		v.took = append(v.took, took.Round(10*time.Microsecond))
	}
}

// String is how many came through, and how long it took them.
func (v *visits) String() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.took) == 0 {
		return fmt.Sprintf("0/%d", v.total)
	}
	slices.Sort(v.took)
	return fmt.Sprintf("%d/%d, median %v, worst %v", len(v.took), v.total, v.took[len(v.took)/2], v.took[len(v.took)-1])
}

// TestBenchFlood floods the server with forged SYNs, each from another source,
// as fast as one core sends, while a client and scanners come by.
func TestBenchFlood(t *testing.T) {
	var b bytes.Buffer
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, flood := range []struct {
		name  string
		ports []uint16
	}{{"watched ports", watchedPorts}, {"decoy ports", decoyPorts}} {
		benchFlood(t, table, flood.name, flood.ports)
	}
	_ = table.Flush()
	fmt.Print("\n" + b.String() + "\n")
}

func benchFlood(t *testing.T, table *tabwriter.Writer, name string, ports []uint16) {
	t.Helper()
	w := newWorld(t)
	serve(t, w.server, ":80", "welcome")
	d := guard(t, w.server, "")
	expectRead(t, w.client, "", server4, 80, "welcome") // the neighbours know each other
	status := filepath.Join("/proc", strconv.Itoa(d.cmd.Process.Pid), "status")
	ctx, cancel := context.WithTimeout(t.Context(), benchFloodLasts)
	defer cancel()

	var client, decoys visits
	var all errgroup.Group
	var sent uint64
	cpu, began := cpuTicks(t, d.cmd.Process.Pid), time.Now()
	all.Go(func() (err error) {
		sent, err = packet.Flood(ctx, w.router, packet.FloodConfig{Target: netip.MustParseAddr(server4), Ports: ports, Sources: forged})
		return err
	})
	all.Go(func() error { visitEverySecond(ctx, w, &client); return nil })
	all.Go(func() error { touchDecoys(ctx, t, w, &decoys); return nil })
	peak := 0
	for ctx.Err() == nil {
		peak = max(peak, tracked(t, w.server, "nf_conntrack_count"))
		time.Sleep(100 * time.Millisecond)
	}
	if err := all.Wait(); err != nil {
		t.Fatal(err)
	}
	took := time.Since(began).Seconds()
	cpu = cpuTicks(t, d.cmd.Process.Pid) - cpu
	if sent < 100_000 {
		t.Errorf("%d packets are no flood", sent)
	}
	s := d.status()
	most := tracked(t, w.server, "nf_conntrack_max")
	fmt.Fprintf(table, "flood of %s, %.0f s\t\n", name, took)
	for _, row := range [][2]string{
		{"sent", fmt.Sprintf("%.0f packets/s", float64(sent)/took)},
		{"of these dropped by the limit", fmt.Sprintf("%.0f packets/s", float64(s.Watched.Flooded)/took)},
		{"probes told to the daemon", fmt.Sprintf("%.0f/s, %d lost, %d overruns", float64(s.Watched.Probes)/took, s.Watched.Lost, s.Watched.Overruns)},
		{"daemon, most resident memory", procField(t, status, "VmHWM:")},
		{"daemon, share of one core", fmt.Sprintf("%.1f %%", float64(cpu)/took)},
		{"client of port 80, once a second", client.String()},
		{"decoy to element, fresh sources", decoys.String()},
		{"connections tracked at the most", fmt.Sprintf("%d, %.1f %% of nf_conntrack_max", peak, 100*float64(peak)/float64(most))},
		{"blocks", fmt.Sprintf("%d, of these %d unproven", s.Blocks.Made, s.Blocks.Unproven)},
	} {
		fmt.Fprintf(table, "  %s\t%s\t\n", row[0], row[1])
	}
}

// visitEverySecond has a client connect once a second, and give up after ten.
func visitEverySecond(ctx context.Context, w *world, v *visits) {
	var g errgroup.Group
	for tick := time.NewTicker(time.Second); ctx.Err() == nil; {
		g.Go(func() error {
			patient, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
			defer cancel()
			began := time.Now()
			conn, err := w.client.Dial(patient, "tcp", server4+":80", "")
			v.add(time.Since(began), err == nil)
			if err == nil {
				_ = conn.Close()
			}
			return nil
		})
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	_ = g.Wait()
}

// touchDecoys has a fresh source connect to a decoy every two seconds, and try
// again each 200 ms until it is blocked, or five seconds are over.
func touchDecoys(ctx context.Context, t *testing.T, w *world, v *visits) {
	reader := newElementReader(t, w.server)
	for i := 0; ctx.Err() == nil; i++ {
		next := time.Now().Add(2 * time.Second)
		a := netip.AddrFrom4([4]byte{10, 8, 0, byte(10 + i)})
		w.client.Addr(t, "eth0", a.String()+"/24")
		began := time.Now()
		blocked := false
		for !blocked && time.Since(began) < 5*time.Second && ctx.Err() == nil {
			blocked = knockOnce(t, w, reader, a)
		}
		if blocked || ctx.Err() == nil {
			v.add(time.Since(began), blocked)
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Until(next)):
		}
	}
}

// knockOnce connects to a decoy, and reports whether the source is blocked within 200 ms.
func knockOnce(t *testing.T, w *world, reader elementReader, from netip.Addr) bool {
	attempt, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	conn, err := w.client.Dial(attempt, "tcp", server4+":23", from.String())
	if err == nil {
		defer conn.Close()
	}
	for {
		if reader.has(t, "blocked4", from) {
			return true
		}
		if attempt.Err() != nil {
			return false
		}
		time.Sleep(time.Millisecond)
	}
}
