package integration

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nftsentry/integration/netns"
	"nftsentry/integration/packet"
)

// A scan is a way in which nmap looks at ports, and what it leaves on record.
type scan struct {
	flag, kind, protocol string
}

// stealthScans complete no connection.
var stealthScans = []scan{
	{"-sS", "syn", "tcp"}, {"-sF", "fin", "tcp"}, {"-sN", "null", "tcp"}, {"-sX", "xmas", "tcp"}, {"-sU", "udp", "udp"},
}

// nmap scans some ports of the server from the client.
func nmap(t *testing.T, from *netns.Host, target, ports string, flags ...string) string {
	t.Helper()
	args := append([]string{"-n", "-Pn", "--max-retries", "0", "--host-timeout", "3s", "-p", ports}, flags...)
	if strings.Contains(target, ":") {
		args = append(args, "-6")
	}
	return from.Output(t, netns.Tool(t, "nmap"), append(args, target)...)
}

// TestNmapStealth scans with nmap in the ways that complete no connection.
func TestNmapStealth(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel() // it waits for most of the time
			w := newWorld(t)
			serve(t, w.server, ":8080", "welcome")
			d := guard(t, w.server, "udp.watch = \"1-1024\"")
			for i, s := range stealthScans {
				timing := fmt.Sprintf("-T%d", 3+i%3)
				for _, order := range []string{"-r", "-T4"} { // sequential, random
					out := nmap(t, w.client, f.server, "1-200", s.flag, timing, order)
					b := d.listed()
					if b.Source != f.source || b.Kind != s.kind || b.Protocol != s.protocol || b.Evidence != "unproven" || b.Origin != "kernel" ||
						b.Comment != fmt.Sprintf("%s/%d %s", s.protocol, b.Port, s.kind) || b.Until.Sub(b.Since) != 10*time.Minute {
						t.Errorf("%s %s: listed as %+v\n%s", s.flag, order, b, out)
					}
					expectSilence(t, w.client, "", f.server, 8080)
					line := fmt.Sprintf("Host: %s/%[1]s Port: %d %s Blocked\n", f.client, b.Port, strings.ToUpper(s.protocol))
					eventually(t, "portsentry.blocked."+s.protocol+" has "+line, patience, func() bool {
						return strings.Contains(d.file("portsentry.blocked."+s.protocol), line)
					})
					d.must("unblock", "--all")
				}
			}
			expectRead(t, w.client, "", f.server, 8080, "welcome")
		})
	}
}

// TestNmapAck shows that packets which belong to connections, for all that a
// host can know, are no evidence.
func TestNmapAck(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			w := newWorld(t)
			d := guard(t, w.server, "")
			for _, flag := range []string{"-sA", "-sW", "-sM"} { // ACK; ACK, looking at windows; FIN and ACK
				out := nmap(t, w.client, f.server, "1-200", flag, "-T4")
				if got := d.sources(); len(got) != 0 {
					t.Errorf("%s blocks %v\n%s", flag, got, out)
				}
			}
		})
	}
}

// TestTriggerPorts counts ports with single connection attempts.
func TestTriggerPorts(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel() // it waits for most of the time
			w := newWorld(t)
			serve(t, w.server, ":80", "welcome")
			d := guard(t, w.server, "trigger.window = \"4s\"\nblock.timeout = \"4s\"")
			refused := func(ports ...int) {
				t.Helper()
				for _, port := range ports {
					if _, err := touch(w.client, "", f.server, port); err == nil || !strings.Contains(err.Error(), "refused") {
						t.Errorf("port %d: %v, want it refused", port, err)
					}
				}
			}
			refused(200, 200, 201, 200, 201, 3000) // two distinct ports, and one that is not watched
			if got := d.sources(); len(got) != 0 {
				t.Fatalf("blocked after two ports: %v", got)
			}
			time.Sleep(4100 * time.Millisecond) // the window is over
			refused(202, 203)
			if got := d.sources(); len(got) != 0 {
				t.Fatalf("blocked after two ports in each of two windows: %v", got)
			}
			expectSilence(t, w.client, "", f.server, 204) // the third is dropped itself
			if b := d.listed(); b.Port != 204 || b.Kind != "syn" {
				t.Errorf("listed as %+v, want port 204", b)
			}
			eventually(t, "the source is let go", patience, func() bool { return len(d.list()) == 0 })
			expectRead(t, w.client, "", f.server, 80, "welcome")
		})
	}
}

// TestFirstPortBlocks shows that with trigger.ports = 1 nothing gets through.
func TestFirstPortBlocks(t *testing.T) {
	w := newWorld(t)
	serve(t, w.server, ":80", "welcome")
	d := guard(t, w.server, "trigger.ports = 1")
	for _, f := range families {
		expectRead(t, w.client, "", f.server, 80, "welcome")
		expectSilence(t, w.client, "", f.server, 23) // not even the decoy gets to see it
		expectSilence(t, w.client, "", f.server, 80)
	}
	d.expectSources(client4, "2001:db8:8::/64")
}

// TestKernelAlone kills the daemon before the scan: the kernel blocks by
// itself, and the next daemon puts it on record.
func TestKernelAlone(t *testing.T) {
	for _, signal := range []unix.Signal{unix.SIGKILL, unix.SIGTERM} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel() // it waits for most of the time
			w := newWorld(t)
			serve(t, w.server, ":8080", "welcome")
			d := guard(t, w.server, "block.timeout = \"5m\"\nblock.unproven = \"2h\"")
			d.end(signal)
			for _, f := range families {
				nmap(t, w.client, f.server, "2323,1524,2000,5555,6667", "-sS", "-T4") // decoys
				expectSilence(t, w.client, "", f.server, 8080)
			}
			d = d.program.run()
			d.expectSources(client4, "2001:db8:8::/64")
			for _, b := range d.list() {
				if b.Evidence != "unproven" || b.Origin != "kernel" || b.Comment != "unproven, while nobody listened" ||
					b.Until.Sub(b.Since).Round(10*time.Second) != 5*time.Minute || time.Since(b.Since) > time.Minute {
					t.Errorf("listed as %+v", b)
				}
			}
			expectSilence(t, w.client, "", server4, 8080)
			eventually(t, "portsentry.blocked.tcp has it", patience, func() bool {
				return strings.Contains(d.file("portsentry.blocked.tcp"), "Host: 10.8.0.2/10.8.0.2 Port: 0 TCP Blocked\n")
			})

			// The next time counts as the second.
			d.end(signal)
			w.server.Output(t, netns.Tool(t, "nft"), "flush set inet nftsentry blocked4; flush set inet nftsentry suspects4; flush set inet nftsentry probes4")
			d.program.must("teardown")
			d = d.program.run()
			nmap(t, w.client, server4, "200-220", "-sS", "-T4")
			if b := d.listed(); b.Strikes != 1 || !strings.HasSuffix(b.Comment, " syn x2") || b.Until.Sub(b.Since) != time.Hour {
				t.Errorf("the second time: %+v", b)
			}
		})
	}
}

// TestUnprovenIsShort shows that strikes do not lengthen a block on unproven
// evidence beyond block.unproven, and that proof does.
func TestUnprovenIsShort(t *testing.T) {
	w := newWorld(t)
	d := guard(t, w.server, "block.timeout = \"3s\"\nblock.escalate = [\"1h\"]\nblock.unproven = \"5s\"\ntrigger.ports = 2")
	sender := packet.Open(t, w.router)
	knock(t, sender, client4, 200, 201)
	if b := d.listed(); b.Until.Sub(b.Since) != 3*time.Second {
		t.Errorf("first block %+v, want three seconds", b)
	}
	eventually(t, "the source is let go", patience, func() bool { return len(d.list()) == 0 })
	knock(t, sender, client4, 300, 301)
	if b := d.listed(); b.Strikes != 1 || b.Until.Sub(b.Since) != 5*time.Second {
		t.Errorf("second block %+v, want five seconds", b)
	}
	eventually(t, "the source is let go", patience, func() bool { return len(d.list()) == 0 })
	d.must("unblock", "--all")
	_, _ = touch(w.client, "", server4, 23)
	if b := d.listed(); b.Strikes != 2 || b.Evidence != "proven" || b.Until.Sub(b.Since) != time.Hour {
		t.Errorf("proven block %+v, want an hour", b)
	}
}

// TestOnlyLogged shows that observe mode, and respond = "log" for one
// protocol, say what they would do and do nothing.
func TestOnlyLogged(t *testing.T) {
	for name, tt := range map[string]struct {
		conf    string
		flag    string
		blocks  bool // the other protocol
		another string
	}{
		"observe": {"mode = \"observe\"\nudp.watch = \"1-1024\"", "-sS", false, "-sU"},
		"tcp":     {"tcp.respond = \"log\"\nudp.watch = \"1-1024\"", "-sS", true, "-sU"},
		"udp":     {"udp.respond = \"log\"\nudp.watch = \"1-1024\"", "-sU", true, "-sS"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			serve(t, w.server, ":8080", "welcome")
			d := guard(t, w.server, tt.conf)
			nmap(t, w.client, server4, "200-210", tt.flag, "-T4")
			eventually(t, "it is logged", patience, func() bool { return strings.Contains(d.log.String(), `"would block"`) })
			if got := strings.Count(d.log.String(), `"would block"`); got != 1 {
				t.Errorf("logged %d times that it would block, want once", got)
			}
			expectRead(t, w.client, "", server4, 8080, "welcome")
			if s := d.status(); s.Blocks.Would != 1 || s.Blocks.Live != 0 || s.Watched.Probes < 3 {
				t.Errorf("status %+v", s)
			}
			if name == "tcp" { // decoys too
				_, _ = touch(w.client, "", server6, 23)
				eventually(t, "the decoy connection is logged", patience, func() bool { return d.status().Blocks.Would == 2 })
			}
			nmap(t, w.client, server4, "300-310", tt.another, "-T4")
			if tt.blocks {
				d.listed()
				return
			}
			if got := d.sources(); len(got) != 0 {
				t.Errorf("blocked %v", got)
			}
		})
	}
}

// TestStopToObserve shows that no sensor that blocks outlives a change of mode.
func TestStopToObserve(t *testing.T) {
	w := newWorld(t)
	serve(t, w.server, ":8080", "welcome")
	d := guard(t, w.server, "")
	d.end(unix.SIGKILL)
	d.configure("mode = \"observe\"")
	d = d.program.run()
	if got := w.server.Output(t, netns.Tool(t, "nft"), "list table inet nftsentry"); strings.Contains(got, "add @blocked") || strings.Contains(got, "goto refuse") {
		t.Errorf("the table in observe mode:\n%s", got)
	}
	d.end(unix.SIGTERM)
	nmap(t, w.client, server4, "200-210", "-sS", "-T4")
	expectRead(t, w.client, "", server4, 8080, "welcome")
}

// TestUnblockForgives shows that a source that was let go is counted from the
// first port again.
func TestUnblockForgives(t *testing.T) {
	w := newWorld(t)
	d := guard(t, w.server, "")
	nmap(t, w.client, server4, "200-210", "-sS", "-T4")
	d.listed()
	d.must("unblock", client4)
	_, _ = touch(w.client, "", server4, 300)
	_, _ = touch(w.client, "", server4, 301)
	if got := d.sources(); len(got) != 0 {
		t.Errorf("blocked after two ports: %v", got)
	}
	_, _ = touch(w.client, "", server4, 302)
	d.listed()
}

// TestHiddenPort shows that the port of the decoy listener looks like one that
// nobody serves, and is a tripwire like others.
func TestHiddenPort(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			w := newWorld(t)
			d := guard(t, w.server, "ignore.host = false\ntcp.banner = \"go away\"")
			hidden := int(d.status().Decoys.Listener)
			for range 2 {
				if _, err := touch(w.client, "", f.server, hidden); err == nil || !strings.Contains(err.Error(), "refused") {
					t.Errorf("the listener's port: %v, want it refused", err)
				}
			}
			expectRead(t, w.server, "", f.server, hidden, "go away") // the host may know, and is not blocked for it
			expectRead(t, w.router, "", f.server, 23, "go away")     // the way to it is open
			eventually(t, "the client at the port and the router at port 23 are noticed", patience, func() bool { return d.status().Watched.Probes == 2 })
			_, _ = touch(w.client, "", f.server, 200)
			expectSilence(t, w.client, "", f.server, 201)
		})
	}
}

// TestNeighbourOfBlockedPrefix shows that neighbours are not blocked with a
// prefix that they share with others, where the link has a longer one.
func TestNeighbourOfBlockedPrefix(t *testing.T) {
	w := newWorld(t)
	serve(t, w.server, ":80", "welcome")
	w.server.Addr(t, "eth0", "2001:db8:7::1/112")
	w.router.Addr(t, "srv", "2001:db8:7::8/112")
	d := guard(t, w.server, "")
	d.must("block", "2001:db8:7::/64")
	expectRead(t, w.router, "2001:db8:7::8", "2001:db8:7::1", 80, "welcome")
	d.must("block", "2001:db8:7::8")
	expectSilence(t, w.router, "2001:db8:7::8", "2001:db8:7::1", 80)
}

// TestOddFromBlockedPrefix shows that what opens no connection is dropped for
// a blocked prefix, too, and not counted.
func TestOddFromBlockedPrefix(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel() // it waits for most of the time
			w := newWorld(t)
			d := guard(t, w.server, "")
			d.must("block", "10.8.0.0/16", "2001:db8::/33")
			nmap(t, w.client, f.server, "200-210", "-sF", "-T4")
			nmap(t, w.client, f.server, "200-210", "-sS", "-T4")
			time.Sleep(200 * time.Millisecond) // the kernel would have told by now
			if s := d.status(); s.Watched.Probes != 0 || s.Blocks.Live != 2 || s.Dropped.Packets == 0 {
				t.Errorf("status %+v, want nothing noticed", s)
			}
		})
	}
}

// TestNewWindow shows that a port which was touched in the window before
// counts again in the next one.
func TestNewWindow(t *testing.T) {
	w := newWorld(t)
	d := guard(t, w.server, "trigger.window = \"4s\"")
	knock := func(ports ...int) {
		for _, port := range ports {
			_, _ = touch(w.client, "", server4, port)
		}
	}
	knock(400)
	began := time.Now()
	time.Sleep(time.Until(began.Add(2 * time.Second)))
	knock(401)
	time.Sleep(time.Until(began.Add(4100 * time.Millisecond))) // 401 is remembered for a while longer
	knock(401, 402)
	if got := d.sources(); len(got) != 0 {
		t.Fatalf("blocked after two ports of a window: %v", got)
	}
	knock(403)
	if b := d.listed(); b.Port != 403 {
		t.Errorf("listed as %+v, want port 403", b)
	}
}
