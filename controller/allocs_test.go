package controller

import (
	"net/netip"
	"testing"

	"go.uber.org/zap"

	"nftsentry/listener"
)

// TestEventAllocs shows that events which come to nothing, of which anyone can
// send as many as he likes, allocate nothing.
func TestEventAllocs(t *testing.T) {
	c := New(testConfig(), false, testHost(), newFakeKernel(), newFakeStore(), nil, zap.NewNop())
	source := netip.MustParseAddrPort("203.0.113.7:40000")
	blocked, peer := connectOf(netip.MustParseAddrPort("203.0.113.8:40000")), probeOf(source)
	peer.Verdict = listener.Exempted
	crowded, spent := probeOf(source), probeOf(source)
	crowded.Verdict, spent.Verdict = listener.Crowded, listener.Overspent
	own := probeOf(source)
	own.Target = source
	c.event(blocked)
	c.event(crowded) // the first one of a time is logged
	c.event(spent)
	for name, e := range map[string]listener.Event{
		"a probe":             probeOf(source),
		"an IPv6 probe":       probeOf(netip.MustParseAddrPort("[2001:db8:7::1]:40000")),
		"a repeated probe":    blocked,
		"a probe of a peer":   peer,
		"a full set":          crowded,
		"a spent budget":      spent,
		"an ignored source":   connectOf(netip.MustParseAddrPort("192.0.2.1:40000")),
		"the host's own":      own,
		"an ignored loopback": probeOf(netip.MustParseAddrPort("[::1]:40000")),
	} {
		if allocs := testing.AllocsPerRun(100, func() { c.event(e) }); allocs != 0 {
			t.Errorf("%s: %v allocations, want none", name, allocs)
		}
	}
	if c.stats.Blocked != 1 {
		t.Errorf("%d blocks, want the one", c.stats.Blocked)
	}
}
