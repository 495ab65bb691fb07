package controller

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"nftsentry/nft"
)

// changeNets puts all prefixes into the kernel anew, each for the whole
// seconds that it has left.
func (k *fakeKernel) changeNets(change func()) error {
	old := maps.Clone(k.asked)
	change()
	if !k.loaded {
		k.asked = old
		return fmt.Errorf("change prefixes: %w", unix.ENOENT)
	}
	k.pieces = disjoint(k.asked)
	return nil
}

func asked(e nft.Element) piece {
	first := e.Prefix.Addr()
	last := first.AsSlice()
	for bit := e.Prefix.Bits(); bit < first.BitLen(); bit++ {
		last[bit/8] |= 0x80 >> (bit % 8)
	}
	end, _ := netip.AddrFromSlice(last)
	return piece{first: first, last: end, end: time.Now().Add(e.Timeout), comment: e.Comment}
}

// disjoint cuts prefixes at all their ends. Each cut is blocked for as long as
// the longest-lasting prefix around it, or of equals the narrowest.
func disjoint(prefixes map[netip.Prefix]piece) []piece {
	var cuts []netip.Addr
	for _, s := range prefixes {
		cuts = append(cuts, s.first)
		if next := s.last.Next(); next.IsValid() {
			cuts = append(cuts, next)
		}
	}
	slices.SortFunc(cuts, netip.Addr.Compare)
	cuts = slices.Compact(cuts)
	var out []piece
	for i, first := range cuts {
		var winner netip.Prefix
		for p, s := range prefixes {
			if p.Contains(first) && s.end.After(time.Now()) && (!winner.IsValid() ||
				cmp.Or(s.end.Compare(prefixes[winner].end), cmp.Compare(p.Bits(), winner.Bits())) > 0) {
				winner = p
			}
		}
		if !winner.IsValid() {
			continue
		}
		s := prefixes[winner]
		s.first, s.end = first, time.Now().Add(ceil(time.Until(s.end)))
		if i+1 < len(cuts) && cuts[i+1].BitLen() == first.BitLen() {
			s.last = cuts[i+1].Prev()
		}
		if n := len(out) - 1; n >= 0 && out[n].last.Next() == first && out[n].end.Equal(s.end) && out[n].comment == s.comment {
			out[n].last = s.last
			continue
		}
		out = append(out, s)
	}
	for i, s := range out {
		out[i].prefixes = prefixesOf(around(s.first, s.last), s.first, s.last)
	}
	return out
}

// prefixesOf is the shortest list of prefixes inside p that are the addresses
// from first to last.
func prefixesOf(p netip.Prefix, first, last netip.Addr) []netip.Prefix {
	whole := asked(nft.Element{Prefix: p})
	switch {
	case whole.last.Less(first) || last.Less(whole.first):
		return nil
	case !whole.first.Less(first) && !last.Less(whole.last):
		return []netip.Prefix{p}
	}
	lower := netip.PrefixFrom(p.Addr(), p.Bits()+1)
	bits := p.Addr().AsSlice()
	bits[p.Bits()/8] |= 0x80 >> (p.Bits() % 8)
	middle, _ := netip.AddrFromSlice(bits)
	return append(prefixesOf(lower, first, last), prefixesOf(netip.PrefixFrom(middle, p.Bits()+1), first, last)...)
}

// around is the narrowest prefix that two addresses lie in.
func around(first, last netip.Addr) netip.Prefix {
	a, b := first.As16(), last.As16()
	same := 0
	for same < 128 && (a[same/8]^b[same/8])<<(same%8)&0x80 == 0 {
		same++
	}
	return netip.PrefixFrom(first, same-128+first.BitLen()).Masked()
}
