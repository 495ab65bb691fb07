package main

import (
	"nftsentry/controller"
	"nftsentry/controller/compat"
	"nftsentry/nft"
	"nftsentry/state"
)

// hear is the controller's audience: it hands on what has happened, and waits
// for nobody.
func (g *guard) hear(n controller.Notice) {
	if g.metrics != nil {
		measure(g.metrics, n)
	}
	if !g.cfg.Load().Log.Compat {
		return
	}
	for _, line := range compatLines(n) {
		g.compat.Tell(line)
	}
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
