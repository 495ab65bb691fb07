package conf

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// mapped4 is how long the prefix is that marks an IPv4 address in an IPv6 one, RFC 4291 section 2.5.5.2.
const mapped4 = 96

// source is a string with an address, which is a prefix of full length, or a prefix.
func source(value any) (netip.Prefix, error) {
	s, err := asString(value, `an address or prefix such as "192.0.2.7" or "2001:db8::/32"`)
	if err != nil {
		return netip.Prefix{}, err
	}
	address, length, isPrefix := strings.Cut(s, "/")
	addr, err := parseAddr(address)
	if err != nil {
		return netip.Prefix{}, err
	}
	bits := addr.BitLen()
	if isPrefix {
		bits, err = parseLength(length, addr)
	}
	if err != nil {
		return netip.Prefix{}, err
	}
	return masked(unmapped(netip.PrefixFrom(addr, bits)))
}

func parseAddr(s string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}, errors.New(`not an address or prefix such as "192.0.2.7" or "2001:db8::/32"; names are not looked up`)
	}
	if addr.Zone() != "" {
		return netip.Addr{}, fmt.Errorf("a zone is not allowed: write %q, or name the interface in ignore.interfaces", addr.WithZone(""))
	}
	return addr, nil
}

func parseLength(s string, addr netip.Addr) (int, error) {
	bits, err := strconv.ParseUint(s, 10, 8)
	if err != nil || int(bits) > addr.BitLen() {
		return 0, fmt.Errorf("the length of this prefix, what follows the slash, must be from 0 to %d", addr.BitLen())
	}
	return int(bits), nil
}

// unmapped makes IPv4 of an IPv4-mapped prefix, since that is what arrives.
func unmapped(p netip.Prefix) netip.Prefix {
	if !p.Addr().Is4In6() || p.Bits() < mapped4 {
		return p
	}
	return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-mapped4)
}

// masked refuses bits behind the prefix: either they or its length are a slip.
func masked(p netip.Prefix) (netip.Prefix, error) {
	if p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("bits are set behind the prefix: write %q for the network or %q for the single address",
			p.Masked(), p.Addr().Unmap())
	}
	return p, nil
}
