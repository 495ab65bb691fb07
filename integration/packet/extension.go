package packet

import "golang.org/x/sys/unix"

// A Header is an IPv6 extension header, RFC 8200, 4.
type Header struct {
	Number uint8  // by which the header before it names it
	Data   []byte // what follows its length, padded with zeros (Pad1 options) to 6 bytes and a multiple of 8
}

// The data is one PadN option. The kernel drops a packet with more than 7 bytes of padding in a row (ip6_parse_tlv in
// net/ipv6/exthdrs.c), so that a long chain is made of many headers, not of a long one.
var padding = []byte{1, 4, 0, 0, 0, 0}

// HopByHop returns a hop-by-hop options header of 8 bytes, nothing but padding. Receivers want it first or nowhere.
func HopByHop() Header { return Header{unix.IPPROTO_HOPOPTS, padding} }

// DestinationOptions returns a destination options header of 8 bytes, nothing but padding. It may stand anywhere, and
// any number of times.
func DestinationOptions() Header { return Header{unix.IPPROTO_DSTOPTS, padding} }

// Routing returns a routing header of 8 bytes that is at its end: of the experimental type 253 (RFC 4727) with no
// segments left, which receivers have to pass over.
func Routing() Header { return Header{unix.IPPROTO_ROUTING, []byte{253, 0}} }

// Chain strings headers together, the last of which leads to the protocol last. It returns the number of the first,
// which is last if there are none, and the bytes of all.
func Chain(last uint8, headers ...Header) (first uint8, chain []byte) {
	first = last
	for i := len(headers) - 1; i >= 0; i-- {
		units := (len(headers[i].Data) + 2 + 7) / 8
		b := make([]byte, max(units, 1)*8)
		b[0], b[1] = first, uint8(len(b)/8-1)
		copy(b[2:], headers[i].Data)
		first, chain = headers[i].Number, append(b, chain...)
	}
	return first, chain
}

// repeat is n destination options headers.
func repeat(n int) []Header {
	headers := make([]Header, n)
	for i := range headers {
		headers[i] = DestinationOptions()
	}
	return headers
}
