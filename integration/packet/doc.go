// Package packet builds raw IP packets and sends them from a network namespace: with any source, flags, options,
// extension headers and fragments, one by one with a [Sender] or by the million with [Flood].
//
// It is for tests, and for the command selftest, whose packets stay between the namespaces that they have made. It does
// not receive; tests have sockets and the kernel under test for that.
package packet
