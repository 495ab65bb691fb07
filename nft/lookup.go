package nft

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// Left asks the kernel for the block of one host, and tells how long it has
// left. It knows of blocks of one address and of HostPrefix; of those that are
// prefixes on an operator's word it does not. Without a table there is none.
func (t *Table) Left(p netip.Prefix) (left time.Duration, found bool, err error) {
	return t.lookUp(newBuilder(nil, TableName, t.cfg).hostSet(p), p)
}

// Peer tells whether an address is a peer now.
func (t *Table) Peer(a netip.Addr) (bool, error) {
	s := newSets(newBuilder(nil, TableName, t.cfg).table, 0)
	set, bits := s.peers4, a.BitLen()
	if a.Is6() {
		set, bits = s.peers6, t.cfg.Prefix6
	}
	for _, bits := range []int{bits, a.BitLen()} {
		if _, found, err := t.lookUp(set, netip.PrefixFrom(a, bits).Masked()); found || err != nil {
			return found, err
		}
	}
	return false, nil
}

// lookUp asks for the element of a set with the address of a prefix.
func (t *Table) lookUp(set *nftables.Set, p netip.Prefix) (left time.Duration, found bool, err error) {
	conn, err := t.readConnection()
	if err != nil {
		return 0, false, err
	}
	got, err := getElements(conn, set, []Element{{Prefix: p}})
	switch {
	case errors.Is(err, unix.ENOENT):
		return 0, false, nil // and the connection is as good as before
	case err != nil:
		t.reader = nil
		return 0, false, errors.Join(fmt.Errorf("look %s up in set %s: %w", p, set.Name, err), conn.Close())
	}
	return got[0], true, nil
}

// Exists tells whether the table is in the kernel.
func (t *Table) Exists() (bool, error) {
	conn, err := t.connection()
	if err != nil {
		return false, err
	}
	return exists(conn, TableName)
}
