package main

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"nftsentry/controller"
	"nftsentry/controller/trace"
	"nftsentry/listener"
	"nftsentry/nft"
	"nftsentry/state"
)

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// someone is a source with an address, of which nothing is known.
func someone() *known {
	addr := netip.MustParseAddr("203.0.113.7")
	cfg := controller.Config{
		TCP: controller.RespondBlock, UDP: controller.RespondBlock, Connects: 2, Window: time.Minute,
		Table: nft.Config{JudgeTCP: true, JudgeUDP: true, Ports: 3, Window: time.Minute, Prefix6: 64},
	}
	return &known{Explanation: controller.Explanation{Address: addr, Source: netip.PrefixFrom(addr, 32), Config: cfg}, now: noon}
}

// probe adds an unproven probe so long ago.
func (k *known) probe(port uint16, outcome string, ago time.Duration) {
	k.probes.Total++
	k.probes.Probes = append(k.probes.Probes, trace.Probe{
		Time: noon.Add(-ago), Address: k.Address, Port: port, Protocol: "tcp", Kind: "syn", Outcome: outcome,
	})
}

// suspect has the kernel count ports for so long already.
func (k *known) suspect(ago time.Duration, ports ...uint16) {
	k.kernel.Suspect = &nft.Held{Left: time.Minute - ago}
	for _, p := range ports {
		k.kernel.Ports = append(k.kernel.Ports, nft.HeldPort{Protocol: byte(listener.TCP), Port: p, Left: time.Minute - ago})
	}
}

func heldHost(left time.Duration) *nft.Held {
	return &nft.Held{Set: "blocked4", Left: left, Comment: "tcp/23 connect"}
}

func TestWhy(t *testing.T) {
	block := state.Block{Source: netip.MustParsePrefix("203.0.113.7/32"), Since: noon, Until: noon.Add(10 * time.Minute), Origin: state.OriginDecoy, Comment: "tcp/23 connect"}
	for name, tt := range map[string]struct {
		change func(*known)
		why    string
		notes  []string
	}{
		"nothing":  {func(*known) {}, "nothing was noticed of it", nil},
		"one port": {func(k *known) { k.probe(200, "probe", 2*time.Second); k.suspect(2*time.Second, 200) }, "1 of 3 ports within 1m", nil},
		"a port of an earlier window": {func(k *known) {
			k.probe(200, "probe", 50*time.Second)
			k.probe(201, "probe", 2*time.Second)
			k.suspect(2*time.Second, 200, 201)
		}, "1 of 3 ports within 1m", nil},
		"unheard ports": {func(k *known) { k.suspect(2 * time.Second) }, "1 of 3 ports within 1m", nil},
		"long ago": {func(k *known) { k.probe(200, "probe", time.Hour) },
			"what it touched is forgotten: it was longer ago than trigger.window (1m)", nil},
		"one connection": {func(k *known) { k.probe(23, "probe", time.Second); k.Connects = []time.Time{noon.Add(-time.Second)} },
			"1 of 2 connections to decoys within 1m", nil},
		"connection and port": {func(k *known) {
			k.probe(200, "probe", time.Second)
			k.suspect(time.Second, 200)
			k.Connects = []time.Time{noon.Add(-time.Second)}
		}, "1 of 2 connections to decoys within 1m, and 1 of 3 ports within 1m", nil},
		"overspent": {func(k *known) { k.probe(200, "overspent", time.Second) }, "the budget was spent when it reached the trigger (trigger.budget)", nil},
		"crowded":   {func(k *known) { k.probe(200, "crowded", time.Second) }, "its probe was not counted: a set of the kernel was full", nil},
		"run": {func(k *known) { k.Config.TCP = controller.RespondRun; k.probe(23, "run", time.Second) },
			"tcp.respond = \"run\": what it did was left to the hooks", nil},
		"log": {func(k *known) { k.Config.TCP = controller.RespondLog; k.probe(23, "would-block", time.Second) },
			"tcp.respond is not \"block\": what it does is only logged", nil},
		"peer": {func(k *known) { k.probe(200, "exempted", time.Second); k.kernel.Peer = &nft.Held{Left: time.Hour} },
			"it is a peer, by a session on a port of ignore.sessions: packets that can be forged do not count against it", nil},
		"over the trigger": {func(k *known) {
			for port := uint16(200); port < 203; port++ {
				k.probe(port, "probe", time.Second)
			}
			k.suspect(time.Second, 200, 201, 202)
		}, "it reached the trigger, and the kernel did not block it: the budget was spent, or its packets came by another way than answers would go", nil},
		"expired": {func(k *known) {
			k.probe(23, "block", time.Hour)
			k.Last = state.Block{Source: block.Source, Until: noon.Add(-50 * time.Minute)}
			k.ending = trace.Ending{Time: noon.Add(-50 * time.Minute), Reason: "expired"}
		}, "the block ended at 2026-11-24T11:10:00Z (expired)", nil},
		"ended before the start": {func(k *known) { k.Last = state.Block{Source: block.Source, Until: noon.Add(-50 * time.Minute)} },
			"the block ended at 2026-11-24T11:10:00Z", nil},
		"forgiven": {func(k *known) {
			k.probe(23, "block", time.Hour)
			k.ending = trace.Ending{Time: noon.Add(-50 * time.Minute), Reason: "operator"}
		}, "the block ended at 2026-11-24T11:10:00Z (operator)", nil},
		"again after a block": {func(k *known) {
			k.Last = state.Block{Source: block.Source, Until: noon.Add(-50 * time.Minute)}
			k.probe(200, "probe", time.Second)
			k.suspect(time.Second, 200)
		}, "1 of 3 ports within 1m", nil},
		"ignored": {func(k *known) { k.IgnoredBy, k.IgnoredFor, k.Panicked = block.Source, "gateway", true }, "ignored by 203.0.113.7 (gateway)", nil},
		"panic": {func(k *known) { k.Panicked, k.Block = true, block },
			"suspended by panic: nothing is noticed or blocked until \"nftsentry resume\"", []string{"the block on record is not in force: mode is panic"}},
		"observe": {func(k *known) { k.Config.Observe = true }, "mode is observe: nobody is blocked, and nothing was noticed of it", nil},
		"blocked": {func(k *known) { k.Block, k.kernel.Host = block, heldHost(10*time.Minute) },
			"blocked as 203.0.113.7 by decoy (tcp/23 connect)", nil},
		"blocked for another time": {func(k *known) { k.Block, k.kernel.Host = block, heldHost(5*time.Minute) },
			"blocked as 203.0.113.7 by decoy (tcp/23 connect)", []string{"the kernel lets it go in 5m, our record in 10m"}},
		"blocked by hand": {func(k *known) { k.kernel.Host = heldHost(5 * time.Minute) }, "blocked by the kernel (tcp/23 connect)",
			[]string{"the kernel blocks it, and there is no block on record: it was made this moment, or by hand"}},
		"taken out": {func(k *known) { k.Block = block }, "it should be, but the kernel does not hold its block",
			[]string{"the kernel does not hold the block on record: somebody has taken it out, which is mended when it is noticed; see the log"}},
		"no kernel": {func(k *known) { k.unreadable = errors.New("no right") }, "not known: the kernel cannot be asked",
			[]string{"the kernel cannot be asked: no right"}},
	} {
		t.Run(name, func(t *testing.T) {
			k := someone()
			tt.change(k)
			x := k.explanation()
			if x.Why != tt.why {
				t.Errorf("why %q, want %q", x.Why, tt.why)
			}
			if len(x.Notes) != len(tt.notes) || len(x.Notes) > 0 && x.Notes[0] != tt.notes[0] {
				t.Errorf("notes %q, want %q", x.Notes, tt.notes)
			}
		})
	}
}

// TestRemember shows what is kept of a probe, from its sentence to its block.
func TestRemember(t *testing.T) {
	log, source := trace.New(), netip.MustParsePrefix("203.0.113.7/32")
	e := listener.Event{
		Time: noon, Source: netip.MustParseAddrPort("203.0.113.7:4000"), Target: netip.MustParseAddrPort("192.0.2.1:23"),
		Protocol: listener.TCP, Kind: listener.Connect, Evidence: listener.Proven,
	}
	for _, what := range []controller.What{controller.Sentenced, controller.Blocked} {
		remember(log, controller.Notice{What: what, Source: source, Event: e})
	}
	e.Time, e.Verdict, e.Evidence = noon.Add(time.Second), listener.Overspent, listener.Unproven
	remember(log, controller.Notice{What: controller.Probed, Source: source, Event: e})
	remember(log, controller.Notice{What: controller.Unblocked, Source: source, Time: noon.Add(time.Hour), Reason: "expired"})
	remember(log, controller.Notice{What: controller.Healed})
	h, _ := log.Probes(source)
	if h.Total != 2 || h.Probes[0].Outcome != "block" || !h.Probes[0].Proven || h.Probes[1].Outcome != "overspent" || h.Probes[1].Proven {
		t.Errorf("remembered: %+v", h)
	}
	if got, _ := log.Ended(source); got.Reason != "expired" {
		t.Errorf("ended: %+v", got)
	}
}
