package integration

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nftsentry/integration/netns"
)

// TestResilienceMany blocks more hosts than the kernel can list, restarts and
// mends with them, and has block.max go up and down, while a blocked client
// sends all along: nothing is answered. What the kernel blocks while nobody
// listens is adopted.
func TestResilienceMany(t *testing.T) {
	const n, most = 80_000, 200_000
	w := newWorld(t)
	everywhere(t, w)
	serve(t, w.server, ":80", "welcome")
	conf := func(most int) string { return fmt.Sprintf("block.max = %d\ntcp.watch = \"1-1024\"", most) }
	p := newProgram(t, w.server, conf(most))
	p.remember(strangers(n, false, func(i int) time.Time { return time.Now().Add(time.Hour + time.Duration(i)*time.Millisecond) })...)
	began := time.Now()
	d := p.run()
	t.Logf("ready after %v, %.1f MiB at most", time.Since(began).Round(time.Millisecond), d.peak())
	answers := overhear(t, w)
	stop := w.insist(t, 500)
	eventually(t, "answers are heard", patience, func() bool { return answers.heard.Load() > 0 })
	d.must("block", client4, "2001:db8:8::/64", "--timeout", "10h")
	eventually(t, "the last answer has come", patience, func() bool { return time.Since(time.Unix(0, answers.last.Load())) > time.Second })
	answers.heard.Store(0)

	for _, most := range []int{1_000_000, most} {
		d.configure(conf(most))
		began = time.Now()
		d.must("reload")
		t.Logf("reload with block.max = %d: %v", most, time.Since(began).Round(time.Millisecond))
	}
	if got := answers.heard.Load(); got != 0 {
		t.Errorf("%d answers reached a blocked source during reloads", got)
	}
	began = time.Now()
	mended := d.health().Mended
	w.server.Output(t, netns.Tool(t, "nft"), "delete table inet nftsentry") // nothing is blocked for a moment
	eventually(t, "the table is made again", bound(10*time.Second), func() bool { return d.health().Mended > mended })
	t.Logf("made again after %v", time.Since(began).Round(time.Millisecond))
	answers.heard.Store(0)

	d.end(unix.SIGTERM)
	for _, port := range []int{11, 15, 23} {
		_, _ = touchQuickly(w.client, "10.16.0.9", server4, port)
	}
	began = time.Now()
	d = p.run()
	t.Logf("ready again after %v, %.1f MiB at most", time.Since(began).Round(time.Millisecond), d.peak())
	live := d.live()
	if b, there := live[netip.MustParseAddr("10.16.0.9")]; !there || b.Origin != "kernel" {
		t.Errorf("what the kernel has blocked while nobody listened: %+v, want it adopted", b)
	}
	if got := d.said("the kernel blocks more hosts than can be listed; those that it has not blocked by itself, and that are not on record, stay blocked until their time is up"); got != 1 {
		t.Errorf("all hosts were listed: %d messages that they are too many, want 1", got)
	}
	d.configure(conf(2048))
	d.must("reload")
	complete(t, w.server, 2048, "blocked4")
	if got := d.health().Blocks.Live; got != 2048+1 {
		t.Errorf("%d blocks with block.max = 2048, want as many and one of IPv6", got)
	}
	if got := answers.heard.Load(); got != 0 {
		t.Errorf("%d answers reached a blocked source", got)
	}
	stop()
}
