package controller

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"nftsentry/listener"
)

// TestNotices shows who hears of what, and in which order.
func TestNotices(t *testing.T) {
	cfg := senseConfig()
	cfg.Connects = 2
	drive(t, cfg, func(r *rig) {
		hears := func(what string, want ...string) {
			t.Helper()
			synctest.Wait()
			if diff := cmp.Diff(want, r.notices()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", what, diff)
			}
		}
		hears("the start")
		r.touch("192.0.2.1", 23)
		hears("an ignored source", "ignored 192.0.2.1 (192.0.2.0/24: ignore.sources)")
		r.touch("203.0.113.7", 23)
		hears("the first connection", "probe 203.0.113.7")
		r.touch("203.0.113.7", 23)
		hears("the second connection", "sentence 203.0.113.7", "block 203.0.113.7")
		r.touch("203.0.113.7", 23)
		hears("the third connection, which may have been underway", "probe 203.0.113.7")
		time.Sleep(underway)
		r.touch("203.0.113.7", 23)
		hears("the fourth connection", "repeated 203.0.113.7")
		r.says(listener.Exempted, "203.0.113.8", 200)
		hears("a peer", "exempted 203.0.113.8")
		r.says(listener.Noticed, "203.0.113.9", 200)
		hears("a packet", "probe 203.0.113.9")
		r.says(listener.Convicted, "203.0.113.9", 201)
		hears("the last packet", "sentence 203.0.113.9", "block 203.0.113.9")
		if _, err := r.Block(r.ctx, netip.MustParsePrefix("203.0.113.9/32"), time.Hour, "why not"); err != nil {
			t.Fatal(err)
		}
		hears("an operator", "extend 203.0.113.9")
		if _, err := r.Unblock(r.ctx, netip.MustParsePrefix("203.0.113.9/32")); err != nil {
			t.Fatal(err)
		}
		hears("mercy", "unblock 203.0.113.9 (operator)")
		r.says(listener.Overspent, "203.0.113.10", 200)
		hears("a spent budget", "probe 203.0.113.10", "doubt (trigger.budget is spent)")
		time.Sleep(11 * time.Minute)
		hears("time", "trust (trigger.budget is spent)", "unblock 203.0.113.7 (expired)")
		if _, err := r.Block(r.ctx, netip.MustParsePrefix("203.0.113.0/28"), 0, ""); err != nil {
			t.Fatal(err)
		}
		hears("a prefix", "block 203.0.113.0/28")
		if _, err := r.UnblockAll(r.ctx); err != nil {
			t.Fatal(err)
		}
		hears("mercy for all", "unblock 203.0.113.0/28 (operator)")
	})
}

// TestNoticesOfDamage shows that the audience hears of a block although the
// disk is full, and of a table that was mended.
func TestNoticesOfDamage(t *testing.T) {
	drive(t, senseConfig(), func(r *rig) {
		r.in(func() { r.store.fail = unix.ENOSPC })
		r.touch("203.0.113.7", 23)
		if diff := cmp.Diff([]string{"sentence 203.0.113.7", "block 203.0.113.7"}, r.notices()); diff != "" {
			t.Errorf("with a full disk (-want +got):\n%s", diff)
		}
		r.in(func() { r.harm("it is a test", nil) })
		time.Sleep(time.Second)
		synctest.Wait()
		if diff := cmp.Diff([]string{"heal (our table was made again)"}, r.notices()); diff != "" {
			t.Errorf("mended (-want +got):\n%s", diff)
		}
	})
}

// TestResponses shows what comes of a trigger by protocol.
func TestResponses(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*Config)
		want   []string
		stats  Stats
	}{
		"run": {
			func(c *Config) { c.TCP = RespondRun },
			[]string{"run 203.0.113.7", "probe 203.0.113.7"},
			Stats{Events: 2, Triggered: 1},
		},
		"log": {
			func(c *Config) { c.TCP = RespondLog },
			[]string{"would-block 203.0.113.7", "probe 203.0.113.7"},
			Stats{Events: 2, WouldHave: 1},
		},
		"observed run": {
			func(c *Config) { c.TCP, c.Observe, c.Table.Enforce = RespondRun, true, false },
			[]string{"would-block 203.0.113.7", "probe 203.0.113.7"},
			Stats{Events: 2, WouldHave: 1},
		},
		"the other protocol": {
			func(c *Config) { c.UDP = RespondRun },
			[]string{"sentence 203.0.113.7", "block 203.0.113.7", "probe 203.0.113.7"},
			Stats{Events: 2, Blocked: 1},
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := senseConfig()
			tt.change(&cfg)
			drive(t, cfg, func(r *rig) {
				r.touch("203.0.113.7", 23)
				r.touch("203.0.113.7", 111)
				if diff := cmp.Diff(tt.want, r.notices()); diff != "" {
					t.Errorf("heard (-want +got):\n%s", diff)
				}
				s, err := r.Stats(r.ctx)
				if err != nil {
					t.Fatal(err)
				}
				got := Stats{Events: s.Events, Triggered: s.Triggered, WouldHave: s.WouldHave, Blocked: s.Blocked}
				if diff := cmp.Diff(tt.stats, got); diff != "" {
					t.Errorf("stats (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// TestResponseOfEither shows that what may be of either protocol gets the more
// careful response.
func TestResponseOfEither(t *testing.T) {
	for _, tt := range []struct{ tcp, udp, want Response }{
		{RespondBlock, RespondBlock, RespondBlock},
		{RespondRun, RespondBlock, RespondRun},
		{RespondBlock, RespondLog, RespondLog},
		{RespondLog, RespondRun, RespondLog},
	} {
		if got := (Config{TCP: tt.tcp, UDP: tt.udp}).response(0); got != tt.want {
			t.Errorf("TCP %v, UDP %v: %v, want %v", tt.tcp, tt.udp, got, tt.want)
		}
	}
}

// TestNoticesInOrder shows that what became of a source last is heard last,
// whatever the store does first.
func TestNoticesInOrder(t *testing.T) {
	drive(t, senseConfig(), func(r *rig) {
		p := netip.MustParsePrefix("203.0.113.7/32")
		for range 3 {
			if _, err := r.Block(r.ctx, p, time.Hour, ""); err != nil {
				t.Fatal(err)
			}
			if _, err := r.Unblock(r.ctx, p); err != nil {
				t.Fatal(err)
			}
		}
		r.touch("203.0.113.7", 23)
		want := []string{
			"block 203.0.113.7", "unblock 203.0.113.7 (operator)", "block 203.0.113.7", "unblock 203.0.113.7 (operator)",
			"block 203.0.113.7", "unblock 203.0.113.7 (operator)", "sentence 203.0.113.7", "block 203.0.113.7",
		}
		if diff := cmp.Diff(want, r.notices()); diff != "" {
			t.Errorf("heard (-want +got):\n%s", diff)
		}
	})
}

// TestNoticesOfChanges shows what is heard of a panic and of another
// configuration, and nothing of a panic where there is one already.
func TestNoticesOfChanges(t *testing.T) {
	const off, on = `(nothing is noticed or blocked until "nftsentry resume")`, "(blocks and sensors are in force)"
	observe, unlisted := testConfig(), testConfig()
	observe.Observe, unlisted.Unlisted = true, true
	drive(t, testConfig(), func(r *rig) {
		for _, tt := range []struct {
			name string
			do   func() error
			want []string
		}{
			{"panic", func() error { _, err := r.Panic(r.ctx); return err }, []string{"panic " + off}},
			{"another panic", func() error { _, err := r.Panic(r.ctx); return err }, nil},
			{"reload in a panic", func() error { return errOf(r.Reconfigure(r.ctx, testConfig(), nil)) },
				[]string{`reload (another configuration holds: nothing is noticed or blocked until "nftsentry resume")`}},
			{"resume", func() error { _, err := r.Resume(r.ctx); return err }, []string{"resume " + on}},
			{"observe", func() error { return errOf(r.Reconfigure(r.ctx, observe, nil)) },
				[]string{"reload (another configuration holds: what would be blocked is only logged)"}},
			{"unlisted", func() error { return errOf(r.Reconfigure(r.ctx, unlisted, nil)) },
				[]string{"reload (another configuration holds: nothing is noticed or blocked until ignore.files can be read)"}},
			{"listed", func() error { return r.SetListed(r.ctx, NewListed()) },
				[]string{"resume (it is known who is ignored: blocks and sensors are in force)"}},
			{"listed again", func() error { return r.SetListed(r.ctx, NewListed()) }, nil},
		} {
			if err := tt.do(); err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
			if diff := cmp.Diff(tt.want, r.notices()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tt.name, diff)
			}
		}
	})
}
