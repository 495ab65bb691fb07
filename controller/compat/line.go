package compat

import (
	"fmt"
	"net/netip"
	"strings"
)

// The lines that tell of the program, as portsentry.c of Portsentry 1.2 has
// them.
const (
	Active = "adminalert: PortSentry is now active and listening."
	Down   = "securityalert: PortSentry is shutting down"
)

// Attack tells of a probe that has reached the trigger, by a protocol in lower
// case. The scan is "Connect" for a completed connection, and otherwise the
// name of reportPacketType in portsentry.c of Portsentry 1.2. Names are never
// looked up: where Portsentry has one, the address stands twice.
func Attack(scan string, source netip.Addr, protocol string, port uint16) string {
	return fmt.Sprintf("attackalert: %s from host: %s/%s to %s port: %d", scan, source, source, strings.ToUpper(protocol), port)
}

// connect is the scan of a completed connection.
const connect = "Connect"

// Blocked tells that a source, an address or a prefix, is in a set of the
// kernel. Portsentry has "dropped route using command" there; what rules look
// for is the part before.
func Blocked(source, table string) string {
	return fmt.Sprintf("attackalert: Host %s has been blocked via nftables set: \"%s\"", source, table)
}

// Denied tells that a line was written to hosts.deny.
func Denied(source, line string) string {
	return fmt.Sprintf("attackalert: Host %s has been blocked via wrappers with string: \"%s\"", source, line)
}

// Ran tells that a command was run.
func Ran(source, command string) string {
	return fmt.Sprintf("attackalert: External command run for host: %s using command: \"%s\"", source, command)
}

// Repeated tells of a probe from a source that is blocked. Portsentry has two
// forms of it, one for connections and one for packets.
func Repeated(scan string, source netip.Addr) string {
	if scan == connect {
		return fmt.Sprintf("attackalert: Host: %s is already blocked. Ignoring", source)
	}
	return fmt.Sprintf("attackalert: Host: %s/%s is already blocked Ignoring", source, source)
}

// Spared tells that the configuration asks for no more than a log line, by a
// protocol in lower case.
func Spared(protocol string) string {
	return fmt.Sprintf("attackalert: Ignoring %s response per configuration file setting.", strings.ToUpper(protocol))
}
