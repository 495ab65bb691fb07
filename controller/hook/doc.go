// Package hook tells people and programs of blocks: it runs programs, sends mails and HTTP requests, and keeps lines in
// hosts.deny.
//
// A Runner has a bounded queue for each hook and four workers for all of them. Tell puts an event into the queues and never
// waits; what does not fit is dropped and counted. No hook has more than two workers at once, and one that has just run into
// its timeout only one, so that a hook that hangs leaves workers to the others. What failed and may be tried again waits in
// its hook's queue, not in a worker.
//
// Nothing that comes from outside is ever read by a shell, is a header, or is the name of a program. Programs, and files
// with passwords, are opened only if nobody but root can have changed them: see trust.
//
// The package knows nothing of the daemon: an Event is plain data that survives JSON.
package hook
