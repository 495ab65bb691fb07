package controller

import (
	"net/netip"
	"time"

	"nftsentry/nft"
	"nftsentry/state"
)

// A Config says when a source is blocked, and for how long.
type Config struct {
	// Observe logs what would be blocked and blocks nothing.
	Observe bool
	// Connects is how many connections to decoys within Window make a block, 1 or more.
	Connects int
	// Window is how long a connection counts towards Connects.
	Window time.Duration
	// Timeout is how long the first block of a source lasts, in whole seconds.
	Timeout time.Duration
	// Escalate are the timeouts of the second block, the third and so on; the
	// last one repeats.
	Escalate []time.Duration
	// Forget is how long after the end of a block it counts as a strike.
	Forget time.Duration
	// Ignored are the sources that are never blocked, each with the reason
	// that is told to whoever asks.
	Ignored map[netip.Prefix]string
	// IgnoreHost adds to them what belongs to the host: see SetHost.
	IgnoreHost bool
	// Table is what the kernel enforces. The controller fills in Ignored.
	Table nft.Config
}

// Host is what the controller has to know of the host it guards.
type Host struct {
	// Ignored are its own addresses, gateways and resolvers, with the reason.
	Ignored map[netip.Prefix]string
	// OnLink6 are the IPv6 prefixes of its own links: neighbours are blocked
	// one by one, since whole prefixes would hold each other.
	OnLink6 []netip.Prefix
}

// Kernel is the table in the kernel. *nft.Table is one.
type Kernel interface {
	Load(cfg nft.Config, blocks []nft.Element) error
	Block(e nft.Element) error
	Unblock(prefixes ...netip.Prefix) error
	Ignore(prefixes []netip.Prefix) error
	Blocked() ([]nft.Element, error)
}

var _ Kernel = (*nft.Table)(nil)

// Store is what remembers blocks. *state.Store is one.
type Store interface {
	Live() ([]state.Block, error)
	Last(source netip.Prefix) (state.Block, bool, error)
	Save(b state.Block, done func(error))
	End(source netip.Prefix, at time.Time, forgive bool, done func(error))
	Forget(before time.Time, most int)
}

// timeout is how long a block lasts that follows so many strikes.
func (c Config) timeout(strikes int) time.Duration {
	if strikes == 0 || len(c.Escalate) == 0 {
		return c.Timeout
	}
	return c.Escalate[min(strikes, len(c.Escalate))-1]
}
