package controller

import (
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"nftsentry/listener"
)

// asked explains an address.
func (r *rig) asked(address string) Explanation {
	r.t.Helper()
	synctest.Wait()
	x, err := r.Explain(r.ctx, netip.MustParseAddr(address))
	if err != nil {
		r.t.Fatal(err)
	}
	return x
}

// TestExplainSource shows what is blocked for an address, and which block it lies in.
func TestExplainSource(t *testing.T) {
	drive(t, senseConfig(), func(r *rig) {
		for _, p := range []string{"203.0.113.0/24", "203.0.113.7/32", "2001:db8:1::/64", "2001:db8:2::/64", "2001:db8::/40"} {
			if _, err := r.Block(r.ctx, netip.MustParsePrefix(p), time.Hour, ""); err != nil {
				t.Fatal(err)
			}
		}
		for _, tt := range []struct{ address, source, block, ignored string }{
			{"198.51.100.1", "198.51.100.1/32", "invalid Prefix", ""},
			{"203.0.113.7", "203.0.113.7/32", "203.0.113.7/32", ""},
			{"::ffff:203.0.113.7", "203.0.113.7/32", "203.0.113.7/32", ""},
			{"203.0.113.8", "203.0.113.8/32", "203.0.113.0/24", ""},
			{"2001:db8:2::5", "2001:db8:2::/64", "2001:db8:2::/64", ""},
			{"2001:db8:3::5", "2001:db8:3::/64", "2001:db8::/40", ""},
			{"2001:db8:1::5", "2001:db8:1::5/128", "2001:db8::/40", ""}, // a neighbour
			{"2001:dbff:1::5", "2001:dbff:1::/64", "invalid Prefix", ""},
			{"192.0.2.9", "192.0.2.9/32", "invalid Prefix", "192.0.2.0/24 ignore.sources"},
			{"10.0.0.1", "10.0.0.1/32", "invalid Prefix", "10.0.0.1/32 gateway"},
			{"127.0.0.5", "127.0.0.5/32", "invalid Prefix", "127.0.0.0/8 loopback"},
		} {
			x := r.asked(tt.address)
			ignored := ""
			if x.IgnoredBy.IsValid() {
				ignored = x.IgnoredBy.String() + " " + x.IgnoredFor
			}
			if x.Source.String() != tt.source || x.Block.Source.String() != tt.block || ignored != tt.ignored {
				t.Errorf("%s: source %v, block %v, ignored by %q, want %+v", tt.address, x.Source, x.Block.Source, ignored, tt)
			}
		}
		for _, address := range []netip.Addr{{}, netip.MustParseAddr("fe80::1%eth0")} {
			if _, err := r.Explain(r.ctx, address); !errors.Is(err, ErrInvalid) {
				t.Errorf("%v: %v, want %v", address, err, ErrInvalid)
			}
		}
	})
}

// TestExplainLife follows a source from its first connection to when its block
// is forgotten.
func TestExplainLife(t *testing.T) {
	cfg := senseConfig()
	cfg.Connects = 2
	drive(t, cfg, func(r *rig) {
		const who = "203.0.113.7"
		expect := func(what string, connects int, blocked bool, strikes int) {
			t.Helper()
			x := r.asked(who)
			if len(x.Connects) != connects || x.Block.Source.IsValid() != blocked || x.Strikes != strikes {
				t.Errorf("%s: %d connections, block %v, %d strikes, want %d, %t, %d",
					what, len(x.Connects), x.Block.Source, x.Strikes, connects, blocked, strikes)
			}
		}
		expect("before", 0, false, 0)
		r.touch(who, 23)
		expect("one connection", 1, false, 0)
		time.Sleep(cfg.Window + time.Second)
		expect("when that is forgotten", 0, false, 0)
		r.touch(who, 23)
		r.touch(who, 23)
		expect("two connections", 0, true, 0)
		time.Sleep(cfg.Timeout + time.Second)
		expect("after the block", 0, false, 1)
		if x := r.asked(who); !x.Last.Until.Before(time.Now()) || x.Forgotten.Sub(x.Last.Until) != cfg.Forget {
			t.Errorf("the last block ended at %v and is forgotten at %v", x.Last.Until, x.Forgotten)
		}
		time.Sleep(cfg.Forget)
		expect("when the block is forgotten", 0, false, 0)
		if _, err := r.Panic(r.ctx); err != nil {
			t.Fatal(err)
		}
		if x := r.asked(who); !x.Panicked {
			t.Error("it does not tell of a panic")
		}
	})
}

// TestExplainTold shows what only the daemon counts.
func TestExplainTold(t *testing.T) {
	cfg := senseConfig()
	cfg.TCP, cfg.Table.JudgeTCP = RespondLog, false
	drive(t, cfg, func(r *rig) {
		for port := uint16(200); port < 202; port++ {
			r.says(listener.Noticed, "203.0.113.7", port)
		}
		if x := r.asked("203.0.113.7"); x.Told != 2 || x.Config.Judged("tcp") || x.Config.Blocks("tcp") || !x.Config.Blocks("udp") || x.Config.Blocks("") {
			t.Errorf("%d ports told, judged %t", x.Told, x.Config.Judged("tcp"))
		}
		for port := uint16(202); port < 210; port++ {
			r.says(listener.Noticed, "203.0.113.7", port)
		}
		if x := r.asked("203.0.113.7"); !x.Would.After(time.Now()) {
			t.Errorf("said to be blocked until %v", x.Would)
		}
		time.Sleep(cfg.Table.Window + time.Second)
		if x := r.asked("203.0.113.7"); x.Told != 0 {
			t.Errorf("%d ports told after the window", x.Told)
		}
	})
}

// TestNoticeSource shows that each notice about somebody tells as what he is
// or would be blocked.
func TestNoticeSource(t *testing.T) {
	drive(t, senseConfig(), func(r *rig) {
		r.says(listener.Noticed, "2001:db8:2::5", 200)
		r.says(listener.Exempted, "2001:db8:2::6", 200)
		r.says(listener.Overspent, "2001:db8:2::7", 200)
		r.touch("2001:db8:2::8", 23)
		synctest.Wait()
		if _, err := r.UnblockAll(r.ctx); err != nil {
			t.Fatal(err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		n := 0
		for _, notice := range r.heard {
			if notice.What == Doubted {
				continue
			}
			n++
			if got := notice.Source.String(); got != "2001:db8:2::/64" {
				t.Errorf("%v is about %s", notice.What, got)
			}
		}
		if n != 6 {
			t.Errorf("%d notices, want 6", n)
		}
	})
}
