// Package state keeps blocks on disk: the store of record, nftsentry.db, and three text files in the format of
// Portsentry 1.2 that other programs read, portsentry.blocked.tcp, portsentry.blocked.udp and portsentry.history.
//
// It decides nothing. Which source is blocked, for how long and whether a block is over is its caller's business, and
// the truth about what is dropped is in the kernel. What is written here survives the daemon, the host and a pulled
// plug: a change is committed with fsync before the text files show it, and its caller is told after both.
//
// The store is a bbolt file, which a crash leaves whole. The blocked files mirror the live blocks and are made anew from
// the store at each start, and when others have written to them; the history only grows. Changes are handed in by any
// goroutine and written by one, in groups, see [Store.Run].
//
// There may be millions of live blocks. What one change costs does not depend on their number, but for the mirrors, from
// which a line is taken by writing the file anew: that is bounded to a part of the time, so that with more blocks lines
// leave later. Many changes at once go in the order of the keys, in parts, see [Store.SaveAll]; record.go has the format.
//
// A disk that fails never stops it, neither at the start nor later: what could not be written stays in memory and is
// tried again. bbolt trusts its file, so that each is read through before bbolt has it: a damaged one is moved aside,
// and what can be read of it goes to a new one. A store whose file was deleted or replaced while it was open is copied to
// its place, from the file that is open still.
package state
