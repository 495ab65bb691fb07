// Package tally counts what happens, hour by hour, and sums it up for reports.
//
// What is counted is bounded, whoever attacks: exact totals, and of ports,
// sources and networks those that come most often. It decides nothing, and
// nothing waits for it.
package tally
