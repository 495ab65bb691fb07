// Command nftsentry guards a Linux host from port scanners on nftables alone.
//
// This package is the program: one file a command, and the wiring of the
// parts. It decides nothing.
package main

import "os"

// version is set by the linker for releases.
var version = "0.1.0-dev"

func main() {
	os.Exit(realMain())
}

func realMain() int {
	out := stdio()
	return out.finish(newRoot(out).Execute())
}
