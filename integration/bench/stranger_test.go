//go:build bench

package bench

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"nftsentry/integration/netns"
)

// stranger is a host that is blocked and never comes, by its number, which is
// less than 2^17. RFC 2544 has its addresses for benchmarks. No two of them make
// a prefix, so that a set of intervals has one for each.
func stranger(i int) netip.Addr {
	i *= 2
	return netip.AddrFrom4([4]byte{198, byte(18 + i>>16), byte(i >> 8), byte(i)})
}

// addElements adds strangers to a set of nft(8), from one number to another.
func addElements(t testing.TB, host *netns.Host, set string, from, to int) {
	t.Helper()
	var script strings.Builder
	for i := from; i < to; i++ {
		fmt.Fprintf(&script, "add element %s { %s }\n", set, stranger(i))
	}
	feed(t, host, script.String(), netns.Tool(t, "nft"), "-f", "-")
}

// addRejects has strangers routed nowhere, as "route add -host ADDRESS reject" does.
func addRejects(t testing.TB, host *netns.Host, from, to int) {
	t.Helper()
	var script strings.Builder
	for i := from; i < to; i++ {
		fmt.Fprintf(&script, "route add unreachable %s\n", stranger(i))
	}
	feed(t, host, script.String(), netns.Tool(t, "ip"), "-batch", "-")
}

// feed runs a program on a host with a text as its input.
func feed(t testing.TB, host *netns.Host, text, name string, args ...string) {
	t.Helper()
	cmd := host.Command(name, args...)
	var said strings.Builder
	cmd.Stdin, cmd.Stderr = strings.NewReader(text), &said
	host.Start(t, cmd)
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%s: %v\n%.1000s", name, err, said.String())
	}
}
