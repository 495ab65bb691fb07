// Package portsentry reads the files of Portsentry 1.2 and 2.x as these programs read them: the configuration,
// Debian's file of modes, and the ignore, blocked and history files.
//
// It reports two things. A mistake is what cannot be understood, or what the one who wrote it must decide: an error of
// type Errors has all of them, each with its line, what is wrong and what to do. A Trap is what Portsentry did read, but
// in another way than it was meant, such as a network without its mask.
//
// It knows nothing of nftsentry, and changes nothing.
package portsentry
