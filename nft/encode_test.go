package nft

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// written is a batch in one piece, but for the numbers of its messages.
func written(t *testing.T, fill func(b *batch) error) []byte {
	t.Helper()
	b, err := newBatch()
	if err != nil {
		t.Fatal(err)
	}
	if err := fill(b); err != nil {
		t.Fatal(err)
	}
	if err := b.join(); err != nil {
		t.Fatal(err)
	}
	return slices.Concat(b.parts...)
}

// TestElementWriter compares messages with those of google/nftables, byte for
// byte.
func TestElementWriter(t *testing.T) {
	set4 := &nftables.Set{Table: &nftables.Table{Name: TableName, Family: nftables.TableFamilyINet}, Name: "blocked4", ID: 7, KeyType: nftables.TypeIPAddr, HasTimeout: true}
	set6 := &nftables.Set{Table: set4.Table, Name: "blocked6", ID: 8, KeyType: nftables.TypeIP6Addr, HasTimeout: true}
	var comments []Element
	for n := range MaxComment + 1 {
		comments = append(comments, element(fmt.Sprintf("10.0.0.%d/32", n), time.Hour, strings.Repeat("c", n)))
	}
	for _, tt := range []struct {
		name  string
		set   *nftables.Set
		elems []Element
	}{
		{"none", set4, nil},
		{"one of IPv4", set4, []Element{element("192.0.2.7/32", 90*time.Second, "tcp/23 connect")}},
		{"one of IPv6", set6, []Element{element("2001:db8::/64", 90*time.Second, "tcp/23 connect")}},
		{"no comment", set4, []Element{element("192.0.2.7/32", 90*time.Second, "")}},
		{"part of a second", set4, []Element{element("192.0.2.7/32", 1500*time.Millisecond, "")}},
		{"ten years", set4, []Element{element("192.0.2.7/32", 87600*time.Hour, "")}},
		{"comments of all lengths", set4, comments},
	} {
		for _, kind := range []uint16{unix.NFT_MSG_NEWSETELEM, unix.NFT_MSG_DELSETELEM} {
			t.Run(fmt.Sprintf("%s, message %d", tt.name, kind), func(t *testing.T) {
				want := written(t, func(b *batch) error { return byLibrary(b, kind, tt.set, tt.elems) })
				got := written(t, func(b *batch) error {
					w := b.elements(netlink.HeaderType(kind), tt.set)
					for _, e := range tt.elems {
						w.add(e)
					}
					return w.close()
				})
				if !bytes.Equal(want, got) {
					t.Errorf("-want +got:\n%s", cmp.Diff(want, got))
				}
			})
		}
	}
}

func byLibrary(b *batch, kind uint16, set *nftables.Set, elems []Element) error {
	var all []nftables.SetElement
	for _, e := range elems {
		elem := nftables.SetElement{Key: e.Prefix.Addr().AsSlice()}
		if kind == unix.NFT_MSG_NEWSETELEM {
			elem.Timeout, elem.Comment = seconds(e.Timeout), e.Comment
		}
		all = append(all, elem)
	}
	switch {
	case len(all) == 0:
		return nil
	case kind == unix.NFT_MSG_DELSETELEM:
		return b.conn.SetDeleteElements(set, all)
	}
	return b.conn.SetAddElements(set, all)
}

// TestElementsInKernel reads back what both sets hold after more elements than
// a message can have, with comments of all lengths.
func TestElementsInKernel(t *testing.T) {
	const n = 5000
	var want []Element
	for i := range n {
		want = append(want, element(fmt.Sprintf("10.0.%d.%d/32", i>>8, i&255), time.Hour, strings.Repeat("x", i%(MaxComment+1))))
	}
	for i := range n {
		want = append(want, element(fmt.Sprintf("2001:db8:0:%x::/64", i+1), time.Hour, strings.Repeat("y", i%(MaxComment+1))))
	}
	_, table := load(t, enforce(), want...)
	got, _, err := table.Blocked()
	if err != nil {
		t.Fatal(err)
	}
	ignore := cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".Timeout" || p.Last().String() == ".Age" }, cmp.Ignore())
	if diff := cmp.Diff(want, got, ignore, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("blocked (-want +got):\n%s", diff)
	}
}

// FuzzReadElements gives the reader of elements what no kernel sends.
func FuzzReadElements(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{8, 0, 3, 0x80, 4, 0, 1, 0x80})
	f.Add([]byte{20, 0, 3, 0x80, 16, 0, 1, 0x80, 12, 0, 1, 0x80, 8, 0, 1, 0, 192, 0, 2, 7})
	f.Add([]byte{12, 0, 3, 0, 8, 0, 1, 0, 255, 255, 1, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		readElements(data, make(map[string]string), func(e listed) bool {
			if !e.key.IsValid() {
				t.Error("an element without a key")
			}
			return true
		})
	})
}
