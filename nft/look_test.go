package nft

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"nftsentry/integration/netns"
)

// look looks an address up whose source is the given one, with the times left
// rounded up to minutes.
func look(t *testing.T, host *netns.Host, address, source string, ports ...HeldPort) Sight {
	t.Helper()
	s, err := Look(host.FD(), LookRequest{netip.MustParseAddr(address), netip.MustParsePrefix(source), 64, ports})
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range []*Held{s.Host, s.Net, s.Ignored, s.Peer, s.Suspect} {
		if h != nil {
			h.Left = minutes(h.Left)
		}
	}
	for i := range s.Ports {
		s.Ports[i].Left = minutes(s.Ports[i].Left)
	}
	return s
}

func minutes(d time.Duration) time.Duration { return (d + time.Minute - 1).Truncate(time.Minute) }

func held(set, first, last string, left time.Duration, comment string) *Held {
	counted := strings.HasPrefix(set, "blocked") || strings.HasPrefix(set, "nets")
	return &Held{Counted: counted, Set: set, First: netip.MustParseAddr(first), Last: netip.MustParseAddr(last), Left: left, Comment: comment}
}

// TestLook fills the sets as rules and programs do, and looks at what is there
// of each source, and of those beside it.
func TestLook(t *testing.T) {
	host, table := load(t, enforce(),
		element("198.51.100.7/32", time.Hour, "tcp/23 connect"),
		element("198.51.100.0/28", 2*time.Hour, "operator"), element("255.0.0.0/8", time.Hour, "top"),
		element("198.18.0.0/31", time.Hour, "left"), element("198.18.0.2/31", time.Hour, "right"), element("198.18.0.4/31", time.Hour, "third"),
		element("2001:db8:1:2::/64", time.Hour, "wide"), element("fd88::5/128", time.Hour, "neighbour"),
		element("2001:db8:8000::/33", 3*time.Hour, "far"),
	)
	for _, command := range []string{
		"add element inet nftsentry peers4 { 203.0.113.1 timeout 30m }",
		"add element inet nftsentry suspects4 { 203.0.113.1 timeout 1m }",
		"add element inet nftsentry probes4 { 203.0.113.1 . tcp . 200 timeout 5m, 203.0.113.1 . udp . 201 timeout 6m }",
		"add element inet nftsentry peers6 { 2001:db8:3:4:: timeout 30m }",
		"add element inet nftsentry probes6 { 2001:db8:3:4:: . tcp . 200 timeout 5m }",
		"add element inet nftsentry blocked4 { 203.0.113.2 timeout 1h }",
	} {
		host.Output(t, netns.Tool(t, "nft"), command)
	}
	tcp200, udp200, udp201 := HeldPort{unix.IPPROTO_TCP, 200, 0}, HeldPort{unix.IPPROTO_UDP, 200, 0}, HeldPort{unix.IPPROTO_UDP, 201, 0}
	remembered := func(p HeldPort, left time.Duration) HeldPort { p.Left = left; return p }
	for _, tt := range []struct {
		name, address, source string
		ports                 []HeldPort
		want                  Sight
	}{
		{name: "nobody", address: "203.0.113.9", source: "203.0.113.9/32", ports: []HeldPort{tcp200}},
		{name: "a host in a prefix", address: "198.51.100.7", source: "198.51.100.7/32", want: Sight{
			Host: held("blocked4", "198.51.100.7", "198.51.100.7", time.Hour, "tcp/23 connect"),
			Net:  held("nets4", "198.51.100.0", "198.51.100.15", 2*time.Hour, "operator"),
		}},
		{name: "the first of a prefix", address: "198.51.100.0", source: "198.51.100.0/32", want: Sight{
			Net: held("nets4", "198.51.100.0", "198.51.100.15", 2*time.Hour, "operator"),
		}},
		{name: "the last of a prefix", address: "198.51.100.15", source: "198.51.100.15/32", want: Sight{
			Net: held("nets4", "198.51.100.0", "198.51.100.15", 2*time.Hour, "operator"),
		}},
		{name: "the first of a prefix between two", address: "198.18.0.2", source: "198.18.0.2/32", want: Sight{
			Net: held("nets4", "198.18.0.2", "198.18.0.3", time.Hour, "right"),
		}},
		{name: "the last of a prefix before another", address: "198.18.0.1", source: "198.18.0.1/32", want: Sight{
			Net: held("nets4", "198.18.0.0", "198.18.0.1", time.Hour, "left"),
		}},
		{name: "before a prefix", address: "198.51.99.255", source: "198.51.99.255/32"},
		{name: "behind a prefix", address: "198.51.100.16", source: "198.51.100.16/32"},
		{name: "the highest prefix", address: "255.1.2.3", source: "255.1.2.3/32", want: Sight{
			Net: held("nets4", "255.0.0.0", "255.255.255.255", time.Hour, "top"),
		}},
		{name: "ignored", address: "192.0.2.1", source: "192.0.2.1/32", want: Sight{
			Ignored: held("ignored4", "192.0.2.0", "192.0.2.2", 0, ""),
		}},
		{name: "a peer that touches ports", address: "203.0.113.1", source: "203.0.113.1/32", ports: []HeldPort{tcp200, udp200, udp201}, want: Sight{
			Peer:    held("peers4", "203.0.113.1", "203.0.113.1", 30*time.Minute, ""),
			Suspect: held("suspects4", "203.0.113.1", "203.0.113.1", time.Minute, ""),
			Ports:   []HeldPort{remembered(tcp200, 5*time.Minute), remembered(udp201, 6*time.Minute)},
		}},
		{name: "added by hand, without a comment and a counter", address: "203.0.113.2", source: "203.0.113.2/32", want: Sight{
			Host: uncounted(held("blocked4", "203.0.113.2", "203.0.113.2", time.Hour, "")),
		}},
		{name: "one of an IPv6 prefix", address: "2001:db8:1:2::5", source: "2001:db8:1:2::/64", want: Sight{
			Host: held("blocked6", "2001:db8:1:2::", "2001:db8:1:2:ffff:ffff:ffff:ffff", time.Hour, "wide"),
		}},
		{name: "the first of an IPv6 prefix", address: "2001:db8:1:2::", source: "2001:db8:1:2::/64", want: Sight{
			Host: held("blocked6", "2001:db8:1:2::", "2001:db8:1:2:ffff:ffff:ffff:ffff", time.Hour, "wide"),
		}},
		{name: "a neighbour in a blocked IPv6 prefix", address: "2001:db8:1:2::5", source: "2001:db8:1:2::5/128"},
		{name: "a neighbour", address: "fd88::5", source: "fd88::5/128", want: Sight{
			Host: held("blocked6", "fd88::5", "fd88::5", time.Hour, "neighbour"),
		}},
		{name: "in a wide IPv6 prefix", address: "2001:db8:9000::1", source: "2001:db8:9000::/64", want: Sight{
			Net: held("nets6", "2001:db8:8000::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", 3*time.Hour, "far"),
		}},
		{name: "an IPv6 peer", address: "2001:db8:3:4::7", source: "2001:db8:3:4::/64", ports: []HeldPort{udp200, tcp200}, want: Sight{
			Peer:  held("peers6", "2001:db8:3:4::", "2001:db8:3:4::", 30*time.Minute, ""),
			Ports: []HeldPort{remembered(tcp200, 5*time.Minute)},
		}},
		{name: "ignored for ever", address: "fe80::1", source: "fe80::1/128", want: Sight{
			Ignored: held("ignored6", "fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 0, ""),
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, look(t, host, tt.address, tt.source, tt.ports...), cmp.Comparer(sameAddr)); diff != "" {
				t.Errorf("in the kernel (-want +got):\n%s", diff)
			}
		})
	}
	if _, err := table.Delete(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Sight{}, look(t, host, "198.51.100.7", "198.51.100.7/32")); diff != "" {
		t.Errorf("without a table (-want +got):\n%s", diff)
	}
}

func sameAddr(a, b netip.Addr) bool { return a == b }

func TestLookWrong(t *testing.T) {
	for name, r := range map[string]LookRequest{
		"nothing":       {},
		"a mapped one":  {Address: netip.MustParseAddr("::ffff:192.0.2.1"), Source: netip.MustParsePrefix("::/0")},
		"a zone":        {Address: netip.MustParseAddr("fe80::1%eth0"), Source: netip.MustParsePrefix("fe80::1/128")},
		"of another":    {Address: netip.MustParseAddr("192.0.2.1"), Source: netip.MustParsePrefix("192.0.2.2/32")},
		"of no one":     {Address: netip.MustParseAddr("192.0.2.1")},
		"of the others": {Address: netip.MustParseAddr("192.0.2.1"), Source: netip.MustParsePrefix("::/0")},
	} {
		if got, err := Look(0, r); err == nil {
			t.Errorf("%s: %+v, want an error", name, got)
		}
	}
}

// TestLookFull shows that to look is quick in a set that takes a second to list.
func TestLookFull(t *testing.T) {
	var blocks []Element
	for i := range DefaultHosts {
		blocks = append(blocks, Element{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32), Timeout: time.Hour})
	}
	host, _ := load(t, enforce(), blocks...)
	began := time.Now()
	const looks = 20
	for range looks {
		if s := look(t, host, "10.0.99.1", "10.0.99.1/32"); s.Host == nil {
			t.Fatal("the element is not found")
		}
	}
	took := time.Since(began) / looks
	t.Logf("a look takes %v", took)
	if took > 50*time.Millisecond {
		t.Errorf("a look takes %v", took)
	}
}

func TestParseElement(t *testing.T) {
	for name, tt := range map[string]struct {
		change func([]byte) []byte
		want   heldElement
		ok     bool
	}{
		"whole":                      {func(b []byte) []byte { return b }, heldElement{key: []byte{192, 0, 2, 7}, left: time.Hour, comment: "why", counter: Counter{12, 720}, counted: true}, true},
		"nothing":                    {func([]byte) []byte { return nil }, heldElement{}, false},
		"no more than a header":      {func(b []byte) []byte { return b[:4] }, heldElement{}, false},
		"cut short":                  {func(b []byte) []byte { return b[:len(b)-9] }, heldElement{}, false},
		"a length beyond the end":    {func(b []byte) []byte { b[4] = 0xff; return b }, heldElement{}, false},
		"a length of nothing at all": {func(b []byte) []byte { b[4] = 1; return b }, heldElement{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			got, ok := parseElement(tt.change(bytes.Clone(wholeAnswer(t))))
			if ok != tt.ok {
				t.Errorf("parsed: %t, want %t", ok, tt.ok)
			}
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(heldElement{})); diff != "" {
				t.Errorf("element (-want +got):\n%s", diff)
			}
		})
	}
}

// wholeAnswer is what the kernel answers to
// "nft get element inet nftsentry blocked4 { 192.0.2.7 }".
func wholeAnswer(t testing.TB) []byte {
	t.Helper()
	enc := netlink.NewAttributeEncoder()
	big := func(e *netlink.AttributeEncoder, f func()) error { e.ByteOrder = binary.BigEndian; f(); return nil }
	enc.String(unix.NFTA_SET_ELEM_LIST_TABLE, TableName)
	enc.String(unix.NFTA_SET_ELEM_LIST_SET, "blocked4")
	enc.Nested(unix.NFTA_SET_ELEM_LIST_ELEMENTS, func(list *netlink.AttributeEncoder) error {
		list.Nested(unix.NFTA_LIST_ELEM, func(e *netlink.AttributeEncoder) error {
			return big(e, func() {
				e.Nested(unix.NFTA_SET_ELEM_KEY, func(key *netlink.AttributeEncoder) error {
					key.Bytes(unix.NFTA_DATA_VALUE, []byte{192, 0, 2, 7})
					return nil
				})
				e.Nested(unix.NFTA_SET_ELEM_EXPR, func(x *netlink.AttributeEncoder) error {
					x.String(unix.NFTA_EXPR_NAME, "counter")
					x.Nested(unix.NFTA_EXPR_DATA, func(c *netlink.AttributeEncoder) error {
						return big(c, func() {
							c.Uint64(unix.NFTA_COUNTER_BYTES, 720)
							c.Uint64(unix.NFTA_COUNTER_PACKETS, 12)
						})
					})
					return nil
				})
				e.Uint64(unix.NFTA_SET_ELEM_TIMEOUT, 7200000)
				e.Uint64(unix.NFTA_SET_ELEM_EXPIRATION, 3600000)
				e.Bytes(unix.NFTA_SET_ELEM_USERDATA, []byte("\x01\x02??\x00\x04why\x00"))
			})
		})
		return nil
	})
	attrs, err := enc.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return append([]byte{unix.NFPROTO_INET, 0, 0, 0}, attrs...)
}

func TestCommentOf(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "\x00": "", "\x00\x05why\x00": "", "\x00\x04why\x00": "why", "\x00\x03why": "why", "\x01\x01x\x00\x02y\x00": "y",
		"\x01\xff": "", "\x00\x00": "",
	} {
		if got := commentOf([]byte(in), make(map[string]string)); got != want {
			t.Errorf("commentOf(%q) = %q, want %q", in, got, want)
		}
	}
}

// FuzzElement reads what no kernel would send.
func FuzzElement(f *testing.F) {
	f.Add(wholeAnswer(f))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, ok := parseElement(data)
		if !ok && (e.key != nil || e.left != 0 || e.comment != "" || e.counted) {
			t.Errorf("what cannot be read is %+v", e)
		}
		if ok && len(e.key) == 0 || e.left < 0 || bytes.ContainsRune([]byte(e.comment), 0) {
			t.Errorf("read as %+v", e)
		}
	})
}

// uncounted is an element without a counter.
func uncounted(h *Held) *Held {
	h.Counted = false
	return h
}
