// Command nftsentry guards a Linux host from port scanners on nftables alone.
//
// This package is the program: one file a command, and the wiring of the
// parts. It decides nothing.
package main

import "os"

// version and commit are set by the linker for packages; commit may be "".
var (
	version = "0.1.0-dev"
	commit  string
)

func main() {
	os.Exit(realMain())
}

func realMain() int {
	out := stdio()
	return out.finish(newRoot(out).Execute())
}
