package packet

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

const sizeFragment = 8 // of an IPv6 fragment header, RFC 8200, 4.5

// lastID is the identification that fragments got last.
var lastID atomic.Uint32

// Fragment splits a whole IPv4 or IPv6 packet into fragments with size bytes of data each, rounded down to a multiple
// of 8, and the rest in the last: a size of 8 leaves the ports of TCP in the first and its flags in the second. What
// fits in one fragment becomes one: the packet without DF in IPv4, an atomic fragment (RFC 6946) in IPv6.
//
// IPv4 options are in each fragment. IPv6 extension headers are as far as they precede a routing header or hop-by-hop
// options, themselves included; the others are data. The identification is that of the IPv4 packet, or if that is
// zero and in IPv6 a new one. It panics if the size is below 8 or the packet is not one.
//
// Linux reassembles all of these but for IPv6 with a part of the TCP or UDP header in the first fragment and the rest
// in the second (ipv6frag_thdr_truncated in net/ipv6/reassembly.c), for which it takes a size of 24 at least.
func Fragment(packet []byte, size int) [][]byte {
	if size < 8 || len(packet) < size4 {
		panic(fmt.Sprintf("packet: fragments of %d bytes of a packet of %d bytes", size, len(packet)))
	}
	size -= size % 8
	if packet[0]>>4 == 4 {
		return fragment4(packet, size)
	}
	return fragment6(packet, size)
}

func fragment4(packet []byte, size int) [][]byte {
	head, data := split(packet, int(packet[0]&0xf)*4)
	if binary.BigEndian.Uint16(head[4:]) == 0 {
		binary.BigEndian.PutUint16(head[4:], uint16(lastID.Add(1)%0xffff+1))
	}
	var out [][]byte
	for offset := 0; len(out) == 0 || offset < len(data); offset += size {
		end := min(offset+size, len(data))
		f := append(slices.Clone(head), data[offset:end]...)
		place := uint16(offset / 8)
		if end < len(data) {
			place |= moreFragments
		}
		binary.BigEndian.PutUint16(f[2:], uint16(len(f)))
		binary.BigEndian.PutUint16(f[6:], place)
		binary.BigEndian.PutUint16(f[10:], 0)
		binary.BigEndian.PutUint16(f[10:], ^fold(sum(f[:len(head)])))
		out = append(out, f)
	}
	return out
}

func fragment6(packet []byte, size int) [][]byte {
	cut, next := unfragmentable(packet)
	head, data := split(packet, cut)
	number := head[next]
	head[next] = unix.IPPROTO_FRAGMENT
	id := lastID.Add(1)

	var out [][]byte
	for offset := 0; len(out) == 0 || offset < len(data); offset += size {
		end := min(offset+size, len(data))
		place := uint16(offset) // in units of 8 bytes, left of 3 bits
		if end < len(data) {
			place |= 1 // more follow
		}
		f := append(slices.Clone(head), number, 0)
		f = binary.BigEndian.AppendUint16(f, place)
		f = binary.BigEndian.AppendUint32(f, id)
		f = append(f, data[offset:end]...)
		binary.BigEndian.PutUint16(f[4:], uint16(len(f)-size6))
		out = append(out, f)
	}
	return out
}

// unfragmentable returns where the part of an IPv6 packet ends that each fragment repeats, and where its last next
// header field is.
func unfragmentable(packet []byte) (cut, next int) {
	cut, next = size6, 6
	at, number := size6, packet[6]
	for {
		switch number {
		case unix.IPPROTO_HOPOPTS, unix.IPPROTO_ROUTING, unix.IPPROTO_DSTOPTS:
		default:
			return cut, next
		}
		if at+8 > len(packet) {
			panic("packet: the chain of extension headers is cut")
		}
		field := at
		at += (int(packet[at+1]) + 1) * 8
		if number != unix.IPPROTO_DSTOPTS {
			cut, next = at, field
		}
		number = packet[field]
	}
}

// split returns copies of the first n bytes of a packet and of the others.
func split(packet []byte, n int) (head, data []byte) {
	if n < size4 || n > len(packet) {
		panic(fmt.Sprintf("packet: a header of %d bytes in a packet of %d bytes", n, len(packet)))
	}
	return slices.Clone(packet[:n]), slices.Clone(packet[n:])
}
