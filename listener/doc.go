// Package listener is everything that notices: it turns what touches a
// tripwire into an Event.
//
// Decoy is the one listening socket to which the kernel leads connections to
// decoy ports. It answers nothing but a banner and reads nothing that counts.
//
// The package judges nobody: who is ignored, counted or blocked is the
// business of whoever receives the events.
package listener
