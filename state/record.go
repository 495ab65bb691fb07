package state

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"time"
)

// A block is kept in nftsentry.db as a record under the key of its source. There may be millions, so that both are
// bytes and no text.
//
// The key is one byte for the family, 4 or 6, the 4 or 16 bytes of the address, and one for the length of the prefix:
// the order of the keys is that of compareSources. The record is, in this order,
//
//	since, until       times: seconds since 1970 plus one in 5 bytes, nanoseconds in 4, big-endian; all 0 for none
//	port               2 bytes, big-endian
//	strikes            varint
//	address            its length in one byte, 0 for none, and its bytes; length 1 is the address of the key
//	protocol, kind, evidence, origin, comment
//	                   texts: a varint, whose last bit tells whether the rest is the place of a word in words, or the
//	                   length of what follows
//
// Further fields may come behind these, as nothing looks there; a change of meaning needs another format, see db.go.
const (
	timeSize   = 9
	maxSeconds = 253402214400 // 9999-12-31, see wall
)

// words are the texts that most records have, each known by its place. One more at the end is another format too, as an
// older nftsentry cannot read its records.
var words = []string{
	"", "tcp", "udp", "connect", "syn", "fin", "null", "xmas", "syn-fin", "proven", "unproven",
	string(OriginDecoy), string(OriginKernel), string(OriginOperator), string(OriginImport), string(OriginFleet),
}

// ownAddress is the length of an address that is the key's.
const ownAddress = 1

var errRecord = errors.New("not a record of a block")

// keyOf is the key of a source.
func keyOf(source netip.Prefix) []byte {
	return appendKey(make([]byte, 0, 18), source)
}

func appendKey(key []byte, source netip.Prefix) []byte {
	family := byte(6)
	if source.Addr().Is4() {
		family = 4
	}
	return append(appendAddress(append(key, family), source.Addr()), byte(source.Bits()))
}

func appendAddress(b []byte, a netip.Addr) []byte {
	if a.Is4() {
		four := a.As4()
		return append(b, four[:]...)
	}
	sixteen := a.As16()
	return append(b, sixteen[:]...)
}

// sourceOf is the reverse of keyOf, and takes no key that keyOf does not make.
func sourceOf(key []byte) (netip.Prefix, bool) {
	if !(len(key) == 6 && key[0] == 4 || len(key) == 18 && key[0] == 6) {
		return netip.Prefix{}, false
	}
	address, _ := netip.AddrFromSlice(key[1 : len(key)-1])
	source := netip.PrefixFrom(address, int(key[len(key)-1]))
	return source, source.IsValid() && source == source.Masked()
}

// encode gives the key and the value of b.
func encode(b *Block) (key, value []byte) {
	key, value = keyOf(b.Source), make([]byte, 0, 64)
	value = appendTime(appendTime(value, b.Since), b.Until)
	value = binary.BigEndian.AppendUint16(value, b.Port)
	value = binary.AppendUvarint(value, uint64(max(b.Strikes, 0)))
	switch {
	case !b.Address.IsValid():
		value = append(value, 0)
	case b.Address == b.Source.Addr():
		value = append(value, ownAddress)
	default:
		value = appendAddress(append(value, byte(b.Address.BitLen()/8)), b.Address)
	}
	for _, text := range []string{b.Protocol, b.Kind, b.Evidence, string(b.Origin), b.Comment} {
		value = appendText(value, text)
	}
	return key, value
}

// appendTime appends t, which is cut to what wall allows.
func appendTime(b []byte, t time.Time) []byte {
	var seconds, nanoseconds uint64
	if t = wall(t); !t.IsZero() {
		seconds, nanoseconds = uint64(t.Unix()+1), uint64(t.Nanosecond())
	}
	b = append(b, byte(seconds>>32))
	b = binary.BigEndian.AppendUint32(b, uint32(seconds))
	return binary.BigEndian.AppendUint32(b, uint32(nanoseconds))
}

func appendText(b []byte, text string) []byte {
	if i := slices.Index(words, text); i >= 0 {
		return binary.AppendUvarint(b, uint64(i)<<1|1)
	}
	return append(binary.AppendUvarint(b, uint64(len(text))<<1), text...)
}

// decode is the reverse of encode; the block shares no memory with key and value.
func decode(key, value []byte) (Block, error) {
	source, ok := sourceOf(key)
	r := reader{rest: value, failed: !ok}
	b := Block{Source: source, Since: r.time(), Until: r.time()}
	if port := r.take(2); port != nil {
		b.Port = binary.BigEndian.Uint16(port)
	}
	b.Strikes = int(r.uvarint(1 << 31))
	b.Address = r.address(source)
	b.Protocol, b.Kind, b.Evidence, b.Origin, b.Comment = r.text(), r.text(), r.text(), Origin(r.text()), r.text()
	if r.failed {
		return Block{}, damaged("record %.64q: %w", key, errRecord)
	}
	return b, nil
}

// reader takes the parts off a record. Once it has failed all it gives is zero.
type reader struct {
	rest   []byte
	failed bool
}

// take takes n bytes; nil if there are not so many.
func (r *reader) take(n int) []byte {
	if r.failed || n > len(r.rest) {
		r.failed = true
		return nil
	}
	taken := r.rest[:n]
	r.rest = r.rest[n:]
	return taken
}

func (r *reader) time() time.Time {
	b := r.take(timeSize)
	if b == nil || bytes.Equal(b, make([]byte, timeSize)) {
		return time.Time{}
	}
	seconds := int64(b[0])<<32 | int64(binary.BigEndian.Uint32(b[1:]))
	nanoseconds := int64(binary.BigEndian.Uint32(b[5:]))
	if seconds < 1 || seconds > maxSeconds+1 || nanoseconds >= int64(time.Second) {
		r.failed = true
		return time.Time{}
	}
	return time.Unix(seconds-1, nanoseconds).UTC()
}

// uvarint takes a number below limit.
func (r *reader) uvarint(limit uint64) uint64 {
	n, size := binary.Uvarint(r.rest)
	if r.failed || size <= 0 || n >= limit {
		r.failed = true
		return 0
	}
	r.rest = r.rest[size:]
	return n
}

func (r *reader) address(source netip.Prefix) (a netip.Addr) {
	size := r.take(1)
	if size == nil || size[0] == 0 {
		return a
	}
	if size[0] == ownAddress {
		return source.Addr()
	}
	a, ok := netip.AddrFromSlice(r.take(int(size[0])))
	r.failed = r.failed || !ok
	return a
}

func (r *reader) text() string {
	n := r.uvarint(1 << 32)
	switch place := n >> 1; {
	case n&1 == 0:
		return string(r.take(int(n >> 1)))
	case place < uint64(len(words)):
		return words[place]
	}
	r.failed = true
	return ""
}
