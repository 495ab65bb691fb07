package main

import (
	"time"

	"nftsentry/controller"
	"nftsentry/controller/api"
	"nftsentry/controller/compat"
	"nftsentry/controller/trace"
	"nftsentry/listener"
	"nftsentry/nft"
	"nftsentry/state"
)

// hear is the controller's audience: it hands on what has happened, and waits
// for nobody.
func (g *guard) hear(n controller.Notice) {
	if g.metrics != nil {
		measure(g.metrics, n)
	}
	g.count(n)
	remember(g.trace, n)
	g.tellHooks(n)
	if feed := g.socket.Feed(); feed.Readers() > 0 {
		feed.Publish(eventOf(n))
	}
	if !g.cfg.Load().Log.Compat {
		return
	}
	for _, line := range compatLines(n) {
		g.compat.Tell(line)
	}
}

// remember keeps what a person may ask for later.
func remember(log *trace.Log, n controller.Notice) {
	switch {
	case n.What == controller.Unblocked:
		log.End(n.Source, trace.Ending{Time: n.Time, Reason: n.Reason})
	case n.Event.Source.IsValid():
		log.Add(n.Source, probeOf(n))
	}
}

// probeOf is the form of a notice in the trace.
func probeOf(n controller.Notice) trace.Probe {
	e := n.Event
	p := trace.Probe{
		Time: e.Time, Address: e.Source.Addr(), Port: e.Target.Port(), Outcome: n.What.String(), Proven: e.Evidence == listener.Proven,
	}
	if e.Protocol != 0 { // else the packet's headers were too long to be seen whole
		p.Protocol, p.Kind = e.Protocol.String(), e.Kind.String()
	}
	switch {
	case n.What == controller.Probed && e.Verdict == listener.Overspent:
		p.Outcome = outcomeOverspent
	case n.What == controller.Probed && e.Verdict == listener.Crowded:
		p.Outcome = outcomeCrowded
	}
	return p
}

// eventOf is the form of a notice on the wire.
func eventOf(n controller.Notice) api.Event {
	e := api.Event{
		Time: n.Time.UTC().Truncate(time.Microsecond), Event: n.What.String(), Reason: n.Reason, Seconds: n.Took.Seconds(),
	}
	if n.By.IsValid() {
		e.Reason = api.Display(n.By) + ": " + n.Reason
	}
	if n.Block.Source.IsValid() {
		b := api.BlockOf(n.Block)
		e.Block, e.Source = &b, b.Source
		e.Port, e.Protocol, e.Kind, e.Evidence = b.Port, b.Protocol, b.Kind, b.Evidence
	}
	if p := n.Event; p.Source.IsValid() {
		e.Source, e.Port, e.Evidence = p.Source.Addr().String(), p.Target.Port(), p.Evidence.String()
		if p.Protocol != 0 { // else the packet's headers were too long to be seen whole
			e.Protocol, e.Kind = p.Protocol.String(), p.Kind.String()
		}
	}
	return e
}

// compatLine logs as Portsentry would, if it is asked for.
func (g *guard) compatLine(line string) {
	if g.cfg.Load().Log.Compat {
		g.compat.Tell(line)
	}
}

// compatLines are what Portsentry 1.2 would have logged.
func compatLines(n controller.Notice) []string {
	if !n.Event.Source.IsValid() {
		return nil
	}
	source := n.Event.Source.Addr()
	protocol := n.Event.Protocol.String()
	attack := compat.Attack(n.Event.Kind.Portsentry(), source, protocol, n.Event.Target.Port())
	switch n.What {
	case controller.Blocked, controller.Extended:
		return []string{attack, compat.Blocked(source.String(), setOf(n.Block))}
	case controller.Triggered:
		return []string{attack}
	case controller.WouldBlock:
		return []string{attack, compat.Spared(protocol)}
	case controller.Repeated:
		return []string{attack, compat.Repeated(n.Event.Kind.Portsentry(), source)}
	}
	return nil
}

// setOf is where nft(8) shows a block.
func setOf(b state.Block) string {
	set := "blocked6"
	if b.Source.Addr().Is4() {
		set = "blocked4"
	}
	return "inet " + nft.TableName + " " + set
}
