// Package namespace makes network namespaces: hosts, veth links between them, addresses, routes and sockets inside,
// and a program that runs again in namespaces of its own, without root where user namespaces are allowed.
//
// It is what the command selftest and the tests have in common; for tests there is package netns. Nothing in it reaches
// the network configuration or the firewall of the namespace that the program was started in.
package namespace
