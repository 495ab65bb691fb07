package main

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/zap"

	"nftsentry/conf"
	"nftsentry/controller"
	"nftsentry/controller/api"
	"nftsentry/controller/hook"
	"nftsentry/controller/metrics"
	"nftsentry/controller/tally"
	"nftsentry/controller/trace"
	"nftsentry/listener"
	"nftsentry/state"
)

// hearing is a guard that only hears: it measures, counts for the report and
// remembers, has no hooks, and nobody watches.
func hearing(t testing.TB) *guard {
	t.Helper()
	runner, err := hook.New(hook.Config{}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	g := &guard{
		metrics: metrics.New(metrics.Config{}, zap.NewNop()), tally: tally.New(nil, nil, zap.NewNop()), trace: trace.New(),
		hooks: runner, socket: new(api.Server),
	}
	cfg := conf.Default()
	g.cfg.Store(&cfg)
	return g
}

// heard is what is heard of a source, the i-th of many, each in a network of
// its own.
func heard(what controller.What, i int) controller.Notice {
	a := netip.AddrFrom4([4]byte{100 + byte(i>>16), byte(i >> 8), byte(i), 7})
	n := controller.Notice{
		Time: time.Now(), What: what, Source: netip.PrefixFrom(a, 32),
		Event: listener.Event{
			Time: time.Now(), Source: netip.AddrPortFrom(a, 40000), Target: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, 2}), uint16(1+i%60000)),
			Protocol: listener.TCP, Kind: listener.Syn,
		},
	}
	switch what {
	case controller.Blocked, controller.Repeated:
		n.Block = state.Block{
			Source: n.Source, Address: a, Port: 23, Protocol: "tcp", Kind: "syn", Evidence: "unproven",
			Origin: state.OriginKernel, Comment: "tcp/23 syn",
		}
	case controller.Ignored:
		n.By, n.Reason = n.Source, "ignore.sources"
	}
	return n
}

// BenchmarkHear is what the daemon does of a notice before the controller goes
// on.
func BenchmarkHear(b *testing.B) {
	for _, what := range []controller.What{controller.Probed, controller.Repeated, controller.Ignored, controller.Blocked} {
		for _, sources := range []int{1, 100000} {
			b.Run(fmt.Sprintf("what=%s/sources=%d", what, sources), func(b *testing.B) {
				g := hearing(b)
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					g.hear(heard(what, i%sources))
				}
			})
		}
	}
}
