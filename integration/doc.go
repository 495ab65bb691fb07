// Package integration holds the tests of the whole program with real packets
// between network namespaces, and the benchmarks.
//
// They need no root where user namespaces are allowed, and never touch the
// network or the firewall of the namespace that they are started in.
package integration
