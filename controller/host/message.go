package host

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"github.com/jsimonetti/rtnetlink/v2"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// nhaFDB marks a nexthop object of a forwarding table of VXLAN, which is no route's
// (https://elixir.bootlin.com/linux/v6.12/source/include/uapi/linux/nexthop.h#L41).
const nhaFDB = 11

// errShort is a message that ends too early.
var errShort = errors.New("message is too short")

// parseAddress reads an address message: the host's own address, and the prefix of its link. Both are zero if the
// message holds none.
func parseAddress(b []byte) (netip.Addr, netip.Prefix, error) {
	var m rtnetlink.AddressMessage
	if err := m.UnmarshalBinary(b); err != nil {
		return netip.Addr{}, netip.Prefix{}, err
	}
	if m.Attributes == nil {
		return netip.Addr{}, netip.Prefix{}, nil
	}
	// On a point-to-point link IFA_ADDRESS is the far end and IFA_LOCAL the host; elsewhere IPv6 has no IFA_LOCAL.
	far, _ := netip.AddrFromSlice(m.Attributes.Address)
	own, ok := netip.AddrFromSlice(m.Attributes.Local)
	if !ok {
		own = far
	}
	return own, netip.PrefixFrom(far, int(m.PrefixLength)), nil
}

// parseRoute reads a route message (struct rtmsg, rtnetlink(7)) and adds its next hops to gateways. Only unicast
// routes of IPv4 and IPv6 have any.
func parseRoute(b []byte, gateways addrSet) error {
	if len(b) < unix.SizeofRtMsg {
		return errShort
	}
	family, kind := b[0], b[7]
	cloned := binary.NativeEndian.Uint32(b[8:])&unix.RTM_F_CLONED != 0
	if kind != unix.RTN_UNICAST || cloned || (family != unix.AF_INET && family != unix.AF_INET6) {
		return nil
	}
	return parseHop(b[unix.SizeofRtMsg:], gateways)
}

// parseHop adds what the attributes of a route or of one of its hops name as next hops.
func parseHop(b []byte, gateways addrSet) error {
	ad, err := netlink.NewAttributeDecoder(b)
	if err != nil {
		return err
	}
	for ad.Next() {
		switch ad.Type() {
		case unix.RTA_GATEWAY:
			ad.Do(addTo(gateways))
		case unix.RTA_VIA:
			ad.Do(func(b []byte) error {
				if len(b) < 2 { // the address family
					return errShort
				}
				return addTo(gateways)(b[2:])
			})
		case unix.RTA_MULTIPATH:
			ad.Do(func(b []byte) error { return parseMultipath(b, gateways) })
		}
	}
	return ad.Err()
}

// parseMultipath adds the next hops of a multipath route: each a struct rtnexthop (rtnetlink(7)), whose length counts
// the attributes behind it, padded to four bytes.
func parseMultipath(b []byte, gateways addrSet) error {
	for len(b) > 0 {
		if len(b) < unix.SizeofRtNexthop {
			return errShort
		}
		n := int(binary.NativeEndian.Uint16(b))
		if n < unix.SizeofRtNexthop || n > len(b) {
			return errShort
		}
		if err := parseHop(b[unix.SizeofRtNexthop:n], gateways); err != nil {
			return err
		}
		b = b[min((n+3)&^3, len(b)):]
	}
	return nil
}

// parseNexthop reads a message of a nexthop object (struct nhmsg,
// https://elixir.bootlin.com/linux/v6.12/source/include/uapi/linux/nexthop.h#L8) and adds its gateway.
func parseNexthop(b []byte, gateways addrSet) error {
	if len(b) < unix.SizeofNhmsg {
		return errShort
	}
	ad, err := netlink.NewAttributeDecoder(b[unix.SizeofNhmsg:])
	if err != nil {
		return err
	}
	own := addrSet{}
	for ad.Next() {
		switch ad.Type() {
		case unix.NHA_GATEWAY:
			ad.Do(addTo(own))
		case nhaFDB:
			return nil
		}
	}
	for a := range own {
		gateways.add(a)
	}
	return ad.Err()
}

// addTo adds the address in an attribute to set. Other than IPv4 and IPv6 addresses are passed over.
func addTo(set addrSet) func([]byte) error {
	return func(b []byte) error {
		if a, ok := netip.AddrFromSlice(b); ok {
			set.add(a)
		}
		return nil
	}
}
