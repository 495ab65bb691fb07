package controller

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"nftsentry/listener"
	"nftsentry/nft"
	"nftsentry/state"
)

// senseConfig is testConfig with the built-in defaults for what can be forged.
func senseConfig() Config {
	cfg := testConfig()
	cfg.Unproven = 10 * time.Minute
	cfg.Table.JudgeTCP, cfg.Table.JudgeUDP = true, true
	cfg.Table.Ports, cfg.Table.Window = 3, time.Minute
	cfg.Table.Budget = nft.Rate{Count: 120, Per: time.Minute}
	return cfg
}

// says has the kernel tell of a TCP packet.
func (r *rig) says(v listener.Verdict, source string, port uint16) {
	r.events <- listener.Event{
		Time:     time.Now(),
		Source:   netip.AddrPortFrom(netip.MustParseAddr(source), 40000),
		Target:   netip.AddrPortFrom(netip.MustParseAddr("10.0.0.2"), port),
		Protocol: listener.TCP, Kind: listener.Syn, Evidence: listener.Unproven, Verdict: v,
	}
	synctest.Wait()
}

// in does something where the controller's state may be used.
func (r *rig) in(do func()) {
	r.t.Helper()
	if err := r.Do(r.ctx, func() error { do(); return nil }); err != nil {
		r.t.Fatal(err)
	}
}

// record is what is on record of a source.
func (r *rig) record(source netip.Prefix) (b state.Block) {
	r.t.Helper()
	r.in(func() { b, _ = r.blocks.get(source) })
	return b
}

// convicts has the kernel block a source, as its rules do, and tell of it.
func (r *rig) convicts(source netip.Prefix, port uint16) {
	r.in(func() { r.kernel.ends[source] = time.Now().Add(r.cfg.Timeout) })
	r.says(listener.Convicted, source.Addr().String(), port)
}

// observed makes the log of a rig readable.
func observed(r *rig) *observer.ObservedLogs {
	core, logs := observer.New(zap.DebugLevel)
	r.in(func() {
		r.log = zap.New(core)
		r.doubts.log = r.log
	})
	return logs
}

func messages(logs *observer.ObservedLogs, text string) int {
	return len(logs.FilterMessage(text).All())
}

// TestConvicted shows that a block of the kernel is put on record, with a
// comment, and for longer where strikes say so.
func TestConvicted(t *testing.T) {
	cfg := senseConfig()
	cfg.Unproven = 2 * time.Hour
	drive(t, cfg, func(r *rig) {
		source := netip.MustParsePrefix("203.0.113.7/32")
		r.convicts(source, 111)
		r.expect("after the first", "203.0.113.7 10m0s tcp/111 syn")
		if b := r.record(source); b.Origin != state.OriginKernel || b.Evidence != "unproven" || b.Kind != "syn" {
			t.Errorf("on record as %+v", b)
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		r.convicts(source, 112)
		r.expect("after the second", "203.0.113.7 1h0m0s tcp/112 syn x2")
		time.Sleep(time.Hour)
		synctest.Wait()
		r.convicts(source, 113)
		r.expect("after the third, which is bounded", "203.0.113.7 2h0m0s tcp/113 syn x3")
	})
}

// TestProofLengthens shows that a block on unproven evidence is made one on
// proven evidence when its source completes a connection.
func TestProofLengthens(t *testing.T) {
	cfg := senseConfig()
	cfg.Unproven = time.Minute
	drive(t, cfg, func(r *rig) {
		source := netip.MustParsePrefix("203.0.113.7/32")
		r.convicts(source, 111)
		r.expect("unproven", "203.0.113.7 1m0s tcp/111 syn")
		since := time.Now()
		time.Sleep(time.Millisecond)
		r.touch("203.0.113.7", 23)
		r.expect("proven", "203.0.113.7 10m0s tcp/23 connect")
		b := r.record(source)
		if b.Evidence != "proven" || !b.Since.Equal(since) || b.Strikes != 0 {
			t.Errorf("on record as %+v", b)
		}
		r.convicts(source, 112) // late
		r.expect("what is unproven changes nothing any more", "203.0.113.7 10m0s tcp/23 connect")
	})
}

// TestConvictedTooFar shows that a source which is ignored by now is let go.
func TestConvictedTooFar(t *testing.T) {
	drive(t, senseConfig(), func(r *rig) {
		r.convicts(netip.MustParsePrefix("192.0.2.7/32"), 111)
		r.expect("an ignored source")
	})
}

// TestNoticed shows that what the kernel judges is not judged again.
func TestNoticed(t *testing.T) {
	drive(t, senseConfig(), func(r *rig) {
		for port := range uint16(10) {
			r.says(listener.Noticed, "203.0.113.7", 200+port)
			r.says(listener.Exempted, "203.0.113.8", 200+port)
		}
		r.expect("probes")
		if s, _ := r.Stats(r.ctx); s.Probes != 20 || s.Peers != 10 {
			t.Errorf("stats %+v, want 20 probes, 10 of peers", s)
		}
	})
}

// TestOnlyTold shows that what the kernel does not judge is counted as it
// would: distinct ports, in a window that begins with the first.
func TestOnlyTold(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"observe": func(c *Config) { c.Observe, c.Table.Enforce = true, false },
		"tcp":     func(c *Config) { c.TCP = RespondLog },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := senseConfig()
			change(&cfg)
			drive(t, cfg, func(r *rig) {
				logs := observed(r)
				would := func(what string, want int) {
					t.Helper()
					if got := messages(logs, "would block"); got != want {
						t.Errorf("%s: said %d times that it would block, want %d", what, got, want)
					}
				}
				r.says(listener.Noticed, "203.0.113.7", 200)
				r.says(listener.Exempted, "203.0.113.7", 201)
				r.says(listener.Noticed, "203.0.113.7", 202)
				would("two ports", 0)
				time.Sleep(time.Minute)
				r.says(listener.Noticed, "203.0.113.7", 203)
				r.says(listener.Noticed, "203.0.113.7", 204)
				would("two in each of two windows", 0)
				for port := range uint16(100) {
					r.says(listener.Noticed, "203.0.113.7", 300+port)
				}
				would("the third and all others", 1)
				r.touch("203.0.113.7", 23)
				would("a decoy connection of the same source", 1)
				r.touch("203.0.113.8", 23)
				would("a decoy connection of another", 2)
				r.expect("nothing is blocked")
				time.Sleep(10 * time.Minute)
				r.touch("203.0.113.8", 23)
				would("when its time would be up", 3)
			})
		})
	}
}

// TestBudgetOfWhatIsOnlyTold shows that the log is spared what the budget
// would spare the kernel.
func TestBudgetOfWhatIsOnlyTold(t *testing.T) {
	cfg := senseConfig()
	cfg.Observe, cfg.Table.Enforce = true, false
	cfg.Table.Ports, cfg.Table.Budget = 1, nft.Rate{Count: 5, Per: time.Minute}
	drive(t, cfg, func(r *rig) {
		logs := observed(r)
		for i := range byte(50) {
			r.says(listener.Noticed, netip.AddrFrom4([4]byte{203, 0, 113, i}).String(), 200)
		}
		if got := messages(logs, "would block"); got != 5 {
			t.Errorf("said %d times that it would block, want 5", got)
		}
		if s, _ := r.Stats(r.ctx); !slices.Equal(s.Doubts, []string{"trigger.budget is spent"}) {
			t.Errorf("doubts %q", s.Doubts)
		}
	})
}

// TestDoubts shows that a doubt is said once, and once that it is over.
func TestDoubts(t *testing.T) {
	drive(t, senseConfig(), func(r *rig) {
		logs := observed(r)
		doubts := func() []string { s, _ := r.Stats(r.ctx); return s.Doubts }
		for range 30 {
			r.says(listener.Crowded, "203.0.113.7", 200)
			time.Sleep(time.Second)
		}
		r.says(listener.Overspent, "203.0.113.7", 200)
		if got := len(doubts()); got != 2 {
			t.Errorf("%d doubts, want 2", got)
		}
		if got := messages(logs, "unproven evidence is not trusted for now; proven evidence is"); got != 2 {
			t.Errorf("warned %d times, want once for each doubt", got)
		}
		r.touch("203.0.113.9", 23)
		r.expect("proof goes its way", "203.0.113.9 10m0s tcp/23 connect")
		time.Sleep(calm + time.Millisecond)
		synctest.Wait()
		if got := doubts(); len(got) != 0 {
			t.Errorf("doubts %q, want none", got)
		}
		over := logs.FilterMessage("unproven evidence is trusted again").All()
		if len(over) != 2 {
			t.Errorf("said %d times that it is over, want 2", len(over))
		}
	})
}

// TestMissed shows that what the kernel has blocked is adopted when events
// were lost, but that the kernel is not asked all the time.
func TestMissed(t *testing.T) {
	drive(t, senseConfig(), func(r *rig) {
		logs := observed(r)
		for i := range byte(20) {
			r.in(func() {
				r.kernel.ends[netip.PrefixFrom(netip.AddrFrom4([4]byte{203, 0, 113, i}), 32)] = time.Now().Add(10 * time.Minute)
			})
			r.missed <- struct{}{}
			synctest.Wait()
		}
		if list, _ := r.List(r.ctx); len(list) != 0 {
			t.Errorf("%d listed at once, want none", len(list))
		}
		time.Sleep(reconcileAfter)
		synctest.Wait()
		if list, _ := r.List(r.ctx); len(list) != 20 {
			t.Errorf("%d listed a second later, want 20", len(list))
		}
		r.in(func() { r.kernel.ends[netip.MustParsePrefix("203.0.113.20/32")] = time.Now().Add(10 * time.Minute) })
		r.missed <- struct{}{}
		time.Sleep(reconcileAfter)
		synctest.Wait()
		if list, _ := r.List(r.ctx); len(list) != 20 {
			t.Errorf("%d listed soon after, want 20", len(list))
		}
		r.says(listener.Convicted, "203.0.113.3", 111)
		if b := r.record(netip.MustParsePrefix("203.0.113.3/32")); b.Port != 111 || b.Comment != "tcp/111 syn" {
			t.Errorf("on record as %+v, want it named", b)
		}
		time.Sleep(reconcileEvery)
		synctest.Wait()
		list, _ := r.List(r.ctx)
		if len(list) != 21 || list[19].Comment != unseen || list[19].Evidence != "unproven" || list[19].Origin != state.OriginKernel {
			t.Errorf("%d listed, want 21: %+v", len(list), list)
		}
		if got := messages(logs, "looked up what the kernel has blocked and we had not heard of"); got != 2 {
			t.Errorf("asked the kernel %d times, want twice", got)
		}
	})
}

// TestElementGone shows that a block which somebody has taken out of the
// kernel is put back, for the time that is left, when its source shows up.
func TestElementGone(t *testing.T) {
	source := netip.MustParsePrefix("203.0.113.7/32")
	for name, show := range map[string]func(r *rig){
		"decoy":  func(r *rig) { r.touch("203.0.113.7", 23) },
		"probe":  func(r *rig) { r.says(listener.Noticed, "203.0.113.7", 200) },
		"kernel": func(r *rig) { r.convicts(source, 200) },
	} {
		t.Run(name, func(t *testing.T) {
			drive(t, senseConfig(), func(r *rig) {
				if _, err := r.Block(r.ctx, source, time.Hour, "mine"); err != nil {
					t.Fatal(err)
				}
				time.Sleep(10 * time.Minute)
				r.in(func() { delete(r.kernel.ends, source) })
				show(r)
				r.expect("put back", "203.0.113.7 50m0s operator: mine")
			})
		})
	}
}

// TestServices shows that services are recalled from the store, the kernel
// and the host, and that what the kernel learns is put on record.
func TestServices(t *testing.T) {
	const day = 24 * time.Hour
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, kernel: newFakeKernel(), store: newFakeStore(), events: make(chan listener.Event), missed: make(chan struct{}), changes: make(chan nft.Change)}
		r.store.served = []state.Service{
			{Protocol: "tcp", Port: 2323, Until: time.Now().Add(day)},
			{Protocol: "udp", Port: 69, Until: time.Now().Add(2 * day)},
			{Protocol: "tcp", Port: 79, Until: time.Now()},                 // forgotten by now
			{Protocol: "tcp", Port: 9001, Until: time.Now().Add(day)},      // no tripwire
			{Protocol: "udp", Port: 40000, Until: time.Now().Add(2 * day)}, // from which the host asks
		}
		r.kernel.served = []nft.Service{{Protocol: unix.IPPROTO_TCP, Port: 2323, Timeout: 3 * day}, {Protocol: unix.IPPROTO_TCP, Port: 1023, Timeout: day}}
		cfg := senseConfig()
		cfg.Table.Port = 1023 // our own listener is no service
		cfg.Table.Decoys, cfg.Table.WatchTCP = []nft.PortRange{{First: 2323, Last: 2323}}, []nft.PortRange{{First: 1, Last: 9000}}
		cfg.Table.WatchUDP, cfg.Table.Ephemeral = []nft.PortRange{{First: 1, Last: 65535}}, nft.PortRange{First: 32768, Last: 60999}
		r.start(cfg, func(r *rig) {
			want := []nft.Service{
				{Protocol: unix.IPPROTO_TCP, Port: 2323, Timeout: 3 * day},
				{Protocol: unix.IPPROTO_UDP, Port: 69, Timeout: 2 * day},
				{Protocol: unix.IPPROTO_TCP, Port: 8080, Timeout: day},
			}
			if diff := cmp.Diff(want, r.kernel.served); diff != "" {
				t.Errorf("in the kernel (-want +got):\n%s", diff)
			}
			r.in(func() {
				r.kernel.served = append(r.kernel.served, nft.Service{Protocol: unix.IPPROTO_TCP, Port: 540, Timeout: 30 * day})
			})
			time.Sleep(learnEvery)
			synctest.Wait()
			if got := ports(r.store.served); got != "tcp/540 tcp/2323 tcp/8080 udp/69" {
				t.Errorf("on record: %s", got)
			}
			if err := r.Serve(r.ctx, []nft.Service{{Protocol: unix.IPPROTO_TCP, Port: 540, Timeout: 60 * day}, {Protocol: unix.IPPROTO_TCP, Port: 9001, Timeout: day}}); err != nil {
				t.Error(err)
			}
			if got := r.store.served; !slices.ContainsFunc(got, func(s state.Service) bool { return s.Port == 540 && time.Until(s.Until) > 59*day }) || len(got) != 4 {
				t.Errorf("on record after a service is seen again: %v", got)
			}
			r.in(func() { r.kernel.served = nil }) // somebody has deleted the table
			time.Sleep(learnEvery)
			synctest.Wait()
			if got := ports(r.store.served); got != "tcp/540 tcp/2323 tcp/8080 udp/69" {
				t.Errorf("on record without a table: %s", got)
			}
		})
	})
}

func ports(services []state.Service) string {
	services = slices.Clone(services)
	slices.SortFunc(services, func(a, b state.Service) int {
		if c := strings.Compare(a.Protocol, b.Protocol); c != 0 {
			return c
		}
		return int(a.Port) - int(b.Port)
	})
	var all []string
	for _, s := range services {
		all = append(all, fmt.Sprintf("%s/%d", s.Protocol, s.Port))
	}
	return strings.Join(all, " ")
}

// TestServicesAreNotForgotten shows that a set of services which somebody has
// emptied is filled again, and that a change of the host changes nothing.
func TestServicesAreNotForgotten(t *testing.T) {
	cfg := senseConfig()
	cfg.Table.WatchTCP = []nft.PortRange{{First: 1, Last: 9000}}
	drive(t, cfg, func(r *rig) {
		tcp := func(port uint16) nft.Service {
			return nft.Service{Protocol: unix.IPPROTO_TCP, Port: port, Timeout: 100 * time.Hour}
		}
		if err := r.Serve(r.ctx, []nft.Service{tcp(8081), tcp(8082)}); err != nil {
			t.Fatal(err)
		}
		r.in(func() { r.host.Find = func() ([]nft.Service, error) { return []nft.Service{tcp(8083)}, nil } })
		if err := r.SetHost(r.ctx, testHost()); err != nil {
			t.Fatal(err)
		}
		r.in(func() {
			r.kernel.served = r.kernel.served[:0]
			r.rediscover()
			if _, ok := r.served[service{listener.TCP, 8083}]; !ok {
				t.Error("sockets are not looked for any more")
			}
			if err := r.kernel.Serve([]nft.Service{tcp(8082)}); err != nil {
				t.Fatal(err)
			}
			r.learn()
			for _, port := range []uint16{8081, 8082, 8083} {
				if _, ok := r.served[service{listener.TCP, port}]; !ok {
					t.Errorf("port %d is forgotten", port)
				}
			}
		})
	})
}

// TestGivenUp shows that a command whose sender has gone before it was begun
// is not done.
func TestGivenUp(t *testing.T) {
	drive(t, senseConfig(), func(r *rig) {
		gone, cancel := context.WithCancel(r.ctx)
		r.in(func() { // while the loop is busy
			var g errgroup.Group
			g.Go(func() error { _, err := r.Panic(gone); return err })
			for len(r.calls) == 0 {
				runtime.Gosched()
			}
			cancel()
			if err := g.Wait(); !errors.Is(err, context.Canceled) {
				t.Errorf("Panic = %v, want it given up", err)
			}
		})
		if s, _ := r.Stats(r.ctx); s.Panicked {
			t.Error("what was given up has been done")
		}
	})
}
