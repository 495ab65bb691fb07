package metrics

import (
	"context"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.uber.org/zap"
)

// prefix begins the names of all metrics that are ours.
const prefix = "nftsentry_"

// A Config says where the metrics come from.
type Config struct {
	// Version is that of the program.
	Version string
	// Read reads what nobody tells of. It is called by the goroutine of Run alone, once a second at most, and has until ctx
	// ends.
	Read func(ctx context.Context) (Reading, error)
	// Hooks are asked at each scrape, perhaps by two at once; nil if there are none.
	Hooks Hooks
}

// Metrics are all metrics of a daemon. The methods that count may be called by
// many at once, and never wait: all that can be counted is there from the start,
// so that none takes a lock.
type Metrics struct {
	log      *zap.Logger
	registry *prometheus.Registry
	reader   *reader

	events   map[eventKey]prometheus.Counter
	made     map[string]prometheus.Counter // by origin
	extended map[string]prometheus.Counter // by origin
	ended    map[string]prometheus.Counter // by reason
	took     map[string]prometheus.Observer
	healed   prometheus.Counter
	reloads  map[bool]prometheus.Counter // by success
	reloaded prometheus.Gauge            // 1 if the last reload was one
	current  prometheus.Gauge            // when the configuration in force was read
}

// A Probe is what labels say of a probe.
type Probe struct {
	Protocol string // "tcp", "udp" or "unknown"
	Kind     string // such as "syn"; "unknown" if it cannot be told
	Evidence string // "proven" or "unproven"
}

// An Outcome is what came of a probe.
type Outcome string

// The outcomes.
const (
	Noticed    Outcome = "noticed"     // it counts, or the source is only logged to be blocked
	Exempted   Outcome = "exempted"    // it does not count, since the source is a peer
	Ignored    Outcome = "ignored"     // the source is never blocked
	Repeated   Outcome = "repeated"    // the source was blocked already
	Blocked    Outcome = "blocked"     // it made a block
	Extended   Outcome = "extended"    // it made a block longer
	WouldBlock Outcome = "would_block" // it would have made a block, and was only logged
	Triggered  Outcome = "triggered"   // it would have made a block, and was left to the hooks
)

const (
	unknown  = "unknown"
	other    = "other"
	proven   = "proven"
	unproven = "unproven"
)

var (
	outcomes = []Outcome{Noticed, Exempted, Ignored, Repeated, Blocked, Extended, WouldBlock, Triggered}
	probes   = []Probe{
		{"tcp", "connect", proven}, {"tcp", "syn", unproven}, {"tcp", "fin", unproven}, {"tcp", "null", unproven},
		{"tcp", "xmas", unproven}, {"tcp", "syn-fin", unproven}, {"tcp", unknown, unproven},
		{"udp", "udp", unproven}, anyProbe,
	}
	anyProbe = Probe{unknown, unknown, unproven}
	origins  = []string{"decoy", "kernel", "operator", "import", "fleet", other}
	reasons  = []string{"expired", "operator", "ignored", "room", other}
)

type eventKey struct {
	Probe
	outcome Outcome
}

// timeBuckets are the upper bounds of the time to block, in seconds.
var timeBuckets = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1}

// New makes the metrics of a daemon whose configuration was read just now.
func New(cfg Config, log *zap.Logger) *Metrics {
	m := &Metrics{
		log: log, registry: prometheus.NewRegistry(), reader: newReader(cfg.Read, log),
		events: make(map[eventKey]prometheus.Counter),
	}
	m.countEvents()
	m.countBlocks()
	m.countReloads()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: prefix + "build_info", Help: "The program that runs; always 1.",
		ConstLabels: prometheus.Labels{"version": cfg.Version, "goversion": runtime.Version()},
	})
	build.Set(1)
	m.registry.MustRegister(build, newReadings(m.reader), collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if cfg.Hooks != nil {
		m.registry.MustRegister(hookCollector{cfg.Hooks})
	}
	return m
}

func (m *Metrics) countEvents() {
	vec := m.counters("events_total", "Probes, by what came of them.", "protocol", "kind", "evidence", "outcome")
	for _, p := range probes {
		for _, o := range outcomes {
			m.events[eventKey{p, o}] = vec.WithLabelValues(p.Protocol, p.Kind, p.Evidence, string(o))
		}
	}
}

func (m *Metrics) countBlocks() {
	m.made = each(m.counters("blocks_made_total", "Blocks made, by who asked for them.", "origin"), origins)
	m.extended = each(m.counters("blocks_extended_total", "Blocks made longer or given another end, by who asked for the block.", "origin"), origins)
	m.ended = each(m.counters("blocks_ended_total", "Blocks ended, by why.", "reason"), reasons)
	m.healed = prometheus.NewCounter(prometheus.CounterOpts{
		Name: prefix + "heals_total", Help: "Times that the table was made again, or what others had taken out of it put back.",
	})
	took := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: prefix + "time_to_block_seconds", Help: "From noticing a probe to the block in the kernel.", Buckets: timeBuckets,
		NativeHistogramBucketFactor: 1.2, NativeHistogramMaxBucketNumber: 64, NativeHistogramMinResetDuration: time.Hour,
	}, []string{"evidence"})
	m.took = map[string]prometheus.Observer{proven: took.WithLabelValues(proven), unproven: took.WithLabelValues(unproven)}
	m.registry.MustRegister(m.healed, took)
}

func (m *Metrics) countReloads() {
	vec := m.counters("config_reloads_total", "Reloads of the configuration, by how they ended.", "result")
	m.reloads = map[bool]prometheus.Counter{true: vec.WithLabelValues("success"), false: vec.WithLabelValues("failure")}
	m.reloaded = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: prefix + "config_last_reload_successful", Help: "1 if the last start or reload took its configuration, 0 if it was refused.",
	})
	m.current = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: prefix + "config_last_reload_success_timestamp_seconds", Help: "When the configuration in force was read.",
	})
	m.reloaded.Set(1)
	m.current.SetToCurrentTime()
	m.registry.MustRegister(m.reloaded, m.current)
}

func (m *Metrics) counters(name, help string, labels ...string) *prometheus.CounterVec {
	vec := prometheus.NewCounterVec(prometheus.CounterOpts{Name: prefix + name, Help: help}, labels)
	m.registry.MustRegister(vec)
	return vec
}

// each are the counters of all values of a label.
func each(vec *prometheus.CounterVec, values []string) map[string]prometheus.Counter {
	all := make(map[string]prometheus.Counter, len(values))
	for _, v := range values {
		all[v] = vec.WithLabelValues(v)
	}
	return all
}

// Event counts a probe, and what came of it.
func (m *Metrics) Event(p Probe, o Outcome) {
	c, known := m.events[eventKey{p, o}]
	if !known {
		c, known = m.events[eventKey{anyProbe, o}]
	}
	if known {
		c.Inc()
	}
}

// BlockMade counts a block, by its origin.
func (m *Metrics) BlockMade(origin string) { count(m.made, origin) }

// BlockExtended counts a change of a block that stands, by its origin.
func (m *Metrics) BlockExtended(origin string) { count(m.extended, origin) }

// BlockEnded counts the end of a block, by its reason.
func (m *Metrics) BlockEnded(reason string) { count(m.ended, reason) }

func count(all map[string]prometheus.Counter, value string) {
	c, known := all[value]
	if !known {
		c = all[other]
	}
	c.Inc()
}

// TimeToBlock takes note of the time from a probe to its block.
func (m *Metrics) TimeToBlock(evidence string, took time.Duration) {
	if o, known := m.took[evidence]; known {
		o.Observe(took.Seconds())
	}
}

// Healed counts a repair of the table.
func (m *Metrics) Healed() { m.healed.Inc() }

// Reloaded counts a reload of the configuration.
func (m *Metrics) Reloaded(success bool) {
	m.reloads[success].Inc()
	if success {
		m.reloaded.Set(1)
		m.current.SetToCurrentTime()
		return
	}
	m.reloaded.Set(0)
}
