package controller

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"nftsentry/listener"
	"nftsentry/state"
)

// An Explanation is what the controller knows of one address. It is a copy,
// as of one moment.
type Explanation struct {
	Address  netip.Addr
	Source   netip.Prefix // what would be blocked for it
	Panicked bool         // all blocks are suspended
	Doubts   []string     // why unproven evidence is not trusted at the moment
	Damage   error        // why the table cannot be made again; nil if there is no need

	// IgnoredBy is the rule that keeps it from being blocked, and IgnoredFor
	// its reason; not valid for none.
	IgnoredBy  netip.Prefix
	IgnoredFor string

	// Block is the one on record that it lies in; its Source is not valid for
	// none, and it is not in force when all are suspended or nothing is
	// enforced.
	Block state.Block
	// Last is the last block of Source that has ended; its Source is not valid
	// if none is remembered. Until Forgotten it counts as a strike, with
	// Strikes in all.
	Last      state.Block
	Forgotten time.Time
	Strikes   int

	// Connects are when it connected to decoys lately, each of which counts
	// for the window.
	Connects []time.Time
	// Told is how many ports it has touched since Since that only the daemon
	// counts, as their protocol is not judged in the kernel.
	Told  int
	Since time.Time
	// Would is until when it is said to be blocked, where that is only logged;
	// zero for never.
	Would time.Time

	Config Config // shared with the controller: not to be changed
}

// Explain tells what is known of an address, which may be an IPv4 address in
// IPv6 clothes. An address with a zone is an error, ErrInvalid.
func (c *Controller) Explain(ctx context.Context, addr netip.Addr) (Explanation, error) {
	if !addr.IsValid() || addr.Zone() != "" {
		return Explanation{}, fmt.Errorf("%w: %v is no address without a zone", ErrInvalid, addr)
	}
	var x Explanation
	err := c.call(ctx, func(answer func(error)) {
		var err error
		x, err = c.explain(addr.Unmap(), time.Now())
		answer(err)
	})
	if err != nil {
		return Explanation{}, err
	}
	return x, nil
}

// explain gathers what belongs to Run.
func (c *Controller) explain(a netip.Addr, now time.Time) (Explanation, error) {
	x := Explanation{
		Address: a, Source: c.sourceOf(a), Panicked: c.panicked, Doubts: c.doubts.list(), Damage: c.repair.failed, Config: c.cfg,
	}
	x.IgnoredBy, x.IgnoredFor, _ = c.ignored.find(a)
	x.Block, _ = c.holding(a)
	x.Would = c.would[x.Source]
	for _, at := range c.touches.times[x.Source] {
		if now.Sub(at) <= c.cfg.Window {
			x.Connects = append(x.Connects, at)
		}
	}
	if t, known := c.suspects.sources[x.Source]; known && now.Sub(t.since) < c.suspects.window {
		x.Told, x.Since = t.ports, t.since
	}
	return x, c.explainLast(&x, now)
}

// explainLast adds the last block that has ended.
func (c *Controller) explainLast(x *Explanation, now time.Time) error {
	last, ok, err := c.store.Last(x.Source)
	if err != nil {
		return fmt.Errorf("read earlier blocks of %s: %w", display(x.Source), err)
	}
	if !ok {
		return nil
	}
	x.Last, x.Forgotten = last, last.Until.Add(c.cfg.Forget)
	if !now.After(x.Forgotten) {
		x.Strikes = last.Strikes + 1
	}
	return nil
}

// holding finds the narrowest block that applies to an address: the one of an
// IPv6 prefix that hosts are blocked by leaves neighbours out.
func (c *Controller) holding(a netip.Addr) (state.Block, bool) {
	b, ok := c.blocks.around(a)
	if !ok || a.Is4() || b.Source.IsSingleIP() || b.Source.Bits() != c.cfg.Table.Prefix6 || !c.neighbour(a) {
		return b, ok
	}
	for bits := b.Source.Bits() - 1; bits >= 0; bits-- {
		if wider, ok := c.blocks.get(netip.PrefixFrom(a, bits).Masked()); ok {
			return wider, true
		}
	}
	return state.Block{}, false
}

// Judged tells whether the kernel counts the probes of a protocol, "tcp" or
// "udp", and blocks their source by itself.
func (c Config) Judged(protocol string) bool {
	if protocolOf(protocol) == listener.UDP {
		return c.Table.JudgeUDP
	}
	return c.Table.JudgeTCP
}

// Blocks tells whether evidence of a protocol, "tcp", "udp" or "" for either,
// makes blocks.
func (c Config) Blocks(protocol string) bool {
	if protocol == "" {
		return c.blocks(0)
	}
	return c.blocks(protocolOf(protocol))
}
