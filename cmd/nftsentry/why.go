package main

import (
	"fmt"
	"time"

	"nftsentry/conf"
	"nftsentry/controller"
	"nftsentry/controller/api"
)

// Outcomes of probes that are no event of their own.
const (
	outcomeOverspent = "overspent"
	outcomeCrowded   = "crowded"
)

// why is one sentence for who asks why an address is blocked, or why not: of
// several reasons the one that would hold if the others were gone.
func (k *known) why(x api.Explanation) string {
	switch {
	case x.Ignored != nil:
		return fmt.Sprintf("ignored by %s (%s)", x.Ignored.Prefix, x.Ignored.Reason)
	case k.Panicked:
		return "suspended by panic: nothing is noticed or blocked until \"nftsentry resume\""
	case k.Config.Observe:
		return "mode is observe: " + k.onlyLogged(x)
	case x.Blocked:
		return k.whyBlocked(x)
	case k.unreadable != nil:
		return "not known: the kernel cannot be asked"
	case x.Block != nil:
		return "it should be, but the kernel does not hold its block"
	}
	if p := k.newest(); p != nil {
		return k.whyNot(x, p.Protocol, p.Outcome)
	}
	return k.whyQuiet(x)
}

func (k *known) whyBlocked(x api.Explanation) string {
	if x.Block == nil {
		return fmt.Sprintf("blocked by the kernel (%s)", dash(x.Kernel.Comment))
	}
	return fmt.Sprintf("blocked as %s by %s (%s)", x.Block.Source, x.Block.Origin, x.Block.Comment)
}

// onlyLogged says what is logged of a source that nothing is done about.
func (k *known) onlyLogged(x api.Explanation) string {
	switch {
	case k.Would.After(k.now):
		return "it would have been blocked"
	case x.Probes.Total == 0:
		return "nobody is blocked, and nothing was noticed of it"
	}
	return fmt.Sprintf("nobody is blocked, and %s", standing(x.Trigger))
}

// newest is the last probe since the last block ended.
type newest struct{ Protocol, Outcome string }

func (k *known) newest() *newest {
	for i := len(k.probes.Probes) - 1; i >= 0; i-- {
		p := k.probes.Probes[i]
		if p.Outcome == controller.Repeated.String() || !p.Time.After(k.Last.Until) {
			continue
		}
		if !k.ending.Time.IsZero() && !p.Time.After(k.ending.Time) {
			continue
		}
		return &newest{p.Protocol, p.Outcome}
	}
	return nil
}

// whyNot is for a source that was noticed since its last block.
func (k *known) whyNot(x api.Explanation, protocol, outcome string) string {
	t := x.Trigger
	switch {
	case outcome == outcomeOverspent:
		return "the budget was spent when it reached the trigger (trigger.budget)"
	case outcome == outcomeCrowded:
		return "its probe was not counted: a set of the kernel was full"
	case outcome == controller.Triggered.String():
		return fmt.Sprintf("%s.respond = \"run\": what it did was left to the hooks", protocol)
	case !k.Config.Blocks(protocol):
		return fmt.Sprintf("%s.respond is not \"block\": what it does is only logged", protocol)
	case x.Peer != nil && t.Connects == 0:
		return "it is a peer, by a session on a port of ignore.sessions: packets that can be forged do not count against it"
	case t.Ports >= t.OfPorts && t.Ports > 0:
		return "it reached the trigger, and the kernel did not block it: the budget was spent, or its packets came by another way than answers would go"
	case t.Ports > 0 || t.Connects > 0:
		return standing(t)
	}
	return fmt.Sprintf("what it touched is forgotten: it was longer ago than trigger.window (%s)", conf.FormatDuration(k.Config.Window))
}

// standing is where it stands against the trigger.
func standing(t api.Trigger) string {
	window := conf.FormatDuration(time.Duration(t.Window) * time.Second)
	ports := fmt.Sprintf("%d of %s within %s", t.Ports, plural(t.OfPorts, "port"), window)
	connects := fmt.Sprintf("%d of %s to decoys within %s", t.Connects, plural(t.OfConnects, "connection"), window)
	switch {
	case t.Connects > 0 && t.Ports > 0:
		return connects + ", and " + ports
	case t.Connects > 0:
		return connects
	}
	return ports
}

// whyQuiet is for a source of which nothing was noticed since its last block.
func (k *known) whyQuiet(x api.Explanation) string {
	ended, reason := k.Last.Until, ""
	if x.Last != nil {
		reason = x.Last.Reason
	}
	if k.ending.Time.After(ended) { // of what was forgiven there is no record
		ended, reason = k.ending.Time, k.ending.Reason
	}
	switch {
	case !ended.IsZero() && reason != "":
		return fmt.Sprintf("the block ended at %s (%s)", whole(ended).Format(time.RFC3339), reason)
	case !ended.IsZero():
		return fmt.Sprintf("the block ended at %s", whole(ended).Format(time.RFC3339))
	case x.Trigger.Ports > 0:
		return standing(x.Trigger)
	}
	return "nothing was noticed of it"
}
