package nft

import (
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// What the kernel says of a probe, as the prefix of a message by NFLOG.
const (
	SaysProbe = "probe" // counted, if its protocol is judged
	SaysPeer  = "peer"  // not counted, since its source is a peer
	SaysBlock = "block" // reached the trigger: the source is in the set
	SaysFull  = "full"  // not counted, since a set is full; once a second
	SaysSpent = "spent" // reached the trigger, but the budget is spent; once a second
)

// peerMemory is how long after its last packet a session makes its source a peer.
const peerMemory = time.Hour

// snapLength is how many bytes of a packet come with a message: the headers.
const snapLength = 128

// sensing notices packets to watched ports that no service owns. It comes
// after lure, in a nat chain, because such chains see the first packet of a
// connection only, and none that has been led to a container: established
// traffic pays nothing.
func (b *builder) sensing() []chain {
	return []chain{b.senseSyn(), b.senseUDP(), {
		name: "sense", typ: nftables.ChainTypeNAT,
		hook: nftables.ChainHookPrerouting, priority: prioritySense,
		rules: []rule{
			of(ctState(expr.CtStateBitRELATED), back()),
			of(opensConnection(expr.CmpOpEq), goTo("sense_syn")),
			of(l4proto(unix.IPPROTO_UDP), goTo("sense_udp")),
		},
	}}
}

func (b *builder) senseSyn() chain {
	c := chain{name: "sense_syn", rules: []rule{of(tcpDport(b.sets.watchTCP), goTo("sense_port"))}}
	if b.cfg.lures() { // divert has seen what goes to decoy ports
		c.rules = append(c.rules, b.hide()...)
	} else {
		c.rules = append(c.rules, of(tcpDport(b.sets.decoyTCP), goTo("sense_port")))
	}
	return c
}

// senseOdd is for TCP packets that neither open a connection nor belong to
// one: no host sends them but to find out how another answers. Connection
// tracking takes none of them for a connection, and so no nat chain sees them.
func (b *builder) senseOdd() chain {
	c := chain{name: "sense_odd", rules: []rule{
		of(tcpDport(b.sets.watchTCP), goTo("sense_port")),
		of(tcpDport(b.sets.decoyTCP), goTo("sense_port")),
	}}
	if b.cfg.lures() {
		c.rules = append(c.rules, b.hide()...)
	}
	return c
}

// senseUDP passes over what may be the answer to a question of this host that
// it has given up on, as DNS, NTP and QUIC have them.
func (b *builder) senseUDP() chain {
	c := chain{name: "sense_udp"}
	if e := b.cfg.Ephemeral; e.First != 0 {
		c.rules = append(c.rules, of(udpPortIn(srcPort, PortRange{1, 1023}), udpPortIn(dstPort, e), back()))
	}
	c.rules = append(c.rules, of(udpDport(b.sets.watchUDP), goTo("sense_port")))
	return c
}

// sensePort has the reasons why a packet to a watched port is no probe.
func (b *builder) sensePort() chain {
	rules := b.unlessServed()
	rules = append(rules, of(notForHost(), back()), of(notLocal(), back()))
	rules = append(rules, b.unlessIgnored()...)
	return chain{name: "sense_port", rules: append(rules, goTo("notice"))}
}

// notice is where all probes come by, but for those of decoy ports that open
// a connection.
func (b *builder) notice() chain {
	rules := b.unlessFlooded(b.cfg.WatchRate, unix.IPPROTO_TCP, unix.IPPROTO_UDP)
	return chain{name: "notice", rules: append(rules, goTo("count"))}
}

// senseSession makes a source a peer whose handshake is complete, and who has
// sent something. A half-open scan that comes by an open session port leaves a
// RST there, and no session; one that connects has nothing to say.
func (b *builder) senseSession() chain {
	c := chain{name: "sense_session", rules: []rule{of(pushes(expr.CmpOpEq), back()), of(notLocal(), back())}}
	for _, o := range b.origins() {
		c.rules = append(c.rules,
			of(assured(), o.only, o.key, update(o.peers, peerMemory), back()),
			of(assured(), o.only, o.key, notIn(o.peers), goTo("crowded")),
		)
	}
	return c
}

// sessions leads packets to session ports to senseSession.
func (b *builder) sessions() []rule {
	if !b.cfg.senses() || len(b.cfg.Sessions) == 0 {
		return nil
	}
	return []rule{of(b.sessionPort(), goTo("sense_session"))}
}

// sessionPort is "tcp dport" of a session: compared where it is one port,
// since every packet that the host gets comes by here.
func (b *builder) sessionPort() rule {
	if s := b.cfg.Sessions; len(s) == 1 && s[0].First == s[0].Last {
		return tcpDportIs(s[0].First)
	}
	set := &nftables.Set{KeyType: nftables.TypeInetService, Interval: true}
	return tcpDport(b.anonymous(set, portIntervals(b.cfg.Sessions)))
}

// An origin is a way in which sources are told apart: IPv4 by address, IPv6
// by prefix, and IPv6 neighbours, which share a prefix, by address.
type origin struct {
	suffix string // of chains
	only   rule   // matches packets of this origin; nil if key does
	never  rule   // matches sources that cannot be blocked alone; nil for none
	key    rule   // the source, in register 1
	next   uint32 // the register behind the key

	probes, suspects, peers, blocked, convicted *nftables.Set
}

func (b *builder) origins() []origin {
	s := b.sets
	v4 := origin{suffix: "4", key: saddr(ipv4), next: unix.NFT_REG32_01,
		probes: s.probes4, suspects: s.suspects4, peers: s.peers4, blocked: s.blocked4, convicted: s.convicted4}
	far := origin{suffix: "6", only: saddrNotIn(ipv6, s.onLink6), key: saddrMasked(ipv6, b.cfg.Prefix6), next: unix.NFT_REG_2,
		probes: s.probes6, suspects: s.suspects6, peers: s.peers6, blocked: s.blocked6, convicted: s.convicted6}
	near := far
	near.suffix, near.only, near.key = "_near", saddrIn(ipv6, s.onLink6), saddr(ipv6)
	if b.cfg.Prefix6 < 128 {
		near.never = saddrIsFirst(ipv6, b.cfg.Prefix6)
	}
	return []origin{v4, far, near}
}

// probe is "KEY . meta l4proto . th dport" in the registers from 1 on.
func (o origin) probe() rule {
	port := uint32(unix.NFT_REG32_02)
	if o.next == unix.NFT_REG_2 {
		port = unix.NFT_REG32_05
	}
	return of(o.key, rule{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: o.next}, dport(port)})
}

// counting counts the distinct ports that each source touches.
func (b *builder) counting() []chain {
	all := []chain{b.crowded()}
	if b.cfg.judges() {
		all = append(all, b.spent(), b.convicted(), b.convict())
	}
	dispatch := chain{name: "count"}
	for _, o := range b.origins() {
		all = append(all, b.judge(o), b.countOf(o))
		dispatch.rules = append(dispatch.rules, of(o.only, nfprotoOf(o), goTo("count"+o.suffix)))
	}
	return append(all, dispatch)
}

func nfprotoOf(o origin) rule {
	if o.only != nil { // says it
		return nil
	}
	return nfproto(ipv4)
}

// countOf lets each port of a source pass once in a window, which begins anew
// when the source is no suspect any more. The look-up is for sources that are
// not in the set: of one that is, it would use up its limiter.
func (b *builder) countOf(o origin) chain {
	var rules []rule
	if o.never != nil {
		rules = append(rules, of(o.never, back()))
	}
	if b.cfg.judges() && b.cfg.Ports > 1 && b.cfg.JudgeTCP == b.cfg.JudgeUDP {
		rules = append(rules, of(o.probe(), in(o.probes), o.key, notIn(o.suspects), notIn(o.peers), goTo("judge"+o.suffix)))
	}
	return chain{name: "count" + o.suffix, rules: append(rules,
		of(o.probe(), in(o.probes), back()),
		of(o.probe(), add(o.probes, b.cfg.Window), goTo("judge"+o.suffix)),
		goTo("crowded"),
	)}
}

// judge tells of a port that a source has not touched yet, and counts it.
func (b *builder) judge(o origin) chain {
	rules := []rule{of(o.key, in(o.peers), says(SaysPeer, b.cfg.Group), back())}
	rules = append(rules, b.onlyTold()...)
	if b.cfg.judges() {
		rules = append(rules, b.trigger(o)...)
	}
	return chain{name: "judge" + o.suffix, rules: append(rules, says(SaysProbe, b.cfg.Group))}
}

// onlyTold is for the protocol that is not judged where the other one is.
func (b *builder) onlyTold() []rule {
	switch {
	case b.cfg.JudgeTCP == b.cfg.JudgeUDP:
		return nil
	case b.cfg.JudgeTCP:
		return []rule{of(l4proto(unix.IPPROTO_UDP), says(SaysProbe, b.cfg.Group), back())}
	}
	return []rule{of(l4proto(unix.IPPROTO_TCP), says(SaysProbe, b.cfg.Group), back())}
}

// trigger convicts from the Nth port on. The limiter of each source lets N - 1
// packets pass; to the kernel a burst of 0 means 5, so that the first port
// needs none.
func (b *builder) trigger(o origin) []rule {
	if b.cfg.Ports == 1 {
		return []rule{goTo("convict")}
	}
	least := &expr.Limit{Type: expr.LimitTypePkts, Rate: 1, Unit: expr.LimitTimeWeek, Burst: uint32(b.cfg.Ports - 1), Over: true}
	return []rule{
		of(o.key, add(o.suspects, b.cfg.Window, least), goTo("convict")),
		of(o.key, notIn(o.suspects), goTo("crowded")),
	}
}

// convict blocks the source, if the budget has room for one more. What has
// come another way than answers would go may be forged by somebody whom the
// host's own check of reverse paths would have stopped later on. Who is
// blocked so is written down in a small set as well, by a rule of its own that
// may fail: Convicted finds it there, however many others are blocked.
func (b *builder) convict() chain {
	c := chain{name: "convict", rules: []rule{
		of(fromElsewhere(), back()),
		of(overBudget(b.cfg.Budget), goTo("spent")),
	}}
	for _, o := range b.origins() {
		c.rules = append(c.rules, of(o.only, o.key, update(o.convicted, b.cfg.Timeout)))
		c.rules = append(c.rules, of(o.only, o.key, add(o.blocked, b.cfg.Timeout, &expr.Counter{}), goTo("convicted")))
	}
	c.rules = append(c.rules, goTo("crowded"))
	return c
}

func (b *builder) convicted() chain {
	return chain{name: "convicted", rules: []rule{of(says(SaysBlock, b.cfg.Group), count(counterDropped), drop())}}
}

// crowded is where evidence goes that cannot be counted because a set is full.
func (b *builder) crowded() chain { return b.distrust("crowded", counterCrowded, SaysFull) }

// spent is where evidence goes that is over the budget.
func (b *builder) spent() chain { return b.distrust("spent", counterSpent, SaysSpent) }

func (b *builder) distrust(name, counter, what string) chain {
	return chain{name: name, rules: []rule{count(counter), of(atMostOnceASecond(), says(what, b.cfg.Group))}}
}
