package nft

import (
	"net/netip"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// A family is what IPv4 and IPv6 differ in.
type family struct {
	suffix      string // of set and object names
	keyType     nftables.SetDatatype
	nfproto     byte
	saddrOffset uint32     // of the source address in the network header, RFC 791 3.1 and RFC 8200 3
	bytes       uint32     // of an address
	last        netip.Addr // the highest address
}

var (
	ipv4 = family{"4", nftables.TypeIPAddr, unix.NFPROTO_IPV4, 12, 4, netip.AddrFrom4([4]byte{255, 255, 255, 255})}
	ipv6 = family{"6", nftables.TypeIP6Addr, unix.NFPROTO_IPV6, 8, 16, allOnes6()}
)

func allOnes6() netip.Addr {
	var a [16]byte
	for i := range a {
		a[i] = 0xff
	}
	return netip.AddrFrom16(a)
}

// familyOf tells the family of an address, which must not be an IPv4 address
// in IPv6 clothes.
func familyOf(a netip.Addr) family {
	if a.Is4() {
		return ipv4
	}
	return ipv6
}
