// Package metrics tells Prometheus what the daemon does: it counts what it is
// told of, asks for the rest when it is scraped, and serves both by HTTP.
//
// It has a registry of its own, and no profiles. Labels are from closed sets:
// never an address or a port.
package metrics
