package packet

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"time"
)

// A FloodConfig says what [Flood] sends. The same configuration makes the same packets in the same order.
type FloodConfig struct {
	Target  netip.Addr
	Ports   []uint16     // of the target, taken in turn packet by packet
	Sources netip.Prefix // of the target's family, such as 198.18.0.0/15

	// Repeat is how many packets in a row come from each source, each from a port of its own; 0 stands for 1.
	Repeat uint64
	// Rate is how many packets a second leave, in batches of up to 64; 0 is as many as possible.
	Rate int
	// Count is how many packets leave at most; 0 is as many as the time allows.
	Count uint64
	// Limit is how long it lasts at most, whatever the context says; 0 stands for a minute.
	Limit time.Duration
	// Seed makes another sequence of sources, ports and sequence numbers.
	Seed uint64
}

// Flood sends TCP SYNs with forged sources from a host, as fast as one core can or as cfg.Rate says, until ctx ends,
// cfg.Count have left or cfg.Limit is over, whichever comes first; none of these is an error. It returns how many the
// kernel took, which a receiver that does not keep up may have dropped in part.
//
// The packets are those of [FloodConfig.Packet]. They meet no firewall, no connection tracking and no queue of the
// sending host. The way to the target is looked up once, before cfg.Limit begins; it is an error if no neighbour answers
// within four seconds or until ctx ends. Any number of floods may run at once.
func Flood(ctx context.Context, host Host, cfg FloodConfig) (sent uint64, err error) {
	if err := cfg.check(); err != nil {
		return 0, fmt.Errorf("flood from %s: %w", host, err)
	}
	if ctx.Err() != nil {
		return 0, nil
	}
	var f *flood
	err = host.Inside(func() (err error) {
		f, err = openFlood(ctx, cfg)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("flood from %s: %w", host, err)
	}
	defer func() { err = errors.Join(err, f.conn.close()) }()
	ctx, cancel := context.WithTimeout(ctx, cfg.limit())
	defer cancel()
	return f.run(ctx)
}

func (c FloodConfig) check() error {
	switch {
	case len(c.Ports) == 0:
		return errors.New("no ports")
	case !c.Target.IsValid() || !c.Sources.IsValid():
		return errors.New("no target or no sources")
	case c.Target.Is4() != c.Sources.Addr().Is4():
		return fmt.Errorf("target %s and sources %s are of two families", c.Target, c.Sources)
	case c.Rate < 0 || c.Limit < 0:
		return errors.New("a negative rate or limit")
	}
	return nil
}

func (c FloodConfig) limit() time.Duration {
	if c.Limit == 0 {
		return time.Minute
	}
	return c.Limit
}

func (c FloodConfig) count() uint64 {
	if c.Count == 0 {
		return math.MaxUint64
	}
	return c.Count
}

// Source returns the source of the i-th packet, from 0 on. All addresses of the prefix have had their turn before one
// comes again. Of an IPv6 prefix shorter than /64 each source has a /64 of its own until all of them have had theirs,
// and an interface identifier of its own for good.
func (c FloodConfig) Source(i uint64) netip.Addr {
	hi, lo := c.source(i)
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], hi)
	binary.BigEndian.PutUint64(b[8:], lo)
	if c.Sources.Addr().Is4() {
		return netip.AddrFrom4([4]byte(b[12:]))
	}
	return netip.AddrFrom16(b)
}

// source is Source as two numbers; an IPv4 address is the lower half of the second.
func (c FloodConfig) source(i uint64) (hi, lo uint64) {
	i /= max(c.Repeat, 1)
	turn := i*0x9e3779b97f4a7c15 + mix(c.Seed) // odd, so that the lowest n bits take each value once in 2^n
	if c.Sources.Addr().Is4() {
		b := c.Sources.Masked().Addr().As4()
		return 0, uint64(binary.BigEndian.Uint32(b[:])) | turn&ones(32-c.Sources.Bits())
	}
	b := c.Sources.Masked().Addr().As16()
	hi, lo = binary.BigEndian.Uint64(b[:]), binary.BigEndian.Uint64(b[8:])
	if bits := c.Sources.Bits(); bits < 64 {
		return hi | turn&ones(64-bits), mix(turn)
	}
	return hi, lo | turn&ones(128-c.Sources.Bits())
}

// Packet returns the i-th packet, from 0 on.
func (c FloodConfig) Packet(i uint64) TCP {
	port, seq := c.origin(i)
	return TCP{
		Source: netip.AddrPortFrom(c.Source(i), port),
		Target: netip.AddrPortFrom(c.Target, c.Ports[i%uint64(len(c.Ports))]),
		Flags:  SYN,
		Seq:    seq,
		ID:     floodID,
	}
}

// floodID is the identification of all packets in IPv4. They are not to be fragmented, so it tells nothing.
const floodID = 0x6e66

// origin is the port that the i-th packet comes from, none of the privileged ones, and its sequence number.
func (c FloodConfig) origin(i uint64) (port uint16, seq uint32) {
	r := mix(c.Seed ^ mix(i))
	return 1024 + uint16(r%(1<<16-1024)), uint32(r >> 32)
}

// ones is a number whose lowest n bits are set, of at most 64.
func ones(n int) uint64 { return 1<<n - 1 }

// mix turns each number into another one that looks random: the output function of SplitMix64
// (https://doi.org/10.1145/2660193.2660195).
func mix(n uint64) uint64 {
	n += 0x9e3779b97f4a7c15
	n = (n ^ n>>30) * 0xbf58476d1ce4e5b9
	n = (n ^ n>>27) * 0x94d049bb133111eb
	return n ^ n>>31
}
