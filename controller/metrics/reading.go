package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// A Reading is what the daemon knows of itself at a moment, and nobody tells of.
type Reading struct {
	Enforcing  bool // mode = "enforce", and nothing suspends it
	Panicked   bool // all blocks are suspended
	Unreadable bool // ignore.files cannot be read
	Degraded   bool // not all blocks are on disk
	Damaged    bool // the table cannot be made again, or not be read

	Blocks4, Blocks6 int // live blocks
	BlocksLimit      int // that each family has room for, of single hosts
	WouldBlock       uint64
	Triggered        uint64
	Failed           uint64 // blocks that the kernel refused
	Evicted          uint64 // blocks that made room for others

	BudgetLimit  int           // blocks on unproven evidence
	BudgetPeriod time.Duration // in which there may be so many
	Crowded      bool          // unproven evidence is not trusted, since a set is full
	Overspent    bool          // the same, since the budget is spent

	IgnoredPrefixes int
	ServedPorts     int

	NFLOG  NFLOG
	Decoy  Decoy
	Kernel *Kernel // nil if the table cannot be read

	HookService *HookService // nil if hooks run in the daemon
}

// HookService is how the process that runs the hooks is reached.
type HookService struct {
	Up      bool   // it answers
	Waiting int    // events that it is to be told
	Dropped uint64 // events for which there was no room
}

// NFLOG counts what the kernel has told.
type NFLOG struct{ Messages, Lost, Overruns, Malformed uint64 }

// Decoy counts connections to decoys.
type Decoy struct{ Connections, Lost, Starved uint64 }

// Kernel are the counters of the table. They begin anew when it is made anew.
type Kernel struct {
	DroppedPackets, DroppedBytes uint64 // of blocked sources
	Flooded                      uint64 // probes dropped unseen, since there were too many at once
	Crowded                      uint64 // probes not counted, since a set was full
	Overspent                    uint64 // probes that would have made a block, but for the budget
}

// A measure is a metric that a value of T has.
type measure[T any] struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(T) float64
}

// counter is a measure that only grows. Labels are pairs of a name and a value.
func counter[T any](name, help string, value func(T) uint64, labels ...string) measure[T] {
	return measure[T]{describe(name, help, labels), prometheus.CounterValue, func(from T) float64 { return float64(value(from)) }}
}

// gauge is a measure that goes up and down.
func gauge[T any](name, help string, value func(T) int, labels ...string) measure[T] {
	return measure[T]{describe(name, help, labels), prometheus.GaugeValue, func(from T) float64 { return float64(value(from)) }}
}

// state is a measure that is 1 if something is so, and 0 if not.
func state[T any](name, help string, value func(T) bool, labels ...string) measure[T] {
	return gauge(name, help, func(from T) int {
		if value(from) {
			return 1
		}
		return 0
	}, labels...)
}

func describe(name, help string, labels []string) *prometheus.Desc {
	fixed := make(prometheus.Labels)
	for i := 0; i+1 < len(labels); i += 2 {
		fixed[labels[i]] = labels[i+1]
	}
	return prometheus.NewDesc(prefix+name, help, nil, fixed)
}

// measures are the metrics of a reading.
func measures() []measure[Reading] {
	return append(append(stateMeasures(), blockMeasures()...), sensorMeasures()...)
}

func stateMeasures() []measure[Reading] {
	const doubts = "1 if unproven evidence makes no blocks for now, by why."
	return []measure[Reading]{
		state("enforcing", "1 if triggers make blocks, 0 in observe mode, while panicked, and until ignore.files could be read for the first time.", func(r Reading) bool { return r.Enforcing }),
		state("panicked", "1 if everything is suspended until \"nftsentry resume\".", func(r Reading) bool { return r.Panicked }),
		state("ignore_files_unreadable", "1 if ignore.files cannot be read: the last list stays in force, or, if there is none yet, nothing is blocked.",
			func(r Reading) bool { return r.Unreadable }),
		state("state_degraded", "1 if blocks are in force and not all on disk.", func(r Reading) bool { return r.Degraded }),
		state("table_damaged", "1 if the table in the kernel cannot be made again, or not be read.", func(r Reading) bool { return r.Damaged }),
		state("doubts", doubts, func(r Reading) bool { return r.Crowded }, "reason", "crowded"),
		state("doubts", doubts, func(r Reading) bool { return r.Overspent }, "reason", "budget"),
		gauge("trigger_budget_limit", "Blocks on unproven evidence that there may be in each period.", func(r Reading) int { return r.BudgetLimit }),
		{
			describe("trigger_budget_period_seconds", "The period of the budget.", nil), prometheus.GaugeValue,
			func(r Reading) float64 { return r.BudgetPeriod.Seconds() },
		},
		gauge("ignored_prefixes", "Addresses and prefixes that are never blocked.", func(r Reading) int { return r.IgnoredPrefixes }),
		gauge("served_ports", "Ports where a service was seen, which are no tripwires.", func(r Reading) int { return r.ServedPorts }),
	}
}

func blockMeasures() []measure[Reading] {
	const live, limit = "Blocks in force.", "Blocked hosts that the kernel's set has room for."
	return []measure[Reading]{
		gauge("blocks", live, func(r Reading) int { return r.Blocks4 }, "family", "ipv4"),
		gauge("blocks", live, func(r Reading) int { return r.Blocks6 }, "family", "ipv6"),
		gauge("blocks_limit", limit, func(r Reading) int { return r.BlocksLimit }, "family", "ipv4"),
		gauge("blocks_limit", limit, func(r Reading) int { return r.BlocksLimit }, "family", "ipv6"),
		counter("blocks_would_total", "Blocks that were only logged.", func(r Reading) uint64 { return r.WouldBlock }),
		counter("blocks_triggered_total", "Blocks that were left to the hooks.", func(r Reading) uint64 { return r.Triggered }),
		counter("blocks_failed_total", "Blocks that the kernel refused at first.", func(r Reading) uint64 { return r.Failed }),
		counter("blocks_evicted_total", "Blocks ended to make room for others.", func(r Reading) uint64 { return r.Evicted }),
	}
}

func sensorMeasures() []measure[Reading] {
	return []measure[Reading]{
		counter("nflog_messages_total", "Messages of the kernel, one for each packet that it tells of.", func(r Reading) uint64 { return r.NFLOG.Messages }),
		counter("nflog_lost_total", "Messages that the daemon was too busy to look at.", func(r Reading) uint64 { return r.NFLOG.Lost }),
		counter("nflog_overruns_total", "Times that the kernel had messages and no room for them.", func(r Reading) uint64 { return r.NFLOG.Overruns }),
		counter("nflog_malformed_total", "Messages that are not of our rules, or make no sense.", func(r Reading) uint64 { return r.NFLOG.Malformed }),
		counter("decoy_connections_total", "Connections to decoys.", func(r Reading) uint64 { return r.Decoy.Connections }),
		counter("decoy_lost_total", "Connections to decoys that came too fast to be looked at.", func(r Reading) uint64 { return r.Decoy.Lost }),
		counter("decoy_starved_total", "Times that the host had no file or memory left for a connection to a decoy.", func(r Reading) uint64 { return r.Decoy.Starved }),
	}
}

// kernelMeasures are the metrics of the table's counters.
func kernelMeasures() []measure[Kernel] {
	return []measure[Kernel]{
		counter("dropped_packets_total", "Packets of blocked sources that the kernel has refused.", func(k Kernel) uint64 { return k.DroppedPackets }),
		counter("dropped_bytes_total", "Bytes of blocked sources that the kernel has refused.", func(k Kernel) uint64 { return k.DroppedBytes }),
		counter("probes_flooded_total", "Probes dropped unseen, since there were too many at once.", func(k Kernel) uint64 { return k.Flooded }),
		counter("probes_crowded_total", "Probes not counted, since a set of the kernel was full.", func(k Kernel) uint64 { return k.Crowded }),
		counter("trigger_budget_spent_total", "Probes that would have made a block, had the budget not been spent.", func(k Kernel) uint64 { return k.Overspent }),
	}
}

// serviceMeasures are the metrics of the hook service.
func serviceMeasures() []measure[HookService] {
	return []measure[HookService]{
		state("hook_service_up", "1 if the hook service answers.", func(s HookService) bool { return s.Up }),
		gauge("hook_service_waiting", "Events that the hook service is to be told.", func(s HookService) int { return s.Waiting }),
		counter("hook_service_dropped_total", "Events that the hook service was not told, since too many waited.", func(s HookService) uint64 { return s.Dropped }),
	}
}

// readings collects what is read, and says whether it could be read.
type readings struct {
	reader   *reader
	answers  *prometheus.Desc
	measures []measure[Reading]
	kernel   []measure[Kernel]
	service  []measure[HookService]
}

var _ prometheus.Collector = (*readings)(nil)

func newReadings(r *reader) *readings {
	return &readings{
		reader: r, measures: measures(), kernel: kernelMeasures(), service: serviceMeasures(),
		answers: describe("controller_up", "1 if the daemon's main loop has answered in time; if not, what it knows is left out.", nil),
	}
}

// Describe is for the registry.
func (c *readings) Describe(out chan<- *prometheus.Desc) {
	out <- c.answers
	for _, m := range c.measures {
		out <- m.desc
	}
	for _, m := range c.kernel {
		out <- m.desc
	}
	for _, m := range c.service {
		out <- m.desc
	}
}

// Collect is for the registry.
func (c *readings) Collect(out chan<- prometheus.Metric) {
	r, ok := c.reader.get()
	if !ok {
		out <- prometheus.MustNewConstMetric(c.answers, prometheus.GaugeValue, 0)
		return
	}
	out <- prometheus.MustNewConstMetric(c.answers, prometheus.GaugeValue, 1)
	emit(out, c.measures, r)
	if r.Kernel != nil {
		emit(out, c.kernel, *r.Kernel)
	}
	if r.HookService != nil {
		emit(out, c.service, *r.HookService)
	}
}

func emit[T any](out chan<- prometheus.Metric, all []measure[T], from T) {
	for _, m := range all {
		out <- prometheus.MustNewConstMetric(m.desc, m.kind, m.value(from))
	}
}
