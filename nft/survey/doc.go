// Package survey reads what all programs have in nftables: tables, chains and what their rules can do to a packet. It
// is not an interpreter of rules. It tells which base chains see a packet in which order, whether they can drop it, and
// to whom of the well-known programs they belong.
package survey
