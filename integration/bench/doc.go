// Package bench measures nftsentry beside the tools that people use today, in
// one run and in network namespaces of its own: what a scan learns, how soon a
// source is blocked, what a flood does, how all that grows with the number of
// blocks, what honest traffic pays, and the tools at rest.
//
// Its tests are built with the tag "bench" and judge nothing but what would
// make a figure worthless. Each value goes to a file as it is measured; package
// figure makes tables of those files.
package bench
