// Package packet builds raw IP packets and sends them from a host of package netns: with any source, flags, options,
// extension headers and fragments, one by one with a [Sender] or by the million with [Flood].
//
// It is test support and nothing else: no program imports it, and its packets stay between the namespaces of a test.
// It does not receive; tests have sockets and the kernel under test for that.
package packet
