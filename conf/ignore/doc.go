// Package ignore reads the files that list who is never blocked, as Portsentry has them: portsentry.ignore and
// portsentry.ignore.static of Portsentry 1.2, and the ignore file of 2.x.
//
// A line has an address or a prefix, IPv4 or IPv6; what follows a "#" is a comment. What either Portsentry would have
// misread, and a person clearly meant, is read as meant: blanks before the address, capital letters in IPv6, host bits
// behind the prefix, a last line without a newline, lines that end in CR LF. What is no address is an error with its
// line, and then nothing of the file is taken.
//
// Read reads a list of files. A Follower tells when to do so again.
package ignore
