package metrics

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	"golang.org/x/sync/errgroup"
)

// gather gives what a scrape gets, while the reader runs.
func gather(t *testing.T, m *Metrics) []*dto.MetricFamily {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	var g errgroup.Group
	g.Go(func() error { return m.reader.run(ctx) })
	all, err := m.registry.Gather()
	stop()
	if err := errors.Join(err, g.Wait()); err != nil {
		t.Fatal(err)
	}
	return all
}

// values are the series of ours that are not zero, histograms by their count.
func values(t *testing.T, m *Metrics) map[string]float64 {
	t.Helper()
	out := make(map[string]float64)
	for _, family := range gather(t, m) {
		if !strings.HasPrefix(family.GetName(), prefix) {
			continue
		}
		for _, metric := range family.GetMetric() {
			v := metric.GetCounter().GetValue() + metric.GetGauge().GetValue() + float64(metric.GetHistogram().GetSampleCount())
			if v != 0 {
				out[strings.TrimPrefix(family.GetName(), prefix)+labelsOf(metric)] = v
			}
		}
	}
	return out
}

func labelsOf(m *dto.Metric) string {
	var all []string
	for _, l := range m.GetLabel() {
		all = append(all, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
	}
	if len(all) == 0 {
		return ""
	}
	return "{" + strings.Join(all, ",") + "}"
}

func newMetrics(t *testing.T, r Reading) *Metrics {
	t.Helper()
	return New(Config{Version: "1", Read: func(context.Context) (Reading, error) { return r, nil }}, zaptest.NewLogger(t))
}

// changed are the values that differ from those of a daemon that has just
// begun, but for the time of its configuration.
func changed(t *testing.T, m *Metrics) map[string]float64 {
	t.Helper()
	before, after := values(t, newMetrics(t, Reading{})), values(t, m)
	out := make(map[string]float64)
	for name := range before {
		out[name] = 0
	}
	maps.Copy(out, after)
	maps.DeleteFunc(out, func(name string, v float64) bool {
		return before[name] == v || strings.HasSuffix(name, "timestamp_seconds")
	})
	return out
}

// TestCounts tells of things, and looks which series have counted them.
func TestCounts(t *testing.T) {
	syn := Probe{"tcp", "syn", "unproven"}
	for name, tt := range map[string]struct {
		tell func(*Metrics)
		want map[string]float64
	}{
		"nothing": {func(*Metrics) {}, map[string]float64{}},
		"events": {func(m *Metrics) { m.Event(syn, Noticed); m.Event(syn, Noticed); m.Event(syn, Blocked) }, map[string]float64{
			`events_total{evidence="unproven",kind="syn",outcome="noticed",protocol="tcp"}`: 2,
			`events_total{evidence="unproven",kind="syn",outcome="blocked",protocol="tcp"}`: 1,
		}},
		"a probe that nobody knows": {func(m *Metrics) { m.Event(Probe{"sctp", "192.0.2.1", "proven"}, Ignored) }, map[string]float64{
			`events_total{evidence="unproven",kind="unknown",outcome="ignored",protocol="unknown"}`: 1,
		}},
		"an outcome that nobody knows": {func(m *Metrics) { m.Event(syn, "lost") }, map[string]float64{}},
		"blocks": {func(m *Metrics) { m.BlockMade("decoy"); m.BlockExtended("kernel"); m.BlockEnded("expired") }, map[string]float64{
			`blocks_made_total{origin="decoy"}`: 1, `blocks_extended_total{origin="kernel"}`: 1, `blocks_ended_total{reason="expired"}`: 1,
		}},
		"blocks of others": {func(m *Metrics) { m.BlockMade("192.0.2.1"); m.BlockExtended(""); m.BlockEnded("why not") }, map[string]float64{
			`blocks_made_total{origin="other"}`: 1, `blocks_extended_total{origin="other"}`: 1, `blocks_ended_total{reason="other"}`: 1,
		}},
		"times": {func(m *Metrics) { m.TimeToBlock("proven", time.Millisecond); m.TimeToBlock("", time.Second) }, map[string]float64{
			`time_to_block_seconds{evidence="proven"}`: 1,
		}},
		"heals":    {func(m *Metrics) { m.Healed(); m.Healed() }, map[string]float64{"heals_total": 2}},
		"a reload": {func(m *Metrics) { m.Reloaded(true) }, map[string]float64{`config_reloads_total{result="success"}`: 1}},
		"a bad reload": {func(m *Metrics) { m.Reloaded(false) }, map[string]float64{
			`config_reloads_total{result="failure"}`: 1, "config_last_reload_successful": 0,
		}},
		"a good one after": {func(m *Metrics) { m.Reloaded(false); m.Reloaded(true) }, map[string]float64{
			`config_reloads_total{result="failure"}`: 1, `config_reloads_total{result="success"}`: 1,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMetrics(t, Reading{})
			tt.tell(m)
			if diff := cmp.Diff(tt.want, changed(t, m)); diff != "" {
				t.Errorf("series that have changed (-want +got):\n%s", diff)
			}
		})
	}
}

// TestReading gives every field another value, and looks for each.
func TestReading(t *testing.T) {
	m := newMetrics(t, Reading{
		Enforcing: true, Panicked: true, Unreadable: true, Degraded: true, Damaged: true, Blocks4: 2, Blocks6: 3, BlocksLimit: 65536,
		WouldBlock: 4, Triggered: 5, Failed: 6, Evicted: 7, BudgetLimit: 120, BudgetPeriod: time.Minute, Crowded: true, Overspent: true,
		IgnoredPrefixes: 8, ServedPorts: 9, NFLOG: NFLOG{10, 11, 12, 13}, Decoy: Decoy{14, 15, 16}, Kernel: &Kernel{17, 18, 19, 20, 21},
		HookService: &HookService{true, 22, 23},
	})
	want := map[string]float64{
		"enforcing": 1, "panicked": 1, "ignore_files_unreadable": 1, "state_degraded": 1, "table_damaged": 1, `blocks{family="ipv4"}`: 2, `blocks{family="ipv6"}`: 3,
		`blocks_limit{family="ipv4"}`: 65536, `blocks_limit{family="ipv6"}`: 65536,
		"blocks_would_total": 4, "blocks_triggered_total": 5, "blocks_failed_total": 6, "blocks_evicted_total": 7,
		"trigger_budget_limit": 120, "trigger_budget_period_seconds": 60, `doubts{reason="crowded"}`: 1, `doubts{reason="budget"}`: 1,
		"ignored_prefixes": 8, "served_ports": 9,
		"nflog_messages_total": 10, "nflog_lost_total": 11, "nflog_overruns_total": 12, "nflog_malformed_total": 13,
		"decoy_connections_total": 14, "decoy_lost_total": 15, "decoy_starved_total": 16,
		"dropped_packets_total": 17, "dropped_bytes_total": 18, "probes_flooded_total": 19, "probes_crowded_total": 20, "trigger_budget_spent_total": 21,
		"hook_service_up": 1, "hook_service_waiting": 22, "hook_service_dropped_total": 23,
	}
	if diff := cmp.Diff(want, changed(t, m)); diff != "" {
		t.Errorf("series (-want +got):\n%s", diff)
	}
	one := newMetrics(t, Reading{Overspent: true})
	if diff := cmp.Diff(map[string]float64{`doubts{reason="budget"}`: 1}, changed(t, one)); diff != "" {
		t.Errorf("a spent budget (-want +got):\n%s", diff)
	}
}

// TestTableUnreadable leaves out what the table would have told, and no more.
func TestTableUnreadable(t *testing.T) {
	with, without := names(gather(t, newMetrics(t, Reading{Kernel: &Kernel{}}))), names(gather(t, newMetrics(t, Reading{})))
	want := []string{
		"nftsentry_dropped_bytes_total", "nftsentry_dropped_packets_total", "nftsentry_probes_crowded_total",
		"nftsentry_probes_flooded_total", "nftsentry_trigger_budget_spent_total",
	}
	got := slices.DeleteFunc(with, func(name string) bool { return slices.Contains(without, name) })
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("left out (-want +got):\n%s", diff)
	}
}

func names(all []*dto.MetricFamily) []string {
	var out []string
	for _, family := range all {
		out = append(out, family.GetName())
	}
	return out
}

type fakeHooks []HookStat

func (h fakeHooks) HookStats() []HookStat { return h }

func TestHooks(t *testing.T) {
	m := New(Config{
		Read:  func(context.Context) (Reading, error) { return Reading{}, nil },
		Hooks: fakeHooks{{"mail", 1, 2, 3, 4, 5}, {Hook: "exec", Done: 6}},
	}, zaptest.NewLogger(t))
	want := map[string]float64{
		`hook_results_total{hook="mail",result="done"}`: 1, `hook_results_total{hook="mail",result="failed"}`: 2,
		`hook_results_total{hook="mail",result="dropped"}`: 3, `hook_results_total{hook="mail",result="limited"}`: 4,
		`hook_results_total{hook="mail",result="timed_out"}`: 5, `hook_results_total{hook="exec",result="done"}`: 6,
	}
	got := values(t, m)
	maps.DeleteFunc(got, func(name string, _ float64) bool { return !strings.HasPrefix(name, "hook") })
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("series (-want +got):\n%s", diff)
	}
}

// TestCountingAllocatesNothing shows that the loop that decides pays little.
func TestCountingAllocatesNothing(t *testing.T) {
	m := newMetrics(t, Reading{})
	if n := testing.AllocsPerRun(1000, func() {
		m.Event(Probe{"tcp", "connect", "proven"}, Blocked)
		m.BlockMade("decoy")
	}); n != 0 {
		t.Errorf("%v allocations for an event, want 0", n)
	}
}

var row = regexp.MustCompile("(?m)^\\| `(nftsentry_[a-z_]+)` \\| (\\w+) \\|([^|]*)\\| (.+) \\|$")

// TestPage holds docs/metrics.md to what there is.
func TestPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := make(map[string]string)
	for _, r := range row.FindAllStringSubmatch(string(page), -1) {
		labels := strings.Fields(strings.NewReplacer("`", "", ",", " ").Replace(r[3]))
		slices.Sort(labels)
		documented[r[1]] = fmt.Sprint(r[2], labels)
	}
	m := New(Config{
		Read: func(context.Context) (Reading, error) {
			return Reading{Kernel: &Kernel{}, HookService: &HookService{}}, nil
		},
		Hooks: fakeHooks{{Hook: "mail"}},
	}, zap.NewNop())
	real := make(map[string]string)
	for _, family := range gather(t, m) {
		if !strings.HasPrefix(family.GetName(), prefix) {
			continue
		}
		labels := make(map[string]bool)
		for _, metric := range family.GetMetric() {
			for _, l := range metric.GetLabel() {
				labels[l.GetName()] = true
				if closed := !slices.Contains([]string{"hook", "version", "goversion"}, l.GetName()); closed && !strings.Contains(string(page), "`"+l.GetValue()+"`") {
					t.Errorf("docs/metrics.md does not name %s=%q of %s", l.GetName(), l.GetValue(), family.GetName())
				}
			}
		}
		real[family.GetName()] = fmt.Sprint(strings.ToLower(family.GetType().String()), slices.Sorted(maps.Keys(labels)))
	}
	if diff := cmp.Diff(real, documented); diff != "" {
		t.Errorf("docs/metrics.md (-program +page):\n%s", diff)
	}
}
