package listener

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// captured is what Linux 6.18 sent for
//
//	nft add rule inet t in tcp dport 23 log prefix "probe" group 4711 snaplen 128
//
// and a SYN packet from 10.9.0.2 port 40000 to 10.9.0.1 port 23.
const captured = "0200126708000100080001000a000a0070726f626500000008000400000003ea10000800000600004a2d8ef4b7510000" +
	"06000f000001000006001100000e0000120010005a7e7612f9fd4a2d8ef4b7510800000014000300000000006b057e77" +
	"00000000000925122c00090045000028b2984000400674230a0900020a0900019c400017000000000000000050020000" +
	"00000000"

// attr is one netlink attribute, padded.
func attr(kind uint16, value []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	return append(b, make([]byte, -len(b)&3)...)
}

// message is what the kernel sends for a packet, with an attribute more.
func message(prefix string, etherType uint16, packet []byte) []byte {
	return slices.Concat(
		[]byte{unix.AF_INET, unix.NFNETLINK_V0, 0xf2, 0x2f},
		attr(nfulaPacketHdr, append(binary.BigEndian.AppendUint16(nil, etherType), 1, 0)),
		attr(nfulaPrefix, append([]byte(prefix), 0)),
		attr(4, []byte{0, 0, 0, 2}), // NFULA_IFINDEX_INDEV
		attr(nfulaPayload, packet),
	)
}

func with(e Event, v Verdict) Event {
	e.Verdict = v
	return e
}

type messageTest struct {
	data []byte
	want Event
	err  error
}

func messageTests(t testing.TB) map[string]messageTest {
	t.Helper()
	real, err := hex.DecodeString(captured)
	if err != nil {
		t.Fatal(err)
	}
	head, syn := []byte{unix.AF_INET, 0, 0xf2, 0x2f}, event4(TCP, Syn, 40000, 23)
	return map[string]messageTest{
		"captured": {real, Event{
			Source: netip.MustParseAddrPort("10.9.0.2:40000"), Target: netip.MustParseAddrPort("10.9.0.1:23"),
			Protocol: TCP, Kind: Syn,
		}, nil},
		"probe":       {message("probe", unix.ETH_P_IP, syn4), syn, nil},
		"peer":        {message("peer", unix.ETH_P_IP, syn4), with(syn, Exempted), nil},
		"block":       {message("block", unix.ETH_P_IP, syn4), with(syn, Convicted), nil},
		"full":        {message("full", unix.ETH_P_IP, syn4), with(syn, Crowded), nil},
		"spent":       {message("spent", unix.ETH_P_IP, syn4), with(syn, Overspent), nil},
		"IPv6":        {message("block", unix.ETH_P_IPV6, syn6), with(event6(TCP, Syn, 40000, 23), Convicted), nil},
		"fragment":    {message("block", unix.ETH_P_IP, ip4(tcpNo, 7, nil, nil)), with(event4(TCP, 0, 0, 0), Convicted), nil},
		"no NUL":      {slices.Concat(message("", unix.ETH_P_IP, syn4), attr(nfulaPrefix, []byte("probe"))), syn, nil},
		"flags":       {slices.Concat(message("", unix.ETH_P_IP, syn4), attr(nfulaPrefix|unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER, []byte("probe\x00"))), syn, nil},
		"padding":     {append(message("probe", unix.ETH_P_IP, syn4), 0, 0, 0), syn, nil},
		"another's":   {message("[UFW BLOCK] ", unix.ETH_P_IP, syn4), Event{}, errPrefix},
		"two NULs":    {message("probe\x00", unix.ETH_P_IP, syn4), Event{}, errPrefix},
		"no prefix":   {message("", unix.ETH_P_IP, syn4), Event{}, errPrefix},
		"no payload":  {message("block", unix.ETH_P_IP, nil), Event{Verdict: Convicted}, errIPv4},
		"mapped":      {message("block", unix.ETH_P_IPV6, put(syn6, 8, mapped.AsSlice()...)), Event{Verdict: Convicted}, errMapped},
		"no protocol": {slices.Concat(head, attr(nfulaPrefix, []byte("full\x00")), attr(nfulaPayload, syn4)), Event{Verdict: Crowded}, errEtherType},
		"empty":       {nil, Event{}, errShort},
		"short head":  {head[:3], Event{}, errShort},
		"only a head": {head, Event{}, errPrefix},
		"size 0":      {append(head, 0, 0, 0, 0), Event{}, errAttribute},
		"size 3":      {append(head, binary.NativeEndian.AppendUint16(nil, 3)...), Event{}, errPrefix},
		"too large":   {slices.Concat(head, binary.NativeEndian.AppendUint16(nil, 9), []byte{1, 0, 0, 0, 0, 0}), Event{}, errAttribute},
		"short hdr":   {slices.Concat(head, attr(nfulaPacketHdr, []byte{8})), Event{}, errAttribute},
	}
}

func TestParseMessage(t *testing.T) {
	now := time.Now()
	for name, tt := range messageTests(t) {
		got, err := parseMessage(tt.data, now)
		if !errors.Is(err, tt.err) {
			t.Errorf("%s: error %v, want %v", name, err, tt.err)
		}
		tt.want.Time = now
		if diff := cmp.Diff(tt.want, got, compare); diff != "" {
			t.Errorf("%s: event (-want +got):\n%s", name, diff)
		}
	}
}

// TestParseMessageCut cuts a message at every length.
func TestParseMessageCut(t *testing.T) {
	data := message("block", unix.ETH_P_IP, syn4)
	for n := range data {
		if e, err := parseMessage(data[:n:n], time.Time{}); err == nil {
			t.Errorf("cut at %d: %+v and no error", n, e)
		}
	}
}

func TestAllocs(t *testing.T) {
	for name, tt := range messageTests(t) {
		allocs := testing.AllocsPerRun(100, func() { _, _ = parseMessage(tt.data, time.Time{}) })
		if allocs != 0 {
			t.Errorf("%s: %v allocations, want none", name, allocs)
		}
	}
}

func BenchmarkParseMessage(b *testing.B) {
	for name, data := range map[string][]byte{
		"IPv4":            message("probe", unix.ETH_P_IP, syn4),
		"IPv6 extensions": message("probe", unix.ETH_P_IPV6, extensions(3)),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := parseMessage(data, time.Time{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func FuzzParseMessage(f *testing.F) {
	for _, tt := range messageTests(f) {
		f.Add(tt.data)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		now := time.Unix(1, 0)
		e, err := parseMessage(b, now)
		if e.Time != now || e.Evidence != Unproven || e.Verdict.String() == unknown {
			t.Errorf("event %+v", e)
		}
		if err == nil {
			checkEvent(t, e)
		} else if e.Source.IsValid() || e.Target.IsValid() {
			t.Errorf("%v, and still %+v", err, e)
		}
	})
}
