package main

import (
	"testing"

	"nftsentry/controller"
)

// TestHearAllocs shows that what is heard again of a source allocates nothing.
func TestHearAllocs(t *testing.T) {
	g := hearing(t)
	for _, what := range []controller.What{controller.Probed, controller.Exempted, controller.Repeated, controller.Ignored} {
		n := heard(what, 1)
		hear := func() {
			n.Event.Time = n.Event.Time.Add(1)
			g.hear(n)
		}
		for range 100 { // until the trace has as much as it remembers
			hear()
		}
		if allocs := testing.AllocsPerRun(100, hear); allocs != 0 {
			t.Errorf("%s: %v allocations, want none", what, allocs)
		}
	}
}
