package host

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// exact compares addresses and prefixes by ==.
var exact = cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})

func TestFactsEqual(t *testing.T) {
	base := Facts{
		Addresses: addrs("192.0.2.1"),
		Gateways:  addrs("192.0.2.254", "fe80::1"),
		Resolvers: addrs("192.0.2.53"),
		OnLink6:   prefixes("fe80::/10"),
	}
	tests := []struct {
		name   string
		change func(*Facts)
		want   bool
	}{
		{"nothing", func(*Facts) {}, true},
		{"copies", func(f *Facts) { f.Gateways = addrs("192.0.2.254", "fe80::1") }, true},
		{"address", func(f *Facts) { f.Addresses = addrs("192.0.2.2") }, false},
		{"gateway fewer", func(f *Facts) { f.Gateways = f.Gateways[:1] }, false},
		{"resolver more", func(f *Facts) { f.Resolvers = addrs("192.0.2.53", "192.0.2.54") }, false},
		{"no prefixes", func(f *Facts) { f.OnLink6 = nil }, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := base
			tt.change(&f)
			if got := f.Equal(base); tt.want != got {
				t.Errorf("want %t, got %t", tt.want, got)
			}
			if got := base.Equal(f); tt.want != got {
				t.Errorf("the other way round: want %t, got %t", tt.want, got)
			}
		})
	}
}

func TestAddrSet(t *testing.T) {
	s := addrSet{}
	for _, a := range addrs("fe80::1%eth0", "fe80::1%eth1", "::ffff:192.0.2.1", "192.0.2.1", "10.0.0.1",
		"0.0.0.0", "::", "::ffff:0.0.0.0", "224.0.0.1", "ff02::1", "2001:db8::1") {
		s.add(a)
	}
	s.add(netip.Addr{})
	want := addrs("10.0.0.1", "192.0.2.1", "2001:db8::1", "fe80::1")
	if diff := cmp.Diff(want, s.sorted(), exact); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if got := (addrSet{}).sorted(); got != nil {
		t.Errorf("empty: want nil, got %v", got)
	}
}

func TestOnLink6(t *testing.T) {
	tests := []struct {
		name     string
		prefixes []netip.Prefix
		want     []netip.Prefix
	}{
		{"always link-local", nil, prefixes("fe80::/10")},
		{"masked", prefixes("2001:db8::1/64"), prefixes("2001:db8::/64", "fe80::/10")},
		{"IPv4 and hosts are left out", prefixes("192.0.2.1/24", "::1/128", "::ffff:192.0.2.1/120"), prefixes("fe80::/10")},
		{"invalid ones too", []netip.Prefix{{}, netip.PrefixFrom(netip.MustParseAddr("::1"), 200)}, prefixes("fe80::/10")},
		{"each once", prefixes("2001:db8::2/64", "2001:db8::1/64"), prefixes("2001:db8::/64", "fe80::/10")},
		{"none within another", prefixes("2001:db8:0:1::1/64", "2001:db8::1/48", "fe80::1/64", "2001:db8::1/64"), prefixes("2001:db8::/48", "fe80::/10")},
		{"neighbouring", prefixes("fd00:0:0:1::1/64", "fd00::1/64"), prefixes("fd00::/64", "fd00:0:0:1::/64", "fe80::/10")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, onLink6(tt.prefixes), exact); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}
