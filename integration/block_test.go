package integration

import (
	"fmt"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nftsentry/integration/netns"
)

// TestTouchedAndLetGo is the whole way: a decoy is touched, its source is
// blocked, everybody can see it, and it is let go when its time is up.
func TestTouchedAndLetGo(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel() // it waits for most of the time
			w := newWorld(t)
			serve(t, w.server, ":80", "welcome")
			d := guard(t, w.server, "block.timeout = \"6s\"\ntcp.banner = \"go away\"")
			expectRead(t, w.client, "", f.server, 80, "welcome")
			if got := d.nftSet(f.set); strings.Contains(got, "elements") {
				t.Errorf("before the touch: %s", got)
			}

			touched := time.Now()
			expectRead(t, w.client, "", f.server, 23, "go away")
			b := d.listed()
			expectSilence(t, w.client, "", f.server, 80)
			if b.Source != f.source || b.Port != 23 || b.Protocol != "tcp" || b.Kind != "connect" || b.Evidence != "proven" || b.Origin != "decoy" ||
				b.Strikes != 0 || b.Comment != "tcp/23 connect" || b.Until.Sub(b.Since) != 6*time.Second {
				t.Errorf("listed as %+v", b)
			}
			element := regexp.MustCompile(regexp.QuoteMeta(strings.TrimSuffix(f.source, "/64")) + ` timeout 6s expires \S+ comment "tcp/23 connect"`)
			if got := d.nftSet(f.set); !element.MatchString(got) {
				t.Errorf("nft list set: %s", got)
			}
			line := fmt.Sprintf("%d - %s Host: %s/%s Port: 23 TCP Blocked\n", b.Since.Unix(), b.Since.Local().Format("01/02/2006 15:04:05"), f.client, f.client)
			eventually(t, "portsentry.blocked.tcp has "+line, patience, func() bool { return d.file("portsentry.blocked.tcp") == line })

			eventually(t, "the web server answers again", patience, func() bool {
				got, _ := touch(w.client, "", f.server, 80)
				return got == "welcome"
			})
			if took := time.Since(touched); took < 5900*time.Millisecond {
				t.Errorf("let go after %v, want 6s", took)
			}
			eventually(t, "the list is empty", patience, func() bool { return len(d.list()) == 0 })
			eventually(t, "the file is empty", patience, func() bool { return d.file("portsentry.blocked.tcp") == "" })
			if got := d.file("portsentry.history"); got != line {
				t.Errorf("portsentry.history has %q, want %q", got, line)
			}
			if got := d.nftSet(f.set); strings.Contains(got, "elements") {
				t.Errorf("after the end: %s", got)
			}
		})
	}
}

// TestTermination shows that SIGTERM and SIGINT end the daemon well, that the
// block stays in force, and that the decoys are closed.
func TestTermination(t *testing.T) {
	for _, signal := range []unix.Signal{unix.SIGTERM, unix.SIGINT} {
		t.Run(signal.String(), func(t *testing.T) {
			w := newWorld(t)
			serve(t, w.server, ":80", "welcome")
			d := guard(t, w.server, "")
			_, _ = touch(w.client, "", server4, 23)
			d.listed()
			if code := d.end(signal); code != 0 {
				t.Errorf("exit status %d, want 0", code)
			}
			expectSilence(t, w.client, "", server4, 80)
			if got := d.nftSet("blocked4"); !strings.Contains(got, client4) {
				t.Errorf("after the end: %s", got)
			}
			if _, err := touch(w.router, "", server4, 23); err == nil {
				t.Error("port 23 still answers")
			}
			if _, err := os.Stat(d.dir + "/sock"); err == nil {
				t.Error("the control socket is still there")
			}
			// A source that is not blocked is refused by decoys and served by services.
			expectRead(t, w.router, "", server4, 80, "welcome")
		})
	}
}

// TestRestart shows that a new daemon forgets nothing, however the old one ended.
func TestRestart(t *testing.T) {
	for _, signal := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel() // it waits for most of the time
			w := newWorld(t)
			serve(t, w.server, ":80", "welcome")
			d := guard(t, w.server, "block.escalate = []")
			_, _ = touch(w.client, "", server4, 23)
			d.listed()
			d.must("block", "198.51.100.0/24", "--timeout", "1h", "--comment", "abuse desk")
			d.must("block", "2001:db8:77::/48")
			want := d.list()
			blocked := d.file("portsentry.blocked.tcp")

			for range 3 {
				d.end(signal)
				expectSilence(t, w.client, "", server4, 80)
				d = d.program.run()
				expectSilence(t, w.client, "", server4, 80)
				got := d.list()
				if !slices.Equal(got, want) {
					t.Errorf("listed after the restart:\n%v\nwant\n%v", got, want)
				}
				if got := d.file("portsentry.blocked.tcp"); got != blocked {
					t.Errorf("portsentry.blocked.tcp has %q, want %q", got, blocked)
				}
			}
			if got := strings.Count(d.file("portsentry.history"), "\n"); got != 1 {
				t.Errorf("portsentry.history has %d lines, want 1", got)
			}

			// The same after a reboot, which leaves no table.
			d.end(signal)
			d.host.Output(t, netns.Tool(t, "nft"), "delete table inet nftsentry")
			d = d.program.run()
			expectSilence(t, w.client, "", server4, 80)
			if got := d.list(); !slices.Equal(got, want) {
				t.Errorf("listed after the reboot:\n%v\nwant\n%v", got, want)
			}
			if got := d.nftSet("nets4"); !strings.Contains(got, `198.51.100.0/24 timeout 1h`) && !strings.Contains(got, "198.51.100.0/24 timeout 59m") {
				t.Errorf("nets4: %s", got)
			}
		})
	}
}

// TestStrikes shows that who comes back is blocked for longer.
func TestStrikes(t *testing.T) {
	w := newWorld(t)
	d := guard(t, w.server, "block.timeout = \"2s\"\nblock.escalate = [\"3s\", \"1h\"]")
	for i, want := range []struct {
		lasts   time.Duration
		comment string
	}{{2 * time.Second, "tcp/79 connect"}, {3 * time.Second, "tcp/79 connect x2"}, {time.Hour, "tcp/79 connect x3"}} {
		_, _ = touch(w.client, "", server4, 79)
		b := d.listed()
		if b.Strikes != i || b.Comment != want.comment || b.Until.Sub(b.Since) != want.lasts {
			t.Errorf("block %d: %+v, want %+v", i+1, b, want)
		}
		if i < 2 {
			eventually(t, "the source is let go", patience, func() bool { return len(d.list()) == 0 })
		}
	}
	d.must("unblock", client4)
	_, _ = touch(w.client, "", server4, 79)
	if b := d.listed(); b.Strikes != 0 {
		t.Errorf("after an unblock: %+v, want no strikes", b)
	}
}

// TestTriggerConnects shows that only the Nth connection blocks.
func TestTriggerConnects(t *testing.T) {
	w := newWorld(t)
	d := guard(t, w.server, "trigger.connects = 3\ntcp.banner = \"go away\"")
	for i := range 3 {
		if got := len(d.list()); got != 0 {
			t.Errorf("after %d connections: %d blocked", i, got)
		}
		expectRead(t, w.client, "", server4, 23, "go away")
	}
	d.listed()
}

// TestObserve shows that observe mode says what it would do, and does nothing.
func TestObserve(t *testing.T) {
	w := newWorld(t)
	serve(t, w.server, ":80", "welcome")
	d := guard(t, w.server, "")
	_, _ = touch(w.client, "", server4, 23)
	d.listed()
	d.end(unix.SIGTERM)
	expectSilence(t, w.client, "", server4, 80)

	d.configure("mode = \"observe\"\ntcp.banner = \"seen\"")
	d = d.program.run()
	expectRead(t, w.client, "", server4, 80, "welcome") // blocked earlier, and not any more
	expectRead(t, w.client, client6, server6, 23, "seen")
	eventually(t, "it is logged", patience, func() bool { return strings.Contains(d.log.String(), `"would block"`) })
	if s := d.status(); s.Mode != "observe" || s.Blocks.Would != 1 {
		t.Errorf("status %+v, want one block that would have been", s)
	}
	expectRead(t, w.client, client6, server6, 80, "welcome")
	if r := d.command("block", "203.0.113.7"); r.code != 1 || !strings.Contains(r.stderr, "observe mode") {
		t.Errorf("block in observe mode: %+v", r)
	}
}

// TestReject shows that what is blocked is refused at once.
func TestReject(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			w := newWorld(t)
			serve(t, w.server, ":80", "welcome")
			d := guard(t, w.server, "block.action = \"reject\"")
			d.must("block", f.client)
			if _, err := touch(w.client, "", f.server, 80); err == nil || !strings.Contains(err.Error(), "refused") {
				t.Errorf("connect: %v, want it refused", err)
			}
		})
	}
}

// TestEverythingStalls shows that a block holds for what is under way too:
// connections that are open, and other protocols.
func TestEverythingStalls(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			w := newWorld(t)
			d := guard(t, w.server, "")
			echo(t, w.server, "tcp", net.JoinHostPort(f.server, "80"))
			echo(t, w.server, "udp", net.JoinHostPort(f.server, "5353"))
			var open []net.Conn
			for network, port := range map[string]string{"tcp": "80", "udp": "5353"} {
				conn, err := w.client.Dial(t.Context(), network, net.JoinHostPort(f.server, port), "")
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				eventually(t, network+" answers before the block", patience, func() bool { return answers(t, conn) })
				open = append(open, conn)
			}
			d.must("block", f.source)
			for _, conn := range open {
				if answers(t, conn) {
					t.Errorf("%s answers a blocked source", conn.RemoteAddr().Network())
				}
			}
			if got := d.status().Dropped; got.Packets == 0 || got.Bytes == 0 {
				t.Errorf("dropped %+v, want something", got)
			}
			d.must("unblock", f.source)
			for _, conn := range open {
				eventually(t, conn.RemoteAddr().Network()+" answers again", patience, func() bool { return answers(t, conn) })
			}
		})
	}
}

// TestTeardown shows that nothing is left in the kernel, and that a running
// daemon is not undone behind its back.
func TestTeardown(t *testing.T) {
	w := newWorld(t)
	serve(t, w.server, ":80", "welcome")
	nft := netns.Tool(t, "nft")
	w.server.Output(t, nft, "add table inet other")
	before := w.server.Output(t, nft, "list ruleset")
	d := guard(t, w.server, "")
	d.must("block", client4)
	if r := d.command("teardown"); r.code != 1 || !strings.Contains(r.stderr, "is running and would make the table again: stop it first") {
		t.Errorf("teardown beside a daemon: %+v", r)
	}
	d.end(unix.SIGTERM)
	if got, want := d.must("teardown"), "removed table inet nftsentry; ended 1 block on record\n"; got != want {
		t.Errorf("teardown prints %q, want %q", got, want)
	}
	if got := w.server.Output(t, nft, "list ruleset"); got != before {
		t.Errorf("ruleset after teardown:\n%s\nwant\n%s", got, before)
	}
	expectRead(t, w.client, "", server4, 80, "welcome")
	if got, want := d.must("teardown"), "no table inet nftsentry was there; ended 0 blocks on record\n"; got != want {
		t.Errorf("teardown again prints %q, want %q", got, want)
	}
	d = d.program.run()
	if got := d.sources(); len(got) != 0 {
		t.Errorf("blocked after teardown: %v", got)
	}
}
