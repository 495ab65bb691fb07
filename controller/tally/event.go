package tally

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// A What says what an Event is about.
type What uint8

// What is counted.
const (
	Probe   What = iota + 1 // a tripwire was touched, and nothing came of it yet
	Exempt                  // a tripwire was touched by a peer, which does not count
	Ignore                  // a tripwire was touched by a source that is never blocked
	Repeat                  // a tripwire was touched by a source that is blocked already
	Block                   // a source was blocked
	Extend                  // a block became longer
	Unblock                 // a block ended
	Would                   // a source would have been blocked
	Run                     // a block was left to the hooks
	Doubt                   // unproven evidence was not trusted any more
	Heal                    // our table was put right
)

// An Event is one thing that has happened.
type Event struct {
	Time     time.Time // by the wall clock
	What     What
	Source   netip.Addr   // who has touched; zero for nobody
	Port     Port         // that was touched
	Kind     string       // of the probe, such as "syn"
	Blocked  netip.Prefix // what is, was or would be blocked
	Evidence string       // for the block: "proven", "unproven" or ""
	Origin   string       // of the block
	Strikes  int          // earlier blocks of the source that count
	Comment  string       // of the block
}

// A Port is a port of a protocol.
type Port struct {
	Protocol string // "tcp", "udp" or "" if it cannot be told
	Number   uint16
}

// String is the port as in "tcp/23".
func (p Port) String() string { return p.Protocol + "/" + strconv.Itoa(int(p.Number)) }

// MarshalText is String, for JSON.
func (p Port) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (p *Port) UnmarshalText(text []byte) error {
	protocol, number, ok := strings.Cut(string(text), "/")
	n, err := strconv.ParseUint(number, 10, 16)
	if !ok || err != nil {
		return fmt.Errorf("%.64q is not a port such as \"tcp/23\"", text)
	}
	*p = Port{protocol, uint16(n)}
	return nil
}

// Bits of the prefixes that sources and networks are counted by.
const (
	source4, source6   = 32, 64
	network4, network6 = 24, 48
)

// within is the prefix of an address, of so many bits in its family.
func within(a netip.Addr, bits4, bits6 int) netip.Prefix {
	bits := bits6
	if a.Is4() {
		bits = bits4
	}
	p, _ := a.WithZone("").Prefix(bits) // the bits are possible
	return p
}
