package nft

import (
	"net/netip"
	"slices"
	"testing"
	"time"
)

// FuzzDisjoint makes nested prefixes within one /24 from bytes and compares
// the spans with what each address should get by itself.
func FuzzDisjoint(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{24, 0, 1, 26, 64, 2, 32, 77, 1})
	f.Add([]byte{25, 0, 1, 25, 128, 1, 24, 0, 1})
	f.Add([]byte{32, 255, 9, 31, 254, 9, 24, 0, 3})
	f.Fuzz(func(t *testing.T, data []byte) {
		start := time.Unix(0, 0)
		var prefixes []span
		for chunk := range slices.Chunk(data, 3) {
			if len(chunk) < 3 || len(prefixes) == 64 {
				break
			}
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{255, 255, 255, chunk[1]}), 24+int(chunk[0]%9))
			prefixes = append(prefixes, spanOf(p, start.Add(time.Duration(chunk[2])), ""))
		}
		got := disjoint(prefixes)
		for i, s := range got {
			if s.last.Less(s.first) || i > 0 && !got[i-1].last.Less(s.first) {
				t.Fatalf("spans overlap or are out of order: %v", got)
			}
		}
		for i := range 256 {
			a := netip.AddrFrom4([4]byte{255, 255, 255, byte(i)})
			if want, is := latest(prefixes, a), latest(got, a); !want.Equal(is) {
				t.Fatalf("%s is blocked until %v instead of %v by %v", a, is, want, got)
			}
		}
	})
}

// latest is the latest moment until which one of the spans blocks an address,
// the zero time if none does.
func latest(spans []span, a netip.Addr) time.Time {
	var until time.Time
	for _, s := range spans {
		if s.first.Compare(a) <= 0 && a.Compare(s.last) <= 0 && s.until.After(until) {
			until = s.until
		}
	}
	return until
}

func TestPrefixes(t *testing.T) {
	for _, tt := range []struct {
		first, last string
		want        []netip.Prefix
	}{
		{"10.0.0.0", "10.255.255.255", prefixList("10.0.0.0/8")},
		{"10.0.0.1", "10.0.0.4", prefixList("10.0.0.1/32", "10.0.0.2/31", "10.0.0.4/32")},
		{"0.0.0.0", "255.255.255.255", prefixList("0.0.0.0/0")},
		{"255.255.255.255", "255.255.255.255", prefixList("255.255.255.255/32")},
		{"::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", prefixList("::/0")},
		{"10.0.0.2", "10.0.0.1", nil},
	} {
		if got := prefixes(netip.MustParseAddr(tt.first), netip.MustParseAddr(tt.last)); !slices.Equal(got, tt.want) {
			t.Errorf("prefixes(%s, %s) = %v, want %v", tt.first, tt.last, got, tt.want)
		}
	}
}
