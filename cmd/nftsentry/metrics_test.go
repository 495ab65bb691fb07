package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap/zaptest"
	"golang.org/x/sync/errgroup"

	"nftsentry/conf"
	"nftsentry/controller"
	"nftsentry/controller/metrics"
	"nftsentry/listener"
	"nftsentry/state"
)

// TestMeasure tells of everything that a notice can be about, and reads what
// was counted.
func TestMeasure(t *testing.T) {
	event := listener.Event{
		Time: time.Now(), Source: netip.MustParseAddrPort("10.9.9.1:4000"), Target: netip.MustParseAddrPort("10.9.9.2:79"),
		Protocol: listener.TCP, Kind: listener.Null,
	}
	block := state.Block{Origin: state.OriginKernel, Evidence: "unproven"}
	notices := []controller.Notice{{What: controller.Blocked, Block: block}} // found in the kernel: no event
	for what := controller.Probed; what.String() != "unknown"; what++ {
		notices = append(notices, controller.Notice{What: what, Event: event, Block: block, Reason: controller.ByOperator, Took: time.Millisecond})
	}
	for i := range notices {
		switch notices[i].What {
		case controller.Unblocked, controller.Healed, controller.Doubted, controller.Trusted, controller.Reloaded, controller.Panicked, controller.Resumed:
			notices[i].Event = listener.Event{}
		}
	}
	want := []string{
		`nftsentry_blocks_ended_total{reason="operator"} 1`,
		`nftsentry_blocks_extended_total{origin="kernel"} 1`,
		`nftsentry_blocks_made_total{origin="kernel"} 2`,
	}
	for _, outcome := range []string{"blocked", "exempted", "extended", "ignored", "noticed", "repeated", "triggered", "would_block"} {
		want = append(want, `nftsentry_events_total{evidence="unproven",kind="null",outcome="`+outcome+`",protocol="tcp"} 1`)
	}
	want = append(want, "nftsentry_heals_total 1", `nftsentry_time_to_block_seconds_count{evidence="unproven"} 1`)
	if diff := cmp.Diff(want, seriesOf(t, notices)); diff != "" {
		t.Errorf("series (-want +got):\n%s", diff)
	}
}

// seriesOf are the series of what was told, those at zero left out.
func seriesOf(t *testing.T, notices []controller.Notice) []string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := metrics.New(metrics.Config{Read: func(context.Context) (metrics.Reading, error) { return metrics.Reading{}, nil }}, zaptest.NewLogger(t))
	for _, n := range notices {
		measure(m, n)
	}
	ctx, stop := context.WithCancel(t.Context())
	var g errgroup.Group
	g.Go(func() error { return m.Run(ctx, l) })
	defer func() {
		stop()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	}()
	answer, err := http.Get("http://" + l.Addr().String() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		for _, name := range []string{"events_total", "blocks_made", "blocks_extended", "blocks_ended", "heals_total", "time_to_block_seconds_count"} {
			if strings.HasPrefix(line, "nftsentry_"+name) && !strings.HasSuffix(line, " 0") {
				out = append(out, line)
			}
		}
	}
	return out
}

// TestReadingOf shows what the metrics say of the controller.
func TestReadingOf(t *testing.T) {
	stats := controller.Stats{
		Live: 5, Live6: 2, WouldHave: 3, Triggered: 4, Failed: 6, Evicted: 7, Prefixes: 8, Served: 9,
		Damage: io.EOF, Doubts: []string{controller.DoubtBudget},
	}
	want := metrics.Reading{
		Enforcing: true, Damaged: true, Blocks4: 3, Blocks6: 2, BlocksLimit: 65536, WouldBlock: 3, Triggered: 4, Failed: 6, Evicted: 7,
		BudgetLimit: 120, BudgetPeriod: time.Minute, Overspent: true, IgnoredPrefixes: 8, ServedPorts: 9,
	}
	if diff := cmp.Diff(want, readingOf(conf.Default(), stats)); diff != "" {
		t.Errorf("reading (-want +got):\n%s", diff)
	}
	panicked := readingOf(conf.Default(), controller.Stats{Panicked: true, Doubts: []string{controller.DoubtCrowded}})
	if panicked.Enforcing || !panicked.Panicked || !panicked.Crowded || panicked.Overspent {
		t.Errorf("in a panic: %+v", panicked)
	}
	if unlisted := readingOf(conf.Default(), controller.Stats{Unlisted: true}); unlisted.Enforcing || unlisted.Panicked {
		t.Errorf("while ignore.files cannot be read: %+v", unlisted)
	}
	observing := conf.Default()
	observing.Mode = conf.Observe
	if readingOf(observing, controller.Stats{}).Enforcing {
		t.Error("observing counts as enforcing")
	}
}
