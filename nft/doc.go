// Package nft is nftsentry's own table in the kernel, "inet nftsentry": its
// sets, chains, elements and counters, written over netlink.
//
// It is the only part of nftsentry that speaks to nf_tables. It decides
// nothing: who is blocked, for how long and why is its caller's business. It
// touches no other table, and it never runs the nft program.
//
// The words are those of nft(8): table, chain, rule, set, element, timeout.
package nft
