package packet

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestFragment4(t *testing.T) {
	tests := []struct {
		name   string
		packet TCP
		size   int
		places []uint16 // flags and offset of each
	}{
		{"one", TCP{}, 100, []uint16{0}},
		{"just one", TCP{}, 20, []uint16{0x2000, 2}}, // 20 is not a multiple of 8
		{"tiny", TCP{}, 8, []uint16{0x2000, 0x2001, 2}},
		{"rounded down", TCP{Payload: make([]byte, 12)}, 15, []uint16{0x2000, 0x2001, 0x2002, 3}},
		{"even", TCP{Payload: make([]byte, 12)}, 16, []uint16{0x2000, 2}},
		{"options", TCP{IPOptions: []byte{1, 1, 1, 1}}, 16, []uint16{0x2000, 2}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.packet.Source, tt.packet.Target = source4, target4
			whole := tt.packet.Bytes()
			head := int(whole[0]&0xf) * 4
			var places []uint16
			var data []byte
			ids := make(map[uint16]bool)
			for _, f := range Fragment(whole, tt.size) {
				places = append(places, binary.BigEndian.Uint16(f[6:]))
				data = append(data, f[head:]...)
				ids[binary.BigEndian.Uint16(f[4:])] = true
				if fold(sum(f[:head])) != 0xffff || int(binary.BigEndian.Uint16(f[2:])) != len(f) {
					t.Errorf("header % x of a fragment of %d bytes is wrong", f[:head], len(f))
				}
			}
			if diff := cmp.Diff(tt.places, places); diff != "" {
				t.Errorf("flags and offsets (-want +got):\n%s", diff)
			}
			if !bytes.Equal(whole[head:], data) || len(ids) != 1 || ids[0] {
				t.Errorf("want % x under one identification, got % x, %v", whole[head:], data, ids)
			}
		})
	}
}

func TestFragment4KeepsID(t *testing.T) {
	whole := TCP{Source: source4, Target: target4, ID: 0x1234}.Bytes()
	before := slices.Clone(whole)
	for _, f := range Fragment(whole, 8) {
		if got := binary.BigEndian.Uint16(f[4:]); got != 0x1234 {
			t.Errorf("want 0x1234, got %#04x", got)
		}
	}
	if !bytes.Equal(before, whole) {
		t.Error("the packet itself has changed")
	}
}

func TestFragment6(t *testing.T) {
	const tcp = unix.IPPROTO_TCP
	hop, dst, routing := HopByHop(), DestinationOptions(), Routing()
	tests := []struct {
		name    string
		headers []Header
		size    int
		head    int   // bytes before the fragment header
		number  uint8 // what the fragment header leads to
		places  []uint16
	}{
		{"atomic", nil, 100, 40, tcp, []uint16{0}},
		{"tiny", nil, 8, 40, tcp, []uint16{1, 8 | 1, 16}},
		{"hop by hop", []Header{hop}, 16, 48, tcp, []uint16{1, 16}},
		{"destination options", []Header{dst}, 8, 40, unix.IPPROTO_DSTOPTS, []uint16{1, 8 | 1, 16 | 1, 24}},
		{"routing", []Header{hop, dst, routing, dst}, 16, 64, unix.IPPROTO_DSTOPTS, []uint16{1, 16}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			whole := TCP{Source: source6, Target: target6, Flags: SYN}.WithHeaders(tt.headers...).Bytes()
			var places []uint16
			var data []byte
			ids := make(map[uint32]bool)
			for _, f := range Fragment(whole, tt.size) {
				if int(binary.BigEndian.Uint16(f[4:])) != len(f)-size6 {
					t.Errorf("header % x of a fragment of %d bytes is wrong", f[:size6], len(f))
				}
				if f[tt.head] != tt.number {
					t.Errorf("want a fragment header to %d, got %d", tt.number, f[tt.head])
				}
				places = append(places, binary.BigEndian.Uint16(f[tt.head+2:]))
				ids[binary.BigEndian.Uint32(f[tt.head+4:])] = true
				data = append(data, f[tt.head+sizeFragment:]...)
			}
			if diff := cmp.Diff(tt.places, places); diff != "" {
				t.Errorf("offsets and flags (-want +got):\n%s", diff)
			}
			if !bytes.Equal(whole[tt.head:], data) || len(ids) != 1 {
				t.Errorf("want % x under one identification, got % x, %v", whole[tt.head:], data, ids)
			}
		})
	}
}
