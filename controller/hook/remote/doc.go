// Package remote has hooks run in another process: a Client in the daemon hands its events to a Server in the hook service,
// which runs as another user.
//
// They speak HTTP with JSON on a unix socket. What crosses it are events and sources that are blocked, and that the
// configuration is to be read again: which programs are run, and what is reached, is what the service reads itself. A
// daemon that somebody has taken over cannot have it run others.
//
// The Client never waits for the service where the daemon could notice: it has a bounded queue, and counts what finds no
// room.
package remote
