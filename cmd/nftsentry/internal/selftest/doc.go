// Package selftest scans the program itself: it runs it with the configuration of the host on a host of its own, which
// is a network namespace, and sends each kind of scan there from another one. The caller is in namespaces of its own,
// as package namespace makes them, so that nothing of the host is touched.
package selftest
