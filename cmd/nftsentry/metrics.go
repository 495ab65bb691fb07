package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"

	"nftsentry/conf"
	"nftsentry/controller"
	"nftsentry/controller/metrics"
)

// openMetrics comes before the controller, which tells of what it does from its
// start on. Who scrapes earlier than Run waits.
func (g *guard) openMetrics(cfg conf.Config) (err error) {
	if cfg.Metrics.Listen == "" {
		return nil
	}
	if g.scrapes, err = metrics.Listen(cfg.Metrics.Listen); err != nil {
		return fmt.Errorf("metrics.listen = %q: %w", cfg.Metrics.Listen, err)
	}
	g.closeLater(func() error {
		if err := g.scrapes.Close(); !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	})
	g.metrics = metrics.New(metrics.Config{Version: version, Read: g.reading, Hooks: hookStats{g.hooks}}, g.log.Named("metrics"))
	return nil
}

// hookStats are what the hooks have to say of themselves, by their places in
// the configuration: what they run or reach is no label.
type hookStats struct{ hooks hooks }

// HookStats are those of all hooks.
func (h hookStats) HookStats() []metrics.HookStat {
	var out []metrics.HookStat
	for _, s := range h.hooks.Stats() {
		out = append(out, metrics.HookStat{
			Hook: s.Name, Done: s.Done, Failed: s.Failed, Dropped: s.Dropped, Limited: s.Limited, TimedOut: s.TimedOut,
		})
	}
	return out
}

// outcomes are what comes of the event of a notice. Who is to be blocked is
// counted when he is.
var outcomes = map[controller.What]metrics.Outcome{
	controller.Probed: metrics.Noticed, controller.Exempted: metrics.Exempted, controller.Ignored: metrics.Ignored,
	controller.Repeated: metrics.Repeated, controller.Blocked: metrics.Blocked, controller.Extended: metrics.Extended,
	controller.WouldBlock: metrics.WouldBlock, controller.Triggered: metrics.Triggered,
}

// measure counts what a notice tells of.
func measure(m *metrics.Metrics, n controller.Notice) {
	seen := !n.Event.Time.IsZero()
	if o, ok := outcomes[n.What]; ok && seen {
		m.Event(metrics.Probe{Protocol: n.Event.Protocol.String(), Kind: n.Event.Kind.String(), Evidence: n.Event.Evidence.String()}, o)
	}
	switch n.What {
	case controller.Blocked:
		m.BlockMade(string(n.Block.Origin))
		if seen {
			m.TimeToBlock(n.Block.Evidence, n.Took)
		}
	case controller.Extended:
		m.BlockExtended(string(n.Block.Origin))
	case controller.Unblocked:
		m.BlockEnded(n.Reason)
	case controller.Healed:
		m.Healed()
	}
}

// reading gathers what the parts have to say of themselves, as Status does.
func (g *guard) reading(ctx context.Context) (metrics.Reading, error) {
	stats, err := g.controller.Stats(ctx)
	if err != nil {
		return metrics.Reading{}, err
	}
	counters, unreadable, err := g.counters(ctx)
	if err != nil {
		return metrics.Reading{}, err
	}
	r := readingOf(*g.cfg.Load(), stats)
	r.Degraded, r.Unreadable = g.store.Degraded() != nil, g.list.Load().err != nil
	if s := g.serviceStatus(); s != nil {
		r.HookService = &metrics.HookService{Up: s.Problem == "", Waiting: s.Waiting, Dropped: s.Dropped}
	}
	n, d := g.nflog.Stats(), g.decoy.Stats()
	r.NFLOG = metrics.NFLOG{Messages: n.Received, Lost: n.Lost, Overruns: n.Overruns, Malformed: n.Malformed}
	r.Decoy = metrics.Decoy{Connections: d.Accepted, Lost: d.Lost, Starved: d.Starved}
	if unreadable != nil {
		r.Damaged = true
		return r, nil
	}
	r.Kernel = &metrics.Kernel{
		DroppedPackets: counters.Dropped.Packets, DroppedBytes: counters.Dropped.Bytes,
		Flooded: counters.Flooded.Packets, Crowded: counters.Crowded.Packets, Overspent: counters.Spent.Packets,
	}
	return r, nil
}

// readingOf is what the controller and the configuration have to say.
func readingOf(cfg conf.Config, s controller.Stats) metrics.Reading {
	return metrics.Reading{
		Enforcing: mode(cfg, s) == string(conf.Enforce), Panicked: s.Panicked, Damaged: s.Damage != nil,
		Blocks4: s.Live - s.Live6, Blocks6: s.Live6, BlocksLimit: cfg.Block.Max,
		WouldBlock: s.WouldHave, Triggered: s.Triggered, Failed: s.Failed, Evicted: s.Evicted,
		BudgetLimit: cfg.Trigger.Budget.Count, BudgetPeriod: cfg.Trigger.Budget.Per,
		Crowded:         slices.Contains(s.Doubts, controller.DoubtCrowded),
		Overspent:       slices.Contains(s.Doubts, controller.DoubtBudget),
		IgnoredPrefixes: s.Prefixes, ServedPorts: s.Served,
	}
}
