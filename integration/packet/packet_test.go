package packet

import (
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"nftsentry/integration/netns"
)

func TestMain(m *testing.M) { netns.Main(m) }

var (
	source4, target4 = netip.MustParseAddrPort("198.51.100.7:40000"), netip.MustParseAddrPort("192.0.2.2:23")
	source6, target6 = netip.MustParseAddrPort("[2001:db8:7::7]:40000"), netip.MustParseAddrPort("[2001:db8::2]:23")
)

func port(ap netip.AddrPort, p uint16) netip.AddrPort { return netip.AddrPortFrom(ap.Addr(), p) }

// TestBytes compares with packets that another program made, byte by byte from the RFCs.
func TestBytes(t *testing.T) {
	const (
		header4 = "4500 0028 0000 4000 4006 4e93 c633 6407 c000 0202 "
		ends6   = "2001 0db8 0007 0000 0000 0000 0000 0007 2001 0db8 0000 0000 0000 0000 0000 0002 "
		syn6    = "9c40 0017 0102 0304 0000 0000 5002 faf0 b912 0000"
	)
	tests := []struct {
		name string
		got  interface{ Bytes() []byte }
		want string
	}{
		{"SYN, IPv4", TCP{Source: source4, Target: target4, Flags: SYN, Seq: 0x01020304},
			header4 + "9c40 0017 0102 0304 0000 0000 5002 faf0 2857 0000"},
		{"bad checksum", TCP{Source: source4, Target: target4, Flags: SYN, Seq: 0x01020304, BadChecksum: true},
			header4 + "9c40 0017 0102 0304 0000 0000 5002 faf0 7d02 0000"},
		{"everything, IPv4", TCP{Source: source4, Target: target4, Flags: FIN | PSH | URG, Seq: 1, Ack: 2, Window: 512, Urgent: 3,
			Options: []byte{2, 4, 5, 0xb4, 1}, Payload: []byte("odd"), TTL: 9, ID: 0x1234, IPOptions: []byte{0x94, 4, 0}},
			"4600 0037 1234 4000 0906 de4b c633 6407 c000 0202 9404 0000 " +
				"9c40 0017 0000 0001 0000 0002 7029 0200 28f9 0003 0204 05b4 0100 0000 6f6464"},
		{"SYN, IPv6", TCP{Source: source6, Target: target6, Flags: SYN, Seq: 0x01020304},
			"6000 0000 0014 0640" + ends6 + syn6},
		{"extension headers", TCP{Source: source6, Target: target6, Flags: SYN, Seq: 0x01020304}.
			WithHeaders(HopByHop(), Routing(), DestinationOptions()),
			"6000 0000 002c 0040" + ends6 + "2b00 0104 0000 0000 3c00 fd00 0000 0000 0600 0104 0000 0000" + syn6},
		{"no extension headers", TCP{Source: source6, Target: target6, Flags: SYN, Seq: 0x01020304}.WithExtensions(0),
			"6000 0000 0014 0640" + ends6 + syn6},
		{"UDP, IPv4", UDP{Source: source4, Target: port(target4, 161), Payload: []byte("abc")},
			"4500 001f 0000 4000 4011 4e91 c633 6407 c000 0202 9c40 00a1 000b b256 616263"},
		{"UDP, checksum zero", UDP{Source: source4, Target: port(target4, 161), Payload: []byte{0x76, 0xbb}},
			"4500 001e 0000 4000 4011 4e92 c633 6407 c000 0202 9c40 00a1 000a ffff 76bb"},
		{"UDP, IPv6", UDP{Source: source6, Target: port(target6, 161), Payload: []byte("abc")},
			"6000 0000 000b 1140" + ends6 + "9c40 00a1 000b 4312 616263"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want, got := strings.ReplaceAll(tt.want, " ", ""), hex.EncodeToString(tt.got.Bytes())
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("packet (-want +got):\n%s", diff)
			}
		})
	}
}

// TestSum has the examples of RFC 1071, 3 and of a well-known IPv4 header.
func TestSum(t *testing.T) {
	tests := []struct {
		in   string
		want uint16
	}{
		{"", 0},
		{"0001f203f4f5f6f7", 0xddf2},
		{"0001f203f4f5f6f700", 0xddf2},
		{"01", 0x0100},
		{"450000730000400040110000c0a80001c0a800c7", ^uint16(0xb861)},
		{"45000073000040004011b861c0a80001c0a800c7", 0xffff},
	}
	for _, tt := range tests {
		b, err := hex.DecodeString(tt.in)
		if err != nil {
			t.Fatal(err)
		}
		if got := fold(sum(b)); tt.want != got {
			t.Errorf("%s: want %#04x, got %#04x", tt.in, tt.want, got)
		}
	}
}

func TestChecksumsAddUp(t *testing.T) {
	for n := range 50 {
		payload := make([]byte, n)
		for i := range payload {
			payload[i] = uint8(mix(uint64(n*64 + i)))
		}
		for _, p := range [][]byte{
			TCP{Source: source4, Target: target4, Flags: Flags(n), Options: payload[:min(n, 40)], Payload: payload}.Bytes(),
			TCP{Source: source6, Target: target6, Flags: Flags(n), Payload: payload}.Bytes(),
			UDP{Source: source4, Target: target4, IPOptions: payload[:min(n, 40)], Payload: payload}.Bytes(),
			UDP{Source: source6, Target: target6, Payload: payload}.Bytes(),
		} {
			verify(t, p)
		}
	}
}

// verify checks the sums of a packet without extension headers.
func verify(t *testing.T, p []byte) {
	t.Helper()
	source, target, err := ends(p)
	if err != nil {
		t.Fatal(err)
	}
	head, protocol := size6, p[6]
	if source.Is4() {
		head, protocol = int(p[0]&0xf)*4, p[9]
		if got := fold(sum(p[:head])); got != 0xffff {
			t.Errorf("IPv4 header % x: sum %#04x", p[:head], got)
		}
	}
	pseudo := append(source.AsSlice(), target.AsSlice()...)
	pseudo = append(pseudo, 0, protocol)
	pseudo = binary.BigEndian.AppendUint16(pseudo, uint16(len(p)-head))
	if got := fold(sum(append(pseudo, p[head:]...))); got != 0xffff {
		t.Errorf("protocol %d, packet % x: sum %#04x", protocol, p, got)
	}
}

func TestWithExtensions(t *testing.T) {
	for _, n := range []int{1, 2, 20, 150} {
		p := TCP{Source: source6, Target: target6, Flags: SYN}.WithExtensions(n).Bytes()
		if want := size6 + 8*n + sizeTCP; want != len(p) {
			t.Errorf("%d headers: want %d bytes, got %d", n, want, len(p))
		}
		at, number, got := size6, p[6], 0
		for ; number == unix.IPPROTO_DSTOPTS; got++ {
			at, number = at+8*(int(p[at+1])+1), p[at]
		}
		if n != got || number != unix.IPPROTO_TCP || Flags(p[at+13]) != SYN {
			t.Errorf("%d headers: got %d, and then protocol %d", n, got, number)
		}
	}
}

func TestChainPads(t *testing.T) {
	first, got := Chain(unix.IPPROTO_UDP, Header{Number: 60}, Header{43, make([]byte, 6)}, Header{60, make([]byte, 7)})
	want := append([]byte{43, 0, 0, 0, 0, 0, 0, 0, 60, 0, 0, 0, 0, 0, 0, 0, 17, 1}, make([]byte, 14)...)
	if diff := cmp.Diff(want, got); first != 60 || diff != "" {
		t.Errorf("first %d, chain (-want +got):\n%s", first, diff)
	}
}

func TestPanics(t *testing.T) {
	tests := []struct {
		name string
		fn   func()
	}{
		{"two families", func() { TCP{Source: source4, Target: target6}.Bytes() }},
		{"no target", func() { UDP{Source: source6}.Bytes() }},
		{"too many options", func() { TCP{Source: source4, Target: target4, Options: make([]byte, 41)}.Bytes() }},
		{"IPv4 options in IPv6", func() { TCP{Source: source6, Target: target6, IPOptions: []byte{1}}.Bytes() }},
		{"extension in IPv4", func() { TCP{Source: source4, Target: target4}.WithExtensions(1).Bytes() }},
		{"too long", func() { TCP{Source: source4, Target: target4, Payload: make([]byte, 65496)}.Bytes() }},
		{"fragments too small", func() { Fragment(TCP{Source: source4, Target: target4}.Bytes(), 7) }},
		{"nothing to fragment", func() { Fragment(nil, 8) }},
		{"chain is cut", func() { Fragment(TCP{Source: source6, Target: target6}.WithExtensions(1).Bytes()[:47], 8) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			defer func() {
				if p, ok := recover().(string); !ok || !strings.HasPrefix(p, "packet: ") {
					t.Errorf("want a panic of ours, got %v", p)
				}
			}()
			tt.fn()
		})
	}
}
