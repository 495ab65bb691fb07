// Package listener is everything that notices: it turns what touches a
// tripwire into an Event.
//
// Decoy is the one listening socket to which the kernel leads connections to
// decoy ports. It answers nothing but a banner and reads nothing that counts.
//
// NFLOG reads what the kernel's own rules tell of probes of watched ports:
// lone packets, which prove nothing, each with the Verdict that the rules have
// come to.
//
// The package judges nobody: who is ignored, counted or blocked is the
// business of the kernel and of whoever receives the events.
package listener
