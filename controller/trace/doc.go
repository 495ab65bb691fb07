// Package trace remembers what came of late of each source: its last probes,
// and how its last block ended. It is a memory for people who ask, not a
// record: it is bounded, and gone with the program.
package trace
