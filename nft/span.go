package nft

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

// A span is the addresses from first to last, blocked until a moment.
type span struct {
	first, last netip.Addr
	until       time.Time
	comment     string
}

// lastAddr is the highest address of a masked prefix.
func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func spanOf(p netip.Prefix, until time.Time, comment string) span {
	p = p.Masked()
	return span{p.Addr(), lastAddr(p), until, comment}
}

// disjoint turns prefixes of one family, which may lie inside each other,
// into spans that do not overlap, in order: an interval set takes nothing
// else. Each address is blocked until the latest moment that any prefix
// around it asks for.
func disjoint(prefixes []span) []span {
	nested := slices.Clone(prefixes)
	slices.SortFunc(nested, func(a, b span) int {
		return cmp.Or(a.first.Compare(b.first), b.last.Compare(a.last)) // around before inside
	})
	var out []span
	for len(nested) > 0 {
		out, nested = lay(out, nested, span{})
	}
	return out
}

// lay appends what the first of the nested spans and all inside it come to;
// around is the longest-lasting span that they lie in. It returns the spans
// that it has not used.
func lay(out, nested []span, around span) (spans, rest []span) {
	self := nested[0]
	rest = nested[1:]
	winner := self
	if around.until.After(self.until) {
		winner = around
	}
	from := self.first
	for len(rest) > 0 && rest[0].last.Compare(self.last) <= 0 {
		inside := rest[0]
		if from.IsValid() && from.Less(inside.first) {
			out = join(out, span{from, inside.first.Prev(), winner.until, winner.comment})
		}
		out, rest = lay(out, rest, winner)
		from = inside.last.Next()
	}
	if from.IsValid() && from.Compare(self.last) <= 0 {
		out = join(out, span{from, self.last, winner.until, winner.comment})
	}
	return out, rest
}

// join appends s, or lengthens the last span by it where the two touch and
// are the same but for their place.
func join(out []span, s span) []span {
	if n := len(out); n > 0 {
		last := &out[n-1]
		if last.last.Next() == s.first && last.until.Equal(s.until) && last.comment == s.comment {
			last.last = s.last
			return out
		}
	}
	return append(out, s)
}

// merge is disjoint for prefixes without an end: it joins what overlaps or touches.
func merge(prefixes []netip.Prefix) []span {
	all := make([]span, len(prefixes))
	for i, p := range prefixes {
		all[i] = spanOf(p, time.Time{}, "")
	}
	return disjoint(all)
}
