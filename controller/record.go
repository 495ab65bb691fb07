package controller

import (
	"bytes"
	"cmp"
	"math"
	"net/netip"
	"slices"
	"time"
	"unique"

	"nftsentry/state"
)

// A sourceKey is a prefix without the pointer that a netip.Prefix has, so that
// the garbage collector passes over maps of them.
type sourceKey struct {
	addr [16]byte // an IPv4 address fills the first four
	bits uint8
	kind uint8 // isV4, isV6 or neither, for a prefix that is none
}

const (
	isV4 = 1
	isV6 = 2
)

// keyOf is the key of a masked prefix without a zone.
func keyOf(p netip.Prefix) sourceKey {
	if !p.IsValid() {
		return sourceKey{}
	}
	k := sourceKey{bits: uint8(p.Bits())}
	k.addr, k.kind = bytesOf(p.Addr())
	return k
}

func (k sourceKey) v4() bool { return k.kind == isV4 }

func (k sourceKey) prefix() netip.Prefix {
	if k.kind == 0 {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(addrOf(k.addr, k.kind), int(k.bits))
}

// compare is as netip.Prefix.Compare.
func (k sourceKey) compare(o sourceKey) int {
	return cmp.Or(cmp.Compare(k.kind, o.kind), bytes.Compare(k.addr[:], o.addr[:]), cmp.Compare(k.bits, o.bits))
}

// bytesOf takes an address apart, but for its zone.
func bytesOf(a netip.Addr) (raw [16]byte, kind uint8) {
	switch {
	case a.Is4():
		v4 := a.As4()
		copy(raw[:], v4[:])
		return raw, isV4
	case a.Is6():
		return a.As16(), isV6
	}
	return raw, 0
}

func addrOf(raw [16]byte, kind uint8) netip.Addr {
	switch kind {
	case isV4:
		return netip.AddrFrom4([4]byte(raw[:4]))
	case isV6:
		return netip.AddrFrom16(raw)
	}
	return netip.Addr{}
}

// A record is a state.Block in 72 bytes, on a certain clock.
type record struct {
	key      sourceKey
	addrKind uint8
	clock    uint8 // of since; noClock if it has the wall clock alone
	addr     [16]byte
	port     uint16
	strikes  uint16 // more are not told apart
	since    int64  // nanoseconds since 1970; noTime for none
	until    int64  // nanoseconds since the first clock
	texts    unique.Handle[texts]
	endAt    int32 // where it is in the heap of ends
	spareAt  int32 // likewise of hosts that can be spared
}

// texts are what many blocks have in common.
type texts struct {
	protocol, kind, evidence, comment, zone string
	origin                                  state.Origin
}

// block is what was put into the record.
func (r *record) block(c *clocks) state.Block {
	t := r.texts.Value()
	address := addrOf(r.addr, r.addrKind)
	if t.zone != "" {
		address = address.WithZone(t.zone)
	}
	return state.Block{
		Source: r.key.prefix(), Address: address, Since: c.since(r), Until: c.until(r), Strikes: int(r.strikes), Port: r.port,
		Protocol: t.protocol, Kind: t.kind, Evidence: t.evidence, Origin: t.origin, Comment: t.comment,
	}
}

// clocks turn the times of blocks into numbers and back. A time.Time has two
// readings, of the wall clock and of the monotonic one, whose difference
// changes only when somebody sets the wall clock: each clock is a moment
// between two of those.
type clocks struct{ moments []time.Time }

const (
	noClock   = 255
	clockStep = time.Millisecond // what is less is no change of the wall clock
)

func newClocks() clocks { return clocks{[]time.Time{time.Now()}} }

func (c *clocks) clone() clocks { return clocks{slices.Clone(c.moments)} }

// first is the moment from which ends are counted.
func (c *clocks) first() time.Time { return c.moments[0] }

func (c *clocks) record(key sourceKey, b state.Block) record {
	r := record{
		key: key, since: nanoseconds(b.Since), clock: c.of(b.Since), until: int64(b.Until.Sub(c.first())),
		strikes: uint16(min(b.Strikes, math.MaxUint16)), port: b.Port,
		texts: unique.Make(texts{b.Protocol, b.Kind, b.Evidence, b.Comment, b.Address.Zone(), b.Origin}),
	}
	r.addr, r.addrKind = bytesOf(b.Address)
	c.of(b.Until) // the wall clock may have been set since the block began
	return r
}

// noTime is the number of the zero time.
const noTime = math.MinInt64

// nanoseconds are those since 1970, of the years that can be counted so.
func nanoseconds(t time.Time) int64 {
	const last = 2261
	switch {
	case t.IsZero():
		return noTime
	case t.Year() > last:
		return math.MaxInt64
	}
	return t.UnixNano()
}

// of is the clock of a time.
func (c *clocks) of(t time.Time) uint8 {
	if t == t.Round(0) { // without a monotonic reading
		return noClock
	}
	for i, m := range slices.Backward(c.moments) {
		if c.set(m, t).Abs() < clockStep {
			return uint8(i)
		}
	}
	if len(c.moments) == noClock { // only how long ago it was gets less exact
		return noClock
	}
	c.moments = append(c.moments, t)
	return uint8(len(c.moments) - 1)
}

// set is by how much the wall clock was set between two times.
func (c *clocks) set(a, b time.Time) time.Duration { return b.Round(0).Sub(a.Round(0)) - b.Sub(a) }

// since has the very wall clock reading that was put in, by which the store
// knows the block.
func (c *clocks) since(r *record) time.Time {
	wall := time.Unix(0, r.since)
	switch {
	case r.since == noTime:
		return time.Time{}
	case r.clock == noClock:
		return wall.UTC()
	}
	m := c.moments[r.clock]
	return m.Add(wall.Sub(m.Round(0)))
}

// until has the very monotonic reading that was put in, and what the wall
// clock will be then as far as is known.
func (c *clocks) until(r *record) time.Time {
	last := c.moments[len(c.moments)-1]
	return last.Add(time.Duration(r.until) - last.Sub(c.first()))
}
