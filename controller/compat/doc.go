// Package compat writes the log lines that Portsentry 1.2 writes, to syslog
// under its name, so that the rules of logcheck, logwatch and the like go on
// matching. It is no log of our own: what happens here is logged elsewhere.
package compat
