// Package doctor finds out whether blocks work on this host, and what is in their way. Each check looks at one thing and
// says what it has found; it changes nothing, and starts no program.
package doctor
