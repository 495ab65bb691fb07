package host

import (
	"net/netip"
	"testing"

	"nftsentry/integration/netns"
)

func TestMain(m *testing.M) { netns.Main(m) }

// addrs parses addresses.
func addrs(texts ...string) []netip.Addr {
	var all []netip.Addr
	for _, s := range texts {
		all = append(all, netip.MustParseAddr(s))
	}
	return all
}

// prefixes parses prefixes.
func prefixes(texts ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, s := range texts {
		all = append(all, netip.MustParsePrefix(s))
	}
	return all
}
