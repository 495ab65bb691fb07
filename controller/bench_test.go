package controller

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"nftsentry/listener"
	"nftsentry/nft"
	"nftsentry/state"
)

// A quietKernel does nothing, so that what is measured is the controller.
type quietKernel struct{ *fakeKernel }

func (quietKernel) Block(...nft.Element) error { return nil }

// A quietStore knows of no block, and has written what it is given at once.
type quietStore struct{ *fakeStore }

func (quietStore) Last(netip.Prefix) (state.Block, bool, error) { return state.Block{}, false, nil }

func (quietStore) Save(_ state.Block, done func(error)) {
	if done != nil {
		done(nil)
	}
}

// held makes a controller with so many blocks in place. They are of IPv6, so
// that the set of the IPv4 sources that are blocked next has room.
func held(b *testing.B, n int) *Controller {
	b.Helper()
	c := New(testConfig(), false, testHost(), quietKernel{newFakeKernel()}, quietStore{newFakeStore()}, nil, zap.NewNop())
	now := time.Now()
	for i := range n {
		a := netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 9, byte(i >> 16), byte(i >> 8), byte(i), 15: 1})
		c.blocks.put(state.Block{
			Source: c.sourceOf(a), Address: a, Since: now, Until: now.Add(time.Hour + time.Duration(i)*time.Millisecond),
			Port: 23, Protocol: "tcp", Kind: "connect", Evidence: listener.Proven.String(), Origin: state.OriginDecoy, Comment: "tcp/23 connect",
		})
	}
	return c
}

// nthSource is one of 65,536 IPv4 sources that are not ignored.
func nthSource(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), 40000)
}

func probeOf(source netip.AddrPort) listener.Event {
	return listener.Event{
		Time: time.Now(), Source: source, Target: netip.MustParseAddrPort("10.0.0.2:23"),
		Protocol: listener.TCP, Kind: listener.Syn,
	}
}

func connectOf(source netip.AddrPort) listener.Event {
	e := probeOf(source)
	e.Kind, e.Evidence = listener.Connect, listener.Proven
	return e
}

// BenchmarkEvent is the way from an event to what is decided.
func BenchmarkEvent(b *testing.B) {
	for _, n := range []int{10, 65000, 1000000} {
		c := held(b, n)
		for _, event := range []struct {
			name string
			run  func(b *testing.B, c *Controller)
		}{{"probe", benchProbe}, {"repeated", benchRepeated}, {"ignored", benchIgnored}, {"block", benchBlock}} {
			b.Run(fmt.Sprintf("event=%s/blocks=%d", event.name, n), func(b *testing.B) {
				c.stats = Stats{}
				b.ReportAllocs()
				event.run(b, c)
				if c.blocks.len() < n {
					b.Errorf("%d blocks are left of %d", c.blocks.len(), n)
				}
			})
		}
	}
}

// benchProbe is for probes that the kernel counts, each of another source.
func benchProbe(b *testing.B, c *Controller) {
	e := probeOf(nthSource(0))
	for i := 0; b.Loop(); i++ {
		e.Source = nthSource(i)
		c.event(e)
	}
	expectOf(b, c.stats.Probes, c.stats.Events)
}

// benchRepeated is for connections to decoys of a source that is blocked.
func benchRepeated(b *testing.B, c *Controller) {
	e := connectOf(netip.MustParseAddrPort("203.0.113.7:40000"))
	c.event(e)
	c.stats.Blocked = 0
	for b.Loop() {
		c.event(e)
	}
	expectOf(b, c.stats.Blocked, 0)
}

// benchIgnored is for probes of a source that is never blocked.
func benchIgnored(b *testing.B, c *Controller) {
	e := connectOf(netip.MustParseAddrPort("192.0.2.1:40000"))
	for b.Loop() {
		c.event(e)
	}
	expectOf(b, c.stats.Ignored, c.stats.Events)
}

// benchBlock is for connections to decoys that block.
func benchBlock(b *testing.B, c *Controller) {
	const few = 1024 // more blocks than there were
	forget := func() {
		for i := range few {
			c.blocks.remove(c.sourceOf(nthSource(i).Addr()))
		}
	}
	defer forget()
	e := connectOf(nthSource(0))
	for i := 0; b.Loop(); i++ {
		if i%few == 0 {
			b.StopTimer()
			forget()
			b.StartTimer()
		}
		e.Source = nthSource(i % few)
		c.event(e)
	}
	expectOf(b, c.stats.Blocked, c.stats.Events)
}

func expectOf(b *testing.B, got, want uint64) {
	b.Helper()
	if got != want {
		b.Errorf("%d events came to that, want %d", got, want)
	}
}

// BenchmarkRun is what Run does of an event, from the channel on.
func BenchmarkRun(b *testing.B) {
	c, events := held(b, 65000), make(chan listener.Event, 1024)
	ctx, cancel := context.WithCancel(b.Context())
	var g errgroup.Group
	g.Go(func() error { return c.Run(ctx, events, nil, nil) })
	e := probeOf(nthSource(0))
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		e.Source = nthSource(i)
		events <- e
	}
	cancel()
	if err := g.Wait(); err != nil {
		b.Error(err)
	}
}
