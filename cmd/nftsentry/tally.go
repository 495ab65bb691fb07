package main

import (
	"context"
	"os"
	"time"

	"go.uber.org/zap"

	"nftsentry/controller"
	"nftsentry/controller/api"
	"nftsentry/controller/tally"
)

// reportRows is how many rows of a list a report has at the most.
const reportRows = 50

// counted is what the notices are counted as; the others are not.
var counted = map[controller.What]tally.What{
	controller.Probed: tally.Probe, controller.Exempted: tally.Exempt, controller.Ignored: tally.Ignore, controller.Repeated: tally.Repeat,
	controller.Blocked: tally.Block, controller.Extended: tally.Extend, controller.Unblocked: tally.Unblock,
	controller.WouldBlock: tally.Would, controller.Triggered: tally.Run, controller.Doubted: tally.Doubt, controller.Healed: tally.Heal,
}

// count counts what has happened.
func (g *guard) count(n controller.Notice) {
	if what, ok := counted[n.What]; ok {
		g.tally.Add(tallied(what, n))
	}
}

// tallied is a notice as it is counted.
func tallied(what tally.What, n controller.Notice) tally.Event {
	e := tally.Event{
		Time: n.Time, What: what, Blocked: n.Block.Source, Kind: n.Block.Kind,
		Evidence: n.Block.Evidence, Origin: string(n.Block.Origin), Strikes: n.Block.Strikes, Comment: n.Block.Comment,
	}
	if !n.Event.Source.IsValid() {
		return e
	}
	e.Source, e.Kind = n.Event.Source.Addr(), n.Event.Kind.String()
	e.Port = tally.Port{Number: n.Event.Target.Port()}
	if n.Event.Protocol != 0 {
		e.Port.Protocol = n.Event.Protocol.String()
	}
	return e
}

// drops reads what the kernel has dropped. When the controller has ended, the
// table belongs to who has ended it.
func (g *guard) drops(ctx context.Context) (tally.Drops, error) {
	if g.ended.Load() {
		c, err := g.table.Counters()
		return tally.Drops{Packets: c.Dropped.Packets, Bytes: c.Dropped.Bytes}, err
	}
	c, unreadable, err := g.counters(ctx)
	if err == nil {
		err = unreadable
	}
	return tally.Drops{Packets: c.Dropped.Packets, Bytes: c.Dropped.Bytes}, err
}

// writeTally writes what was counted last, when nothing happens any more.
func (g *guard) writeTally(ctx context.Context) {
	g.tally.Write(ctx)
	if err := g.store.WriteTally(); err != nil {
		g.log.Warn("the counts of the last minutes are lost to the report", zap.Error(err))
	}
}

// Report sums up what was counted, up to now.
func (g *guard) Report(ctx context.Context, r api.ReportRequest) (api.Report, error) {
	stats, err := g.controller.Stats(ctx)
	if err != nil {
		return api.Report{}, err
	}
	g.tally.Write(ctx)
	out, err := readReport(g.store, r)
	out.Mode, out.Live = mode(*g.cfg.Load(), stats), stats.Live
	return out, err
}

// readReport sums up what is kept.
func readReport(from tally.Reader, r api.ReportRequest) (api.Report, error) {
	sum, err := tally.Read(from, tally.Period{Edges: r.Edges, From: r.From, To: r.To}, reportRows)
	if err != nil {
		return api.Report{}, err
	}
	host, _ := os.Hostname() // a report without its name is better than none
	out := reportOf(sum, r)
	out.Generated, out.Host = time.Now().UTC().Truncate(time.Second), host
	return out, nil
}

// reportOf is the form of a report on the wire.
func reportOf(sum tally.Report, r api.ReportRequest) api.Report {
	out := api.Report{
		Since: sum.Since.UTC(), From: r.Edges[0].UTC(), To: r.Edges[len(r.Edges)-1].UTC(), Unread: sum.Unread,
		Totals: countsOf(sum.Total.Counts),
		Before: api.ReportPart{From: r.From.UTC(), To: r.To.UTC(), Totals: countsOf(sum.Before)},
		Ports:  listOf(sum.Total.Ports, portName), Sources: listOf(sum.Total.Sources, api.Display),
		Networks: listOf(sum.Total.Networks, api.Display), Offenders: listOf(sum.Total.Offenders, api.Display),
	}
	for i := range out.Offenders.Rows {
		out.Offenders.Rows[i].Probes = 0 // they are ranked by something else
	}
	for i, c := range sum.Parts {
		out.Parts = append(out.Parts, api.ReportPart{From: r.Edges[i].UTC(), To: r.Edges[i+1].UTC(), Totals: countsOf(c)})
	}
	c := sum.Total.Counts
	for i, kind := range tally.Kinds {
		out.Kinds = append(out.Kinds, api.ReportKind{Kind: kind, Probes: c.KindProbes[i], Blocks: c.KindBlocks[i]})
	}
	for i, origin := range tally.Origins {
		out.Origins = append(out.Origins, api.ReportOrigin{Origin: origin, Blocks: c.Origins[i]})
	}
	for i, n := range c.Strikes {
		out.Strikes = append(out.Strikes, api.ReportStrike{Strikes: i, Blocks: n})
	}
	return out
}

// portName is a port as in "tcp/23".
func portName(p tally.Port) string {
	if p.Protocol == "" { // the packet's headers were too long to be seen whole
		return "hidden port"
	}
	return p.String()
}

func countsOf(c tally.Counts) api.ReportCounts {
	return api.ReportCounts{
		Probes: c.Probes, Ignored: c.Ignored, Peers: c.Exempted, Repeated: c.Repeated,
		Blocks: c.Blocks, Proven: c.Proven, Unproven: c.Unproven, Again: c.Again, Extended: c.Extended, Ended: c.Ended,
		Would: c.Would, Run: c.Run, Heals: c.Heals, Doubts: c.Doubts, Packets: c.Packets, Bytes: c.Bytes,
	}
}

// listOf is the form of a list on the wire.
func listOf[K comparable](l tally.List[K], name func(K) string) api.ReportList {
	out := api.ReportList{Rows: []api.ReportRow{}, Others: l.Rest, More: l.Cut}
	for _, r := range l.Rows {
		out.Rows = append(out.Rows, api.ReportRow{
			Name: name(r.Key), Probes: r.Weight, Blocks: r.Blocks, Would: r.Would, Strikes: r.Strikes,
			Last: time.Unix(r.Last, 0).UTC(), Comment: r.Why,
		})
	}
	return out
}
