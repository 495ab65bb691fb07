// Package netns gives tests network namespaces of their own: hosts, veth links between them, addresses, routes,
// sockets and programs inside, without root where user namespaces are allowed.
//
// A package that uses it has
//
//	func TestMain(m *testing.M) { netns.Main(m) }
//
// and its tests begin with [New], which skips (or in CI fails) where namespaces cannot be had.
//
// It is test support and nothing else, on top of package namespace: no program imports it, and nothing in it reaches the
// network configuration or the firewall of the namespace that the test was started in.
package netns
