package host

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// An attr is an attribute of a message; several in a row are encoded one after the other.
type attr struct {
	kind uint16
	data []byte
}

// encode returns header and attributes as the kernel sends them.
func encode(t testing.TB, header []byte, attrs ...attr) []byte {
	t.Helper()
	ae := netlink.NewAttributeEncoder()
	for _, a := range attrs {
		ae.Bytes(a.kind, a.data)
	}
	b, err := ae.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return append(header, b...)
}

// ip is an address as it stands in an attribute.
func ip(s string) []byte { return netip.MustParseAddr(s).AsSlice() }

// via is a struct rtvia.
func via(family uint16, s string) []byte {
	return append(binary.NativeEndian.AppendUint16(nil, family), ip(s)...)
}

// rtmsg is a struct rtmsg.
func rtmsg(family, kind uint8, flags uint32) []byte {
	b := []byte{family, 0, 0, 0, unix.RT_TABLE_MAIN, unix.RTPROT_STATIC, unix.RT_SCOPE_UNIVERSE, kind}
	return binary.NativeEndian.AppendUint32(b, flags)
}

// hop is a struct rtnexthop with attributes.
func hop(t testing.TB, attrs ...attr) []byte {
	b := encode(t, make([]byte, unix.SizeofRtNexthop), attrs...)
	binary.NativeEndian.PutUint16(b, uint16(len(b)))
	return b
}

// routes are route messages and the next hops they name.
func routes(t testing.TB) map[string]struct {
	message []byte
	want    []netip.Addr
} {
	gateway := func(s string) attr { return attr{unix.RTA_GATEWAY, ip(s)} }
	unicast4, unicast6 := rtmsg(unix.AF_INET, unix.RTN_UNICAST, 0), rtmsg(unix.AF_INET6, unix.RTN_UNICAST, 0)
	var two []byte
	two = append(two, hop(t, gateway("192.0.2.2"))...)
	two = append(two, hop(t, attr{unix.RTA_VIA, via(unix.AF_INET6, "fe80::2")})...)
	two = append(two, hop(t)...) // on a link, without a gateway
	return map[string]struct {
		message []byte
		want    []netip.Addr
	}{
		// ip route add 198.51.100.0/24 dev eth0
		"on a link": {encode(t, unicast4, attr{unix.RTA_DST, ip("198.51.100.0")}, attr{unix.RTA_OIF, []byte{2, 0, 0, 0}}), nil},
		// ip route add default via 192.0.2.1
		"IPv4": {encode(t, unicast4, gateway("192.0.2.1")), addrs("192.0.2.1")},
		// ip -6 route add default via fe80::1 dev eth0
		"IPv6": {encode(t, unicast6, gateway("fe80::1")), addrs("fe80::1")},
		// ip route add default via inet6 fe80::1 dev eth0
		"IPv4 by IPv6": {encode(t, unicast4, attr{unix.RTA_VIA, via(unix.AF_INET6, "fe80::1")}), addrs("fe80::1")},
		// ip route add default nexthop via 192.0.2.2 nexthop via inet6 fe80::2 dev eth0 nexthop dev eth1
		"multipath": {encode(t, unicast4, attr{unix.RTA_MULTIPATH, two}), addrs("192.0.2.2", "fe80::2")},
		// ip route add blackhole 198.51.100.0/24
		"blackhole": {encode(t, rtmsg(unix.AF_INET, unix.RTN_BLACKHOLE, 0), gateway("192.0.2.1")), nil},
		"local":     {encode(t, rtmsg(unix.AF_INET, unix.RTN_LOCAL, 0), gateway("192.0.2.1")), nil},
		"cached":    {encode(t, rtmsg(unix.AF_INET6, unix.RTN_UNICAST, unix.RTM_F_CLONED), gateway("fe80::1")), nil},
		"MPLS":      {encode(t, rtmsg(unix.AF_MPLS, unix.RTN_UNICAST, 0), attr{unix.RTA_VIA, via(unix.AF_INET, "192.0.2.1")}), nil},
		"no address of ours": {encode(t, unicast4, attr{unix.RTA_GATEWAY, []byte{1, 2, 3}},
			attr{unix.RTA_VIA, []byte{7, 0, 1, 2, 3, 4, 5, 6, 7, 8}}, gateway("0.0.0.0")), nil},
	}
}

func TestParseRoute(t *testing.T) {
	for name, tt := range routes(t) {
		t.Run(name, func(t *testing.T) {
			got := addrSet{}
			if err := parseRoute(tt.message, got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got.sorted(), exact); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestParseRouteShort(t *testing.T) {
	header := rtmsg(unix.AF_INET, unix.RTN_UNICAST, 0)
	tests := []struct {
		name    string
		message []byte
	}{
		{"nothing", nil},
		{"half a header", header[:8]},
		{"via without a family", encode(t, header, attr{unix.RTA_VIA, []byte{2}})},
		{"half a hop", encode(t, header, attr{unix.RTA_MULTIPATH, make([]byte, 4)})},
		{"hop without a length", encode(t, header, attr{unix.RTA_MULTIPATH, make([]byte, 8)})},
		{"hop longer than all", encode(t, header, attr{unix.RTA_MULTIPATH, binary.NativeEndian.AppendUint64(nil, 0xffff)})},
	}
	for _, tt := range tests {
		if err := parseRoute(tt.message, addrSet{}); !errors.Is(err, errShort) {
			t.Errorf("%s: want %v, got %v", tt.name, errShort, err)
		}
	}
}

func FuzzParseRoute(f *testing.F) {
	for _, r := range routes(f) {
		f.Add(r.message)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got := addrSet{}
		_ = parseRoute(b, got)
		_ = parseNexthop(b, got)
		for a := range got {
			if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.Is4In6() || a.Zone() != "" {
				t.Errorf("want an address of a host, got %s", a)
			}
		}
	})
}

func TestParseNexthop(t *testing.T) {
	header := make([]byte, unix.SizeofNhmsg)
	gateway := attr{unix.NHA_GATEWAY, ip("192.0.2.1")}
	tests := []struct {
		name    string
		message []byte
		want    []netip.Addr
		err     error
	}{
		{"gateway", encode(t, header, gateway), addrs("192.0.2.1"), nil},                // ip nexthop add via 192.0.2.1 dev eth0
		{"on a link", encode(t, header, attr{unix.NHA_OIF, make([]byte, 4)}), nil, nil}, // ip nexthop add dev eth0
		{"forwarding table", encode(t, header, gateway, attr{nhaFDB, nil}), nil, nil},   // ip nexthop add via 192.0.2.1 fdb
		{"short", header[:4], nil, errShort},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := addrSet{}
			if err := parseNexthop(tt.message, got); !errors.Is(err, tt.err) {
				t.Fatalf("want error %v, got %v", tt.err, err)
			}
			if diff := cmp.Diff(tt.want, got.sorted(), exact); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestParseAddress(t *testing.T) {
	header := func(family, bits uint8) []byte { return []byte{family, bits, 0, 0, 2, 0, 0, 0} }
	tests := []struct {
		name    string
		message []byte
		own     netip.Addr
		link    netip.Prefix
	}{
		// ip addr add 192.0.2.1/24 dev eth0
		{"IPv4", encode(t, header(unix.AF_INET, 24), attr{unix.IFA_ADDRESS, ip("192.0.2.1")}, attr{unix.IFA_LOCAL, ip("192.0.2.1")}),
			netip.MustParseAddr("192.0.2.1"), netip.MustParsePrefix("192.0.2.1/24")},
		// ip addr add 2001:db8::1/64 dev eth0
		{"IPv6", encode(t, header(unix.AF_INET6, 64), attr{unix.IFA_ADDRESS, ip("2001:db8::1")}),
			netip.MustParseAddr("2001:db8::1"), netip.MustParsePrefix("2001:db8::1/64")},
		// ip addr add 2001:db8::1 peer 2001:db8:1::1/64 dev eth0
		{"point to point", encode(t, header(unix.AF_INET6, 64), attr{unix.IFA_LOCAL, ip("2001:db8::1")}, attr{unix.IFA_ADDRESS, ip("2001:db8:1::1")}),
			netip.MustParseAddr("2001:db8::1"), netip.MustParsePrefix("2001:db8:1::1/64")},
		{"no address", header(unix.AF_INET6, 64), netip.Addr{}, netip.Prefix{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			own, link, err := parseAddress(tt.message)
			if err != nil {
				t.Fatal(err)
			}
			if tt.own != own || tt.link != link {
				t.Errorf("want %s on %s, got %s on %s", tt.own, tt.link, own, link)
			}
		})
	}
	if _, _, err := parseAddress(nil); err == nil {
		t.Error("want an error for an empty message, got none")
	}
}
