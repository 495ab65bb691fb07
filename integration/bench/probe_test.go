//go:build bench

package bench

import (
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nftsentry/integration/packet"
)

const (
	answered   = 20  // probes that must be answered before the source is noticed
	unanswered = 200 // probes in a row whose want of an answer says that it is blocked
	firstPort  = 10000
	lastPort   = 60000
)

// A prober is a source that asks a service of the server for an answer, again
// and again and from another port each time, while it does what has it blocked.
// One thread sends and looks at the wire: softirqs carry a packet to the server
// and the answer back before the system call that sends it returns.
type prober struct {
	sender  *packet.Sender
	wire    *wire
	source  netip.Addr
	service netip.AddrPort
	pace    time.Duration // between probes
	limit   time.Duration // for all
	touch   func()        // does what has it blocked

	// Where the touch is on the wire: its ports in order, and whether it is the
	// end of a handshake with one of them that counts, or the SYN to the last.
	ports     []uint16
	handshake bool

	probes []probe // by port, from firstPort on
	last   int     // the last probe that was answered; -1 if none was
	began  time.Time
	done   time.Time // the touch; both are zero before it
}

// A probe is a SYN to the service.
type probe struct {
	at       time.Time
	answered bool
}

// An outcome is what came of a source.
type outcome struct {
	// From the touch, or its first packet, to the first probe that was not
	// answered, nor was any after it.
	touch, first time.Duration
	through      int // probes answered after the touch
}

// run has the source probe, touch, and probe until it is blocked. It is not ok
// if that does not come within the limit, as where the tool has not seen the
// touch.
func (p *prober) run(t testing.TB) (o outcome, ok bool) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer fineTimers(t)()
	p.wire.drain(t, func(sighting) {})
	p.last = -1
	for deadline := time.Now().Add(p.limit); len(p.probes)-p.last <= unanswered; pause(p.pace) {
		if len(p.probes) == answered {
			if p.last != answered-1 {
				t.Fatalf("%s: only %d of %d probes are answered by %s", p.source, p.last+1, answered, p.service)
			}
			p.touch()
		}
		p.probe(t)
		if time.Now().After(deadline) || firstPort+len(p.probes) > lastPort {
			t.Logf("%s is not blocked after %d probes within %v", p.source, len(p.probes), p.limit)
			p.wire.lost(t)
			return o, false
		}
	}
	if n := p.wire.lost(t); n > 0 {
		t.Fatalf("%s: %d packets were not seen", p.source, n)
	}
	return p.outcome(t), true
}

// probe sends the next probe.
func (p *prober) probe(t testing.TB) {
	t.Helper()
	source := netip.AddrPortFrom(p.source, uint16(firstPort+len(p.probes)))
	p.probes = append(p.probes, probe{})
	p.sender.Send(t, packet.TCP{Source: source, Target: p.service, Flags: packet.SYN}.Bytes())
	p.wire.drain(t, p.see)
}

// see takes note of what is the source's or for it.
func (p *prober) see(s sighting) {
	switch {
	case s.source == p.service && s.target.Addr() == p.source && s.flags == packet.SYN|packet.ACK:
		if i, ok := p.index(s.target); ok {
			p.probes[i].answered = true
			p.last = max(p.last, i)
		}
	case s.source.Addr() != p.source:
	case s.target == p.service && s.flags == packet.SYN:
		if i, ok := p.index(s.source); ok {
			p.probes[i].at = s.at
		}
	case slices.Contains(p.ports, s.target.Port()):
		p.feel(s)
	}
}

// index is the probe that has left from a port of the source.
func (p *prober) index(a netip.AddrPort) (i int, ok bool) {
	i = int(a.Port()) - firstPort
	return i, i >= 0 && i < len(p.probes)
}

// feel takes note of a packet of the touch.
func (p *prober) feel(s sighting) {
	if p.began.IsZero() {
		p.began = s.at
	}
	end := s.flags == packet.SYN && s.target.Port() == p.ports[len(p.ports)-1]
	if p.handshake {
		end = s.flags == packet.ACK
	}
	if end && p.done.IsZero() {
		p.done = s.at
	}
}

func (p *prober) outcome(t testing.TB) (o outcome) {
	t.Helper()
	drop := p.probes[p.last+1]
	if p.done.IsZero() || drop.at.IsZero() {
		t.Fatalf("%s: the touch was not seen on the wire", p.source)
	}
	for _, probe := range p.probes[answered:] {
		if probe.answered {
			o.through++
		}
	}
	o.first, o.touch = drop.at.Sub(p.began), drop.at.Sub(p.done)
	return o
}

// fineTimers has the thread wake up when it asked to, rather than up to 50
// microseconds later, until the returned function is called.
func fineTimers(t testing.TB) (coarse func()) {
	t.Helper()
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	return func() { _ = unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0) }
}

// pause is time.Sleep to the microsecond.
func pause(d time.Duration) {
	ts := unix.NsecToTimespec(d.Nanoseconds())
	_ = unix.Nanosleep(&ts, nil) // a signal may cut it short
}
