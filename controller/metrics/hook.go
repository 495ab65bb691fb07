package metrics

import "github.com/prometheus/client_golang/prometheus"

// Hooks tell what has become of the notices that hooks were to give.
type Hooks interface {
	HookStats() []HookStat
}

// A HookStat counts the notices of one hook since the start.
type HookStat struct {
	Hook     string // its name in the configuration; no two have the same
	Done     uint64 // given
	Failed   uint64 // given up after an error
	Dropped  uint64 // lost, since the queue was full
	Limited  uint64 // left out, since there were too many
	TimedOut uint64 // given up after too long a time
}

var hookDesc = prometheus.NewDesc(prefix+"hook_results_total", "Notices for hooks, by what became of them.", []string{"hook", "result"}, nil)

type hookCollector struct{ hooks Hooks }

var _ prometheus.Collector = hookCollector{}

// Describe is for the registry.
func (c hookCollector) Describe(out chan<- *prometheus.Desc) { out <- hookDesc }

// Collect is for the registry.
func (c hookCollector) Collect(out chan<- prometheus.Metric) {
	for _, s := range c.hooks.HookStats() {
		for result, n := range map[string]uint64{
			"done": s.Done, "failed": s.Failed, "dropped": s.Dropped, "limited": s.Limited, "timed_out": s.TimedOut,
		} {
			out <- prometheus.MustNewConstMetric(hookDesc, prometheus.CounterValue, float64(n), s.Hook, result)
		}
	}
}
