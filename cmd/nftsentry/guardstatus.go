package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"nftsentry/conf"
	"nftsentry/controller"
	"nftsentry/controller/api"
	"nftsentry/nft"
)

// Status gathers what the parts have to say of themselves.
func (g *guard) Status(ctx context.Context) (api.Status, error) {
	stats, err := g.controller.Stats(ctx)
	if err != nil {
		return api.Status{}, err
	}
	cfg, list := g.cfg.Load(), g.list.Load()
	s := api.Status{
		Version: version, PID: os.Getpid(), Started: g.started.UTC().Truncate(time.Second),
		Mode: mode(*cfg, stats), Config: *g.file.Load(), State: cfg.State.Dir,
		Decoys:  g.decoyStatus(*cfg),
		Watched: g.watchedStatus(*cfg, stats),
		Blocks: api.Blocks{
			Live: stats.Live, Made: stats.Blocked, Unproven: stats.Unproven, Ended: stats.Ended,
			Ran: stats.Triggered, Would: stats.WouldHave, Failed: stats.Failed, Evicted: stats.Evicted,
		},
		Ignored:  api.Ignored{Prefixes: stats.Prefixes, Files: len(cfg.Ignore.Files), Listed: list.list.Len(), Events: stats.Ignored},
		Mended:   stats.Mended,
		Hooks:    hookStatus(g.hooks.Stats()), // a service is asked, and its answer is in what follows
		Service:  g.serviceStatus(),
		Sandbox:  g.sandboxStatus(),
		Readers:  g.socket.Feed().Readers(),
		Problems: []string{},
		Logged:   protocols(*cfg, conf.RespondLog),
		Run:      protocols(*cfg, conf.RespondRun),
	}
	counters, unreadable, err := g.counters(ctx)
	if err != nil {
		return api.Status{}, err
	}
	s.Dropped = api.Dropped{Packets: counters.Dropped.Packets, Bytes: counters.Dropped.Bytes}
	s.Watched.Flooded, s.Watched.Crowded, s.Watched.BudgetSpent = counters.Flooded.Packets, counters.Crowded.Packets, counters.Spent.Packets
	s.Problems = append(s.Problems, problems(s, unreadable, g.store.Degraded())...)
	if stats.Damage != nil {
		s.Problems = append(s.Problems, fmt.Sprintf("our table cannot be made again: %v: trying on", stats.Damage))
	}
	if stats.Panicked {
		s.Problems = append(s.Problems, "nothing is noticed or blocked until \"nftsentry resume\"")
	}
	s.Problems = append(s.Problems, list.problems()...)
	s.Problems = append(s.Problems, g.sandboxProblems()...)
	if p := hookProblem(s.Service); p != "" {
		s.Problems = append(s.Problems, p)
	}
	for _, reason := range stats.Doubts {
		s.Problems = append(s.Problems, "unproven evidence makes no blocks for now: "+reason)
	}
	return s, nil
}

// protocols are those whose evidence gets a response.
func protocols(cfg conf.Config, want conf.Respond) []string {
	out := []string{}
	if cfg.TCP.Respond == want {
		out = append(out, "tcp")
	}
	if cfg.UDP.Respond == want {
		out = append(out, "udp")
	}
	return out
}

// mode is the configured one, or what suspends it.
func mode(cfg conf.Config, stats controller.Stats) string {
	if stats.Panicked {
		return "panic"
	}
	if stats.Unlisted {
		return "suspended"
	}
	return string(cfg.Mode)
}

// counters asks the kernel, in the controller's goroutine. Unreadable says why
// the table cannot be read; err, why it was not asked.
func (g *guard) counters(ctx context.Context) (c nft.Counters, unreadable, err error) {
	type answer struct {
		nft.Counters
		err error
	}
	answers := make(chan answer, 1) // who has stopped waiting shares nothing with who reads
	err = g.controller.Do(ctx, func() error {
		c, err := g.table.Counters()
		answers <- answer{c, err}
		return nil
	})
	if err != nil {
		return nft.Counters{}, nil, err
	}
	a := <-answers
	return a.Counters, a.err, nil
}

// problems says what is not as it should be.
func problems(s api.Status, table, store error) []string {
	var out []string
	if table != nil {
		out = append(out, fmt.Sprintf("the table inet %s cannot be read: %v", nft.TableName, table))
	}
	if store != nil {
		out = append(out, fmt.Sprintf("blocks are in force but not all on disk: %v", store))
	}
	if s.Blocks.Failed > 0 {
		out = append(out, fmt.Sprintf("the kernel refused %s: see the log", plural(int(s.Blocks.Failed), "block")))
	}
	if s.Decoys.Lost > 0 {
		out = append(out, fmt.Sprintf("%s came too fast to be looked at", plural(int(s.Decoys.Lost), "decoy connection")))
	}
	if s.Decoys.Starved > 0 {
		out = append(out, "the decoy listener was short of files or memory: see the log")
	}
	return out
}

func (g *guard) decoyStatus(cfg conf.Config) api.Decoys {
	d := g.decoy.Stats()
	return api.Decoys{
		Ports: count(cfg.TCP.Decoys()), Listener: g.decoy.Port(), Connections: d.Accepted, Lost: d.Lost, Starved: d.Starved,
	}
}

func (g *guard) watchedStatus(cfg conf.Config, stats controller.Stats) api.Watched {
	n := g.nflog.Stats()
	return api.Watched{
		TCP: count(cfg.TCP.Watched()), UDP: count(cfg.UDP.Watched()), Served: stats.Served,
		Probes: stats.Probes, Peers: stats.Peers, Lost: n.Lost, Overruns: n.Overruns, Malformed: n.Malformed,
	}
}

// count is how many ports there are in ranges that are disjoint.
func count(ranges []conf.PortRange) int {
	n := 0
	for _, r := range ranges {
		n += int(r.Last) - int(r.First) + 1
	}
	return n
}
