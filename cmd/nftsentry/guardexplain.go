package main

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"nftsentry/conf"
	"nftsentry/controller"
	"nftsentry/controller/api"
	"nftsentry/controller/trace"
	"nftsentry/listener"
	"nftsentry/nft"
)

// Explain gathers what the parts know of one address.
func (g *guard) Explain(ctx context.Context, addr netip.Addr) (api.Explanation, error) {
	x, err := g.controller.Explain(ctx, addr)
	if err != nil {
		return api.Explanation{}, err
	}
	k := known{Explanation: x, now: time.Now()}
	k.probes, _ = g.trace.Probes(x.Source)
	k.ending, _ = g.trace.Ended(x.Source)
	k.kernel, k.unreadable = nft.Look(0, nft.LookRequest{
		Address: x.Address, Source: x.Source, Prefix6: x.Config.Table.Prefix6, Ports: k.ports(),
	})
	return k.explanation(), nil
}

// known is what the parts know of one address.
type known struct {
	controller.Explanation
	now        time.Time
	probes     trace.History
	ending     trace.Ending // zero if it is not remembered
	kernel     nft.Sight
	unreadable error // why the kernel cannot be asked
}

var protocolNumbers = map[string]byte{"tcp": byte(listener.TCP), "udp": byte(listener.UDP)}

// ports are those that the kernel may remember.
func (k *known) ports() []nft.HeldPort {
	var all []nft.HeldPort
	seen := make(map[nft.HeldPort]bool)
	for _, p := range k.probes.Probes {
		one := nft.HeldPort{Protocol: protocolNumbers[p.Protocol], Port: p.Port}
		if !p.Proven && one.Protocol != 0 && !seen[one] {
			seen[one] = true
			all = append(all, one)
		}
	}
	return all
}

// explanation is the form of it on the wire.
func (k *known) explanation() api.Explanation {
	x := api.Explanation{
		Address: k.Address.String(), Source: api.Display(k.Source), Time: whole(k.now), Mode: k.mode(), Blocked: k.blocked(),
		Kernel: k.element(), Last: k.last(), Strikes: k.Strikes, Trigger: k.trigger(), Probes: k.lately(),
	}
	if k.IgnoredBy.IsValid() {
		x.Ignored = &api.Rule{Prefix: api.Display(k.IgnoredBy), Reason: k.IgnoredFor}
	}
	if k.kernel.Peer != nil {
		x.Peer = k.after(k.kernel.Peer.Left)
	}
	if k.Block.Source.IsValid() {
		b := api.BlockOf(k.Block)
		x.Block, x.Strikes = &b, max(x.Strikes, b.Strikes)
	}
	x.Notes = k.notes()
	x.Why = k.why(x)
	return x
}

func whole(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }

// after is a moment so long from now; nil for 0, which is for ever.
func (k *known) after(left time.Duration) *time.Time {
	if left == 0 {
		return nil
	}
	at := whole(k.now.Add(left))
	return &at
}

func (k *known) mode() string {
	switch {
	case k.Panicked:
		return "panic"
	case k.Config.Observe:
		return string(conf.Observe)
	}
	return string(conf.Enforce)
}

// held is the element that its packets meet first; nil for none.
func (k *known) held() *nft.Held {
	if k.kernel.Host != nil {
		return k.kernel.Host
	}
	return k.kernel.Net
}

// blocked tells whether the kernel drops what it sends: in the other modes no
// rule looks at the sets, and of the ignored nothing is dropped.
func (k *known) blocked() bool {
	return k.mode() == string(conf.Enforce) && k.held() != nil && k.kernel.Ignored == nil
}

func (k *known) element() *api.Element {
	h := k.held()
	if h == nil || k.mode() != string(conf.Enforce) {
		return nil
	}
	e := &api.Element{
		Set: "inet " + nft.TableName + " " + h.Set, First: h.First.String(), Last: h.Last.String(),
		Until: k.after(h.Left), Comment: h.Comment,
	}
	if h.Counted {
		e.Dropped = &api.Dropped{Packets: h.Counter.Packets, Bytes: h.Counter.Bytes}
	}
	return e
}

func (k *known) last() *api.LastBlock {
	if !k.Last.Source.IsValid() {
		return nil
	}
	l := &api.LastBlock{Block: api.BlockOf(k.Last), Forgotten: whole(k.Forgotten)}
	if !k.ending.Time.Before(k.Last.Until.Add(-agreed)) {
		l.Reason = k.ending.Reason
	}
	return l
}

// agreed is how much earlier than its end on record a block may be told to have ended.
const agreed = time.Second

// trigger tells what counts against it.
func (k *known) trigger() api.Trigger {
	t := api.Trigger{
		Connects: len(k.Connects), OfConnects: k.Config.Connects, OfPorts: k.Config.Table.Ports,
		Window: int64(k.Config.Window / time.Second), Counted: []api.Counted{},
	}
	for _, at := range k.Connects {
		c := api.Counted{Evidence: listener.Proven.String(), Forgotten: whole(at.Add(k.Config.Window))}
		for _, p := range k.probes.Probes {
			if p.Proven && p.Time.Equal(at) {
				c.Port, c.Protocol = p.Port, p.Protocol
			}
		}
		t.Counted = append(t.Counted, c)
	}
	judged, told := k.judged(), k.told()
	t.Counted = append(append(t.Counted, judged...), told...)
	t.Ports = max(len(judged), len(told), k.Told)
	if k.kernel.Suspect != nil { // also of ports that were touched while nobody listened
		t.Ports = max(t.Ports, 1)
	}
	return t
}

// judged are the ports that the kernel counts. They are those that it has told
// of since it counts this source, and all of them are forgotten when it begins
// anew.
func (k *known) judged() (all []api.Counted) {
	s := k.kernel.Suspect
	if s == nil {
		return nil
	}
	const late = 100 * time.Millisecond // an element is older than the word of it
	since := k.now.Add(s.Left - k.Config.Table.Window - late)
	for _, held := range k.kernel.Ports {
		protocol := listener.Protocol(held.Protocol).String()
		if k.Config.Judged(protocol) && k.touched(protocol, held.Port, since) {
			all = append(all, api.Counted{
				Port: held.Port, Protocol: protocol, Evidence: listener.Unproven.String(), Forgotten: whole(k.now.Add(s.Left)),
			})
		}
	}
	return all
}

// touched tells whether a port was touched since a moment, and counted.
func (k *known) touched(protocol string, port uint16, since time.Time) bool {
	for _, p := range k.probes.Probes {
		if p.Port == port && p.Protocol == protocol && !p.Proven && p.Time.After(since) && p.Outcome != outcomeExempted {
			return true
		}
	}
	return false
}

var outcomeExempted = controller.Exempted.String()

// told are the ports that only the daemon counts.
func (k *known) told() (all []api.Counted) {
	if k.Told == 0 {
		return nil
	}
	for _, one := range k.ports() {
		protocol := listener.Protocol(one.Protocol).String()
		if !k.Config.Judged(protocol) && k.touched(protocol, one.Port, k.Since.Add(-time.Nanosecond)) {
			all = append(all, api.Counted{
				Port: one.Port, Protocol: protocol, Evidence: listener.Unproven.String(), Forgotten: whole(k.Since.Add(k.Config.Table.Window)),
			})
		}
	}
	return all
}

// lately is what was noticed of it.
func (k *known) lately() api.Probes {
	all := api.Probes{Total: k.probes.Total, Last: []api.Probe{}}
	if all.Total > 0 {
		first := k.probes.First.UTC().Truncate(time.Microsecond)
		all.First = &first
	}
	for _, p := range k.probes.Probes {
		evidence := listener.Unproven
		if p.Proven {
			evidence = listener.Proven
		}
		all.Last = append(all.Last, api.Probe{
			Time: p.Time.UTC().Truncate(time.Microsecond), Address: p.Address.String(), Port: p.Port,
			Protocol: p.Protocol, Kind: p.Kind, Evidence: evidence.String(), Outcome: p.Outcome,
		})
	}
	return all
}

// notes say where our record and the kernel differ.
func (k *known) notes() []string {
	all := []string{}
	note := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	h, b := k.held(), k.Block
	switch enforced := k.mode() == string(conf.Enforce); {
	case k.unreadable != nil:
		note("the kernel cannot be asked: %v", k.unreadable)
	case !enforced && b.Source.IsValid():
		note("the block on record is not in force: mode is %s", k.mode())
	case !enforced:
	case b.Source.IsValid() && h == nil:
		note("the kernel does not hold the block on record: somebody has taken it out, which is mended when it is noticed; see the log")
	case !b.Source.IsValid() && h != nil:
		note("the kernel blocks it, and there is no block on record: it was made this moment, or by hand")
	case b.Source.IsValid() && h.Left > 0 && b.Until.Sub(k.now.Add(h.Left)).Abs() > differ:
		note("the kernel lets it go in %s, our record in %s", conf.FormatDuration(h.Left), conf.FormatDuration(b.Until.Sub(k.now)))
	}
	if b.Source.IsValid() && b.Source != k.Source {
		note("the block is that of %s, in which it lies", api.Display(b.Source))
	}
	if k.kernel.Ignored != nil && h != nil {
		note("it is ignored in a prefix that is blocked: what it sends passes")
	}
	if k.Damage != nil {
		note("our table cannot be made again: %v: trying on", k.Damage)
	}
	for _, reason := range k.Doubts {
		note("unproven evidence makes no blocks for now: %s", reason)
	}
	return all
}

// differ is how far the kernel and our record may be apart: elements last
// whole seconds.
const differ = 2 * time.Second
