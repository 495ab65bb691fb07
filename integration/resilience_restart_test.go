package integration

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nftsentry/nft"
	"nftsentry/state"
)

// TestResilienceRestart ends, kills and reloads the daemon again and again
// while a blocked client sends as fast as it can: nothing is answered.
func TestResilienceRestart(t *testing.T) {
	w := newWorld(t)
	serve(t, w.server, ":80", "welcome")
	d := guard(t, w.server, "")
	d.must("block", client4, "2001:db8:8::/64", "--timeout", "1h")
	answers := overhear(t, w)
	stop := w.insist(t, 0)
	var took []time.Duration
	for i := range sized(20, 100) {
		d.configure(fmt.Sprintf("tcp.decoy = \"%d\"\ntrigger.window = \"%ds\"", 4000+i, 60+i))
		for range sized(1, 2) {
			d.must("reload")
		}
		d.end([]unix.Signal{unix.SIGTERM, unix.SIGKILL}[i%2])
		began := time.Now()
		d = d.program.run()
		took = append(took, time.Since(began))
	}
	if got := answers.heard.Load(); got != 0 {
		t.Errorf("%d answers reached a blocked source", got)
	}
	eventually(t, "a flood is dropped", patience, func() bool { return d.health().Dropped.Packets >= 10_000 })
	stop()
	told(t, "start under a flood", took)

	d.must("unblock", "--all")
	stop = w.insist(t, 100)
	eventually(t, "answers of both families are heard", patience, func() bool { return answers.heard.Load() > 20 })
	stop()
}

// TestResilienceReboot starts on a host that has no table, with a state
// folder that is full.
func TestResilienceReboot(t *testing.T) {
	n := sized(10_000, nft.DefaultHosts)
	w := newWorld(t)
	p := newProgram(t, w.server, "")
	end := func(i int) time.Time { return time.Now().Add(10*time.Minute + time.Duration(i)*37*time.Millisecond) }
	blocks := append(strangers(n, false, end), strangers(n, true, end)...)
	over := strangers(n+100, false, hence(-time.Second))[n:]
	p.remember(append(blocks, over...)...)

	began := time.Now()
	d := p.run()
	took := time.Since(began)
	t.Logf("%d blocks: ready after %v, %.1f MiB at most", 2*n, took.Round(time.Millisecond), d.peak())
	if took > bound(2*time.Second) {
		t.Errorf("ready after %v, want %v", took, bound(2*time.Second))
	}
	expectTimesLeft(t, d, blocks, took)
	list := d.live()
	for _, b := range over {
		if _, listed := list[b.Source.Addr()]; listed {
			t.Errorf("%s is listed, and is over", b.Source)
		}
	}
	if len(list) != 2*n {
		t.Errorf("%d are listed, want %d", len(list), 2*n)
	}
	t.Logf("%.1f MiB at most after a list", d.peak())
	d.must("reload")
	t.Logf("%.1f MiB at most after a reload", d.peak())
	conn, mended := ruler(t, w.server), d.health().Mended
	conn.FlushRuleset()
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the table is made again", bound(5*time.Second), func() bool { return d.health().Mended > mended })
	complete(t, w.server, 2*n, "blocked4", "blocked6")
	t.Logf("%.1f MiB at most after a flush of the ruleset", d.peak())
	if got := d.peak(); soak && !raceEnabled && got > 96 {
		t.Errorf("%.1f MiB resident, want 96", got)
	}
}

// expectTimesLeft compares how long blocks last in the kernel with what was on
// record. Elements last whole seconds, from when they are loaded: the daemon
// itself ends each on time.
func expectTimesLeft(t *testing.T, d *daemon, blocks []state.Block, load time.Duration) {
	t.Helper()
	var kernel map[netip.Addr]time.Duration
	var before, after time.Time
	for range 5 {
		before = time.Now()
		kernel = held(t, d.host, "blocked4", "blocked6")
		if after = time.Now(); len(kernel) == len(blocks) {
			break
		}
	}
	if len(kernel) != len(blocks) {
		t.Errorf("the kernel has %d elements, want %d", len(kernel), len(blocks))
	}
	var early, late time.Duration
	for _, b := range blocks {
		left, there := kernel[b.Source.Addr()]
		if !there {
			t.Errorf("%s is not blocked", b.Source)
			return
		}
		early = max(early, b.Until.Sub(after.Add(left)))
		late = max(late, before.Add(left).Sub(b.Until))
	}
	t.Logf("elements end %v too early to %v late", early.Round(time.Millisecond), late.Round(time.Millisecond))
	const tick = 10 * time.Millisecond // of the kernel's clock, by which it tells the time left
	if most := time.Second + load; early > tick || late > most {
		t.Errorf("elements end %v too early to %v late, want 0 to %v", early, late, most)
	}
}

// TestResilienceRoom blocks more than the kernel's set holds, by a decoy, by a
// command and by the kernel itself.
func TestResilienceRoom(t *testing.T) {
	w := newWorld(t)
	everywhere(t, w)
	p := newProgram(t, w.server, "block.timeout = \"1h\"")
	blocks := strangers(nft.DefaultHosts, false, func(i int) time.Time { return time.Now().Add(time.Hour + time.Duration(i)*time.Millisecond) })
	spare := []int{5000, 3000, 100} // that can be spared, in their order
	for i, n := range spare {
		blocks[n].Until = time.Now().Add(time.Duration(30+i) * time.Minute)
		blocks[n].Evidence = []string{"unproven", "unproven", "proven"}[i]
	}
	p.remember(blocks...)
	if soak {
		p.remember(strangers(nft.DefaultHosts, true, hence(time.Hour))...)
	}
	d := p.run()
	before := d.health().Blocks.Live

	_, _ = touch(w.client, "10.16.0.1", server4, 23)
	d.must("block", "203.0.113.1")
	_, _ = touch(w.client, "10.16.0.2", server4, 23)
	eventually(t, "three had to make room", patience, func() bool { return d.health().Blocks.Evicted == 3 })
	kernel := held(t, w.server, "blocked4")
	for _, source := range []string{"10.16.0.1", "203.0.113.1", "10.16.0.2"} {
		if _, there := kernel[netip.MustParseAddr(source)]; !there {
			t.Errorf("%s is not blocked", source)
		}
	}
	for _, i := range spare {
		if _, there := kernel[blocks[i].Source.Addr()]; there {
			t.Errorf("%s is blocked, and could be spared", blocks[i].Source)
		}
	}
	complete(t, w.server, nft.DefaultHosts, "blocked4")
	if got := d.health().Blocks.Live; got != before {
		t.Errorf("%d blocks, want %d", got, before)
	}

	// It may still tidy up after what was there to do.
	eventually(t, "a second of rest takes little of the processor", patience, func() bool {
		used := d.busy()
		time.Sleep(time.Second)
		used = d.busy() - used
		t.Logf("%v of CPU in a second of rest", used)
		return used <= 250*time.Millisecond
	})
	if s := d.health(); s.Blocks.Evicted != 3 || s.Blocks.Failed != 0 || s.Mended != 0 || len(s.Problems) != 0 {
		t.Errorf("status %+v, want three evicted and nothing else", s)
	}
	t.Logf("%.1f MiB at most", d.peak())
	if soak {
		expectListed(t, d, before)
	}
}

// expectListed measures the command that lists all.
func expectListed(t *testing.T, d *daemon, n int) {
	t.Helper()
	var took []time.Duration
	for range 5 {
		began := time.Now()
		d.must("list")
		took = append(took, time.Since(began))
	}
	told(t, fmt.Sprintf("list of %d", n), took)
	if took[2] > bound(time.Second) {
		t.Errorf("list takes %v, want %v", took[2], bound(time.Second))
	}
}
