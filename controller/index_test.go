package controller

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestIndex holds an index to what a map does, with many keys that come and go.
func TestIndex(t *testing.T) {
	records := make([]record, 3000)
	for i := range records {
		records[i].key = keyOf(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 32))
	}
	x, want := newIndex(), make(map[sourceKey]int32)
	for i := range 100_000 {
		at := int32(i * 7919 % 3001 % len(records))
		key := records[at].key
		_, there := want[key]
		switch {
		case there && i%3 != 0:
			x.remove(records, key)
			delete(want, key)
		default:
			x.set(records, key, at)
			want[key] = at
		}
	}
	got := make(map[sourceKey]int32)
	for _, r := range records {
		if at, ok := x.find(records, r.key); ok {
			got[r.key] = at
		}
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(sourceKey{})); diff != "" || x.used != len(want) || len(want) == 0 {
		t.Errorf("%d keys (-want +got):\n%s", x.used, diff)
	}
}
