package nft

import (
	"net/netip"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

func event(kind netlink.HeaderType, data []byte) netlink.Message {
	return netlink.Message{Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | kind}, Data: data}
}

var inet = []byte{unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0}

// named is a message with the names of a table and of something in it.
func named(t testing.TB, family byte, table, name string, more func(*netlink.AttributeEncoder)) []byte {
	t.Helper()
	enc := netlink.NewAttributeEncoder()
	enc.String(unix.NFTA_TABLE_NAME, table)
	enc.String(unix.NFTA_SET_NAME, name)
	if more != nil {
		more(enc)
	}
	attrs, err := enc.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return append([]byte{family, unix.NFNETLINK_V0, 0, 0}, attrs...)
}

// elementOf is the attributes of one element; flags are big-endian.
func elementOf(key, flags []byte) func(*netlink.AttributeEncoder) {
	return func(enc *netlink.AttributeEncoder) {
		enc.Nested(unix.NFTA_SET_ELEM_LIST_ELEMENTS, func(list *netlink.AttributeEncoder) error {
			list.Nested(unix.NFTA_LIST_ELEM, func(elem *netlink.AttributeEncoder) error {
				elem.Nested(unix.NFTA_SET_ELEM_KEY, func(data *netlink.AttributeEncoder) error {
					data.Bytes(unix.NFTA_DATA_VALUE, key)
					return nil
				})
				if flags != nil {
					elem.Bytes(unix.NFTA_SET_ELEM_FLAGS, flags)
				}
				return nil
			})
			return nil
		})
	}
}

// TestMessage has the events that no kernel sends, and those that are another's.
func TestMessage(t *testing.T) {
	a := []byte{192, 0, 2, 7}
	for _, tt := range []struct {
		name string
		kind netlink.HeaderType
		data []byte
		want Change
	}{
		{"empty", unix.NFT_MSG_DELTABLE, nil, Change{}},
		{"header alone", unix.NFT_MSG_DELTABLE, inet, Change{}},
		{"cut short", unix.NFT_MSG_DELTABLE, append(inet[:4:4], 20, 0, 1, 0, 'n'), Change{Shape: true, All: true}},
		{"another family", unix.NFT_MSG_DELTABLE, named(t, unix.NFPROTO_IPV4, TableName, "", nil), Change{}},
		{"another table", unix.NFT_MSG_DELTABLE, named(t, unix.NFPROTO_INET, "nftsentry2", "", nil), Change{}},
		{"kind to come", 0x7f, named(t, unix.NFPROTO_INET, TableName, "", nil), Change{Shape: true}},
		{"element of a foreign set", unix.NFT_MSG_NEWSETELEM, named(t, unix.NFPROTO_INET, TableName, "mine", elementOf(a, nil)), Change{Shape: true}},
		{"element", unix.NFT_MSG_DELSETELEM, named(t, unix.NFPROTO_INET, TableName, "blocked4", elementOf(a, nil)), Change{Hosts: addresses("192.0.2.7")}},
		{"end of an interval", unix.NFT_MSG_DELSETELEM, named(t, unix.NFPROTO_INET, TableName, "nets4", elementOf(a, []byte{0, 0, 0, 1})), Change{}},
		{"no elements", unix.NFT_MSG_DELSETELEM, named(t, unix.NFPROTO_INET, TableName, "blocked4", nil), Change{}},
		{"key of 3 bytes", unix.NFT_MSG_DELSETELEM, named(t, unix.NFPROTO_INET, TableName, "blocked4", elementOf(a[:3], nil)), Change{All: true}},
	} {
		var g gatherer
		if c, ended := g.message(event(tt.kind, tt.data)); ended {
			t.Errorf("%s: ended with %+v", tt.name, c)
		}
		got, ended := g.message(event(unix.NFT_MSG_NEWGEN, inet))
		if diff := diffChange(tt.want, got); diff != "" || !ended {
			t.Errorf("%s: ended %v (-want +got):\n%s", tt.name, ended, diff)
		}
		if again, _ := g.message(event(unix.NFT_MSG_NEWGEN, inet)); again.touched() {
			t.Errorf("%s: told twice: %+v", tt.name, again)
		}
	}
}

func TestJoin(t *testing.T) {
	many := Change{Hosts: make([]netip.Addr, maxTouched)}
	for _, tt := range []struct {
		name          string
		c, d, want    Change
		wantUntouched bool
	}{
		{name: "nothing", wantUntouched: true},
		{name: "the later one did it", c: Change{Shape: true, Process: "a", PID: 1}, d: Change{Process: "b", PID: 2}, want: Change{Shape: true, Process: "b", PID: 2}},
		{name: "just few enough", c: many, want: many},
		{name: "too many", c: many, d: Change{Nets: addresses("192.0.2.7")}, want: Change{All: true}},
		{name: "all is more than some", c: Change{All: true}, d: Change{Hosts: addresses("192.0.2.7")}, want: Change{All: true}},
	} {
		got := tt.c.join(tt.d)
		if diff := diffChange(tt.want, got); diff != "" || got.PID != tt.want.PID {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
		if got.touched() == tt.wantUntouched {
			t.Errorf("%s: touched %v", tt.name, got.touched())
		}
	}
}

// FuzzMessage gives the gatherer any event. The corpus is what Linux 6.18 sent
// while nft(8) damaged the table.
func FuzzMessage(f *testing.F) {
	f.Fuzz(func(t *testing.T, kind uint16, data []byte) {
		var g gatherer
		c, ended := g.message(event(netlink.HeaderType(kind&0xff), data))
		if isEnd := kind&0xff == unix.NFT_MSG_NEWGEN && len(data) >= nfgenmsg; ended != isEnd {
			t.Errorf("ended %v, want %v", ended, isEnd)
		}
		if ended && c.touched() {
			t.Errorf("told without an event: %+v", c)
		}
		if !ended {
			c, _ = g.message(event(unix.NFT_MSG_NEWGEN, inet))
		}
		if n := len(c.Hosts) + len(c.Nets); n > maxTouched || c.All && n > 0 {
			t.Errorf("%d elements, all %v", n, c.All)
		}
		for _, a := range append(c.Hosts, c.Nets...) {
			if !a.IsValid() {
				t.Errorf("invalid address in %+v", c)
			}
		}
		if len(c.Process) > len(data) {
			t.Errorf("process %q", c.Process)
		}
	})
}
