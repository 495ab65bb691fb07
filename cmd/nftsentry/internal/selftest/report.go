package selftest

import "slices"

// A Report is what came of a test.
type Report struct {
	Config string   `json:"config"` // file; "" for the built-in defaults
	Mode   string   `json:"mode"`   // "enforce" or "observe"
	Passed bool     `json:"passed"` // all is as configured
	Notes  []string `json:"notes"`  // what was left out or changed for the test, a sentence each
	Trials []Trial  `json:"trials"`
}

// An Outcome is what came of a trial.
type Outcome string

// The outcomes.
const (
	AsConfigured Outcome = "ok"
	Failed       Outcome = "failed"
	NotWatched   Outcome = "not watched" // the configuration has no tripwire for this kind
)

// A Trial is what came of one kind of scan over one family of addresses, from a source of its own.
type Trial struct {
	Kind    string   `json:"kind"`   // "connect", "syn", "fin", "null", "xmas", "syn-fin", "udp"
	Family  string   `json:"family"` // "IPv4", "IPv6"
	Outcome Outcome  `json:"outcome"`
	Problem string   `json:"problem"` // what is not as configured; "" if nothing
	Source  string   `json:"source"`  // of the scan, in the test's own network; "" if it was not watched
	Ports   []uint16 `json:"ports"`   // that were touched
	Noticed bool     `json:"noticed"` // the daemon has counted the probes
	Blocked Blocked  `json:"blocked"`
	Probes  int      `json:"probes"` // until the block, or until the one that would be; 0 for none
	// Microseconds from before the last of the probes was sent until the block was seen in the kernel, or until the
	// daemon said that it would have made one. To look takes some of them. 0 where that was not measured.
	Microseconds int64  `json:"microseconds"`
	Dropped      bool   `json:"dropped"`  // the source got no answer from a service any more, or was refused
	Packets      uint64 `json:"packets"`  // of the source, that the kernel has dropped after the block
	Released     bool   `json:"released"` // after unblock the service answered again
}

// Blocked says whether a trial made a block.
type Blocked string

// The answers.
const (
	Yes   Blocked = "yes"
	Would Blocked = "would be" // it is only logged, as configured
	No    Blocked = "no"
)

// watches tells whether there is a tripwire for any kind.
func watches(trials []Trial) bool {
	return slices.ContainsFunc(trials, func(t Trial) bool { return t.Outcome != NotWatched })
}

// passed tells whether all trials are as configured.
func passed(trials []Trial) bool {
	for _, t := range trials {
		if t.Outcome == Failed {
			return false
		}
	}
	return true
}
