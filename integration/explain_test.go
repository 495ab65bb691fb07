package integration

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"nftsentry/controller/api"
)

// explained is what is known of an address.
func (p *program) explained(address string) (x api.Explanation) {
	p.t.Helper()
	text := p.must("explain", address, "--json")
	if err := json.Unmarshal([]byte(text), &x); err != nil {
		p.t.Fatal(err)
	}
	return x
}

// expectWhy waits until an address is explained in a way, and returns how.
func (p *program) expectWhy(address string, blocked bool, why string) (x api.Explanation) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		x = p.explained(address)
		if x.Blocked == blocked && strings.Contains(x.Why, why) {
			return x
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("explain %s: %+v, want blocked %t, why %q", address, x, blocked, why)
		}
	}
}

func outcomes(x api.Explanation) string {
	var all []string
	for _, p := range x.Probes.Last {
		all = append(all, p.Outcome)
	}
	return strings.Join(all, " ")
}

// TestExplain asks about a source at each step of its way.
func TestExplain(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			w := newWorld(t)
			d := guard(t, w.server, "[trigger]\nwindow = \"1h\"\n")
			x := d.expectWhy(f.client, false, "nothing was noticed of it")
			if x.Source != f.source || x.Mode != "enforce" || x.Probes.Total != 0 || x.Trigger.OfPorts != 3 || x.Trigger.OfConnects != 1 {
				t.Errorf("never seen: %+v", x)
			}
			_, _ = touch(w.client, "", f.server, 200)
			x = d.expectWhy(f.client, false, "1 of 3 ports within 1h") // the kernel counts before its word arrives
			eventually(t, "the probe is told of", patience, func() bool {
				x = d.explained(f.client)
				return outcomes(x) == "probe"
			})
			if c := x.Trigger.Counted; len(c) != 1 || c[0].Port != 200 || c[0].Protocol != "tcp" || !c[0].Forgotten.After(x.Time.Add(50*time.Minute)) ||
				x.Probes.Total != 1 || x.Probes.Last[0].Kind != "syn" || x.Probes.Last[0].Address != f.client || outcomes(x) != "probe" {
				t.Errorf("one probe: %+v", x)
			}
			nmap(t, w.client, f.server, "201", "-sS")
			x = d.expectWhy(f.client, false, "2 of 3 ports within 1h")
			if c := x.Trigger.Counted; len(c) != 2 {
				t.Errorf("two probes: %+v", x)
			}
			eventually(t, "both probes are told of", patience, func() bool { return outcomes(d.explained(f.client)) == "probe probe" })
			_, _ = touch(w.client, "", f.server, 23)
			x = d.expectWhy(f.client, true, "blocked as "+f.source+" by")
			if x.Block == nil || x.Kernel == nil || x.Kernel.Set != "inet nftsentry "+f.set || len(x.Notes) != 0 ||
				x.Block.Until.Sub(*x.Kernel.Until).Abs() > 3*time.Second {
				t.Errorf("blocked: %+v", x)
			}
			before := x.Kernel.Dropped
			_, _ = touch(w.client, "", f.server, 80) // dropped by shield_new
			udp, err := w.client.Dial(t.Context(), "udp", netip.AddrPortFrom(netip.MustParseAddr(f.server), 80).String(), "")
			if err != nil {
				t.Fatal(err)
			}
			for range 5 { // dropped by shield
				_, _ = udp.Write([]byte("x"))
			}
			_ = udp.Close()
			eventually(t, "what is dropped is counted", patience, func() bool {
				x = d.explained(f.client)
				return x.Kernel.Dropped != nil && x.Kernel.Dropped.Packets >= before.Packets+6 && x.Kernel.Dropped.Bytes > before.Bytes
			})
			text := d.must("explain", f.client)
			for _, want := range []string{"yes: blocked as " + f.source, "tcp/200", "inet nftsentry " + f.set, "on record", "dropped"} {
				if !strings.Contains(text, want) {
					t.Errorf("explain prints no %q:\n%s", want, text)
				}
			}
			if got := d.exec("__complete", "-c", d.conf, "explain", f.source[:4]).stdout; !strings.HasPrefix(got, strings.TrimSuffix(f.source, "/64")+"\t") {
				t.Errorf("explain completes to %q", got)
			}
			if got := d.exec("__complete", "-c", d.conf, "unblock", f.source[:4]).stdout; !strings.HasPrefix(got, f.source+"\t") {
				t.Errorf("unblock completes to %q", got)
			}
			d.must("unblock", f.client)
			x = d.expectWhy(f.client, false, "the block ended at ")
			if !strings.HasSuffix(x.Why, "(operator)") || x.Kernel != nil || x.Block != nil || x.Strikes != 0 {
				t.Errorf("unblocked: %+v", x)
			}
		})
	}
}

// TestExplainExpired asks about a source whose block is over.
func TestExplainExpired(t *testing.T) {
	w := newWorld(t)
	d := guard(t, w.server, "[block]\ntimeout = \"1s\"\nunproven = \"1s\"\n")
	for _, f := range families {
		_, _ = touch(w.client, "", f.server, 23)
		x := d.expectWhy(f.client, false, "(expired)")
		if x.Strikes != 1 || x.Last == nil || x.Last.Reason != "expired" || x.Last.Port != 23 || x.Last.Source != f.source {
			t.Errorf("expired: %+v", x)
		}
		if text := d.must("explain", f.client); !strings.Contains(text, "tcp/23 connect, ended at ") || !strings.Contains(text, "(expired), a strike until ") {
			t.Errorf("explain prints\n%s", text)
		}
	}
}

// TestExplainOthers asks about sources that are treated in other ways.
func TestExplainOthers(t *testing.T) {
	w := newWorld(t)
	serve(t, w.server, ":22", "welcome")
	d := guard(t, w.server, "[ignore]\nsources = [\"198.51.100.0/24\", \"2001:db8:77::/48\"]\n")
	d.must("block", "203.0.113.0/24", "2001:db8:66::/48", "198.51.0.0/16", "--comment", "abuse desk")
	for address, prefix := range map[string]string{"203.0.113.7": "203.0.113.0/24", "2001:db8:66:5::7": "2001:db8:66::/48"} {
		x := d.expectWhy(address, true, "blocked as "+prefix+" by operator (operator: abuse desk)")
		if len(x.Notes) != 1 || x.Notes[0] != "the block is that of "+prefix+", in which it lies" || !strings.Contains(x.Kernel.Set, "nets") {
			t.Errorf("in a prefix: %+v", x)
		}
	}
	for address, why := range map[string]string{
		"198.51.100.9": "ignored by 198.51.100.0/24 (ignore.sources)", "2001:db8:77::9": "ignored by 2001:db8:77::/48 (ignore.sources)",
		server4: "ignored by " + server4 + " (own address)", router6: "ignored by " + router6 + " (gateway)", "127.0.0.5": "ignored by 127.0.0.0/8 (loopback)",
	} {
		d.expectWhy(address, false, why)
	}
	for _, f := range families {
		converse(t, w.client, "", f.server, "welcome")
		_, _ = touch(w.client, "", f.server, 200)
		x := d.expectWhy(f.client, false, "it is a peer")
		eventually(t, "the probe is told of", patience, func() bool {
			x = d.explained(f.client)
			return outcomes(x) != ""
		})
		if x.Peer == nil || !x.Peer.After(x.Time.Add(50*time.Minute)) || outcomes(x) != "exempted" || x.Trigger.Ports != 0 {
			t.Errorf("a peer: %+v", x)
		}
	}
	d.must("panic")
	d.expectWhy("203.0.113.7", false, "suspended by panic")
}

// TestExplainLogged asks about sources that nothing is done about.
func TestExplainLogged(t *testing.T) {
	for name, tt := range map[string]struct{ conf, first, then string }{
		"observe": {"mode = \"observe\"\n", "mode is observe: nobody is blocked, and 2 of 3 ports within 1m", "mode is observe: it would have been blocked"},
		"log":     {"[tcp]\nrespond = \"log\"\n", "tcp.respond is not \"block\"", "tcp.respond is not \"block\""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			d := guard(t, w.server, tt.conf)
			for _, f := range families {
				for _, port := range []int{200, 201} {
					_, _ = touch(w.client, "", f.server, port)
				}
				eventually(t, "both probes are told of", patience, func() bool { return outcomes(d.explained(f.client)) == "probe probe" })
				if x := d.expectWhy(f.client, false, tt.first); x.Trigger.Ports > 2 || len(x.Trigger.Counted) != 2 {
					t.Errorf("two ports: %+v", x)
				}
				_, _ = touch(w.client, "", f.server, 202)
				x := d.expectWhy(f.client, false, tt.then)
				eventually(t, "it is said to be blocked", patience, func() bool {
					x = d.explained(f.client)
					return outcomes(x) == "probe probe would-block"
				})
			}
		})
	}
}
