package controller

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"

	"nftsentry/state"
)

var exact = cmp.Options{
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) && a.Round(0).Equal(b.Round(0)) }),
}

// TestRecord puts blocks in and takes them out again.
func TestRecord(t *testing.T) {
	if n := unsafe.Sizeof(record{}); n != 72 {
		t.Errorf("a record has %d bytes, want 72", n)
	}
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		for name, b := range map[string]state.Block{
			"of IPv4": {
				Source: netip.MustParsePrefix("192.0.2.7/32"), Address: netip.MustParseAddr("192.0.2.7"), Since: now, Until: now.Add(time.Hour),
				Strikes: 3, Port: 65535, Protocol: "tcp", Kind: "syn-fin", Evidence: "proven", Origin: state.OriginDecoy, Comment: "tcp/65535 syn-fin x4",
			},
			"of IPv6":         {Source: netip.MustParsePrefix("2001:db8::/64"), Address: netip.MustParseAddr("2001:db8::1"), Since: now, Until: now},
			"with a zone":     {Source: netip.MustParsePrefix("fe80::1/128"), Address: netip.MustParseAddr("fe80::1%eth0"), Since: now, Until: now},
			"of a prefix":     {Source: netip.MustParsePrefix("10.0.0.0/8"), Since: now.Round(0).UTC(), Until: now.Add(10 * 365 * 24 * time.Hour)},
			"of everything":   {Source: netip.MustParsePrefix("::/0"), Since: time.Unix(0, 1).UTC(), Until: now},
			"without a begin": {Source: netip.MustParsePrefix("192.0.2.0/31"), Until: now},
		} {
			bs := newBlocks(64)
			bs.put(b)
			got, ok := bs.get(b.Source)
			if diff := cmp.Diff(b, got, exact); diff != "" || !ok {
				t.Errorf("%s (-want +got):\n%s", name, diff)
			}
		}
	})
}

// TestBlocks puts in, replaces and removes, and looks whether all is in order.
func TestBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bs, want, now := newBlocks(64), make(map[netip.Prefix]time.Duration), time.Now()
		for i := range 5000 {
			n := i * 7919 % 1000
			source := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}), 32)
			if n%2 == 0 {
				source = netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 14: byte(n >> 8), 15: byte(n)}), 128)
			}
			if i%3 == 2 {
				bs.remove(source)
				delete(want, source)
				continue
			}
			want[source] = time.Duration(i*104729%5000) * time.Second
			bs.put(state.Block{Source: source, Since: now, Until: now.Add(want[source])})
		}
		got, v4 := make(map[netip.Prefix]time.Duration), 0
		for b := range bs.all() {
			got[b.Source] = b.Until.Sub(now)
			if b.Source.Addr().Is4() {
				v4++
			}
		}
		if diff := cmp.Diff(want, got, exact); diff != "" || bs.len() != len(want) || bs.count(true) != v4 || bs.count(false) != len(want)-v4 {
			t.Errorf("%d blocks, %d and %d (-want +got):\n%s", bs.len(), bs.count(true), bs.count(false), diff)
		}
		last := time.Duration(-1)
		for _, b := range bs.due(now.Add(2 * time.Hour)) {
			if left := b.Until.Sub(now); left < last {
				t.Fatalf("%v ends after %v", left, last)
			} else {
				last = left
			}
		}
		if _, ok := bs.next(); ok || bs.len() != 0 {
			t.Errorf("%d blocks are left", bs.len())
		}
	})
}
