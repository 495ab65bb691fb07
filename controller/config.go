package controller

import (
	"iter"
	"net/netip"
	"time"

	"nftsentry/listener"
	"nftsentry/nft"
	"nftsentry/state"
)

// A Config says when a source is blocked, and for how long.
type Config struct {
	// Observe logs what would be blocked and blocks nothing, whatever TCP and UDP say.
	Observe bool
	// TCP and UDP are what comes of a trigger on evidence of one protocol.
	TCP, UDP Response
	// Connects is how many connections to decoys within Window make a block, 1 or more.
	Connects int
	// Window is how long a connection counts towards Connects.
	Window time.Duration
	// Unproven is the longest block on unproven evidence alone, in whole
	// seconds.
	Unproven time.Duration
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
	// Listed are likewise those that files list; nil for none. Unlisted says
	// that the files cannot be read: see SetListed.
	Listed   *Listed
	Unlisted bool
	// IgnoreHost adds to them what belongs to the host: see SetHost.
	IgnoreHost bool
	// Table is what the kernel enforces and how it judges. The controller fills
	// in Ignored and OnLink6.
	Table nft.Config
}

// A Response is what comes of a trigger, the most careful one first.
type Response uint8

// The responses: Portsentry's BLOCK_TCP and BLOCK_UDP, 0, 2 and 1.
const (
	RespondLog   Response = iota // it is logged
	RespondRun                   // it is logged, and the hooks are told
	RespondBlock                 // the source is blocked
)

// Host is what the controller has to know of the host it guards.
type Host struct {
	// Ignored are its own addresses, gateways and resolvers, with the reason.
	Ignored map[netip.Prefix]string
	// OnLink6 are the IPv6 prefixes of its own links: neighbours are blocked
	// one by one, since whole prefixes would hold each other.
	OnLink6 []netip.Prefix
	// Serving are the ports where it serves others at the start. Find finds
	// them anew; it may be nil.
	Serving []nft.Service
	Find    func() ([]nft.Service, error)
}

// Kernel is the table in the kernel. *nft.Table is one.
type Kernel interface {
	Load(cfg nft.Config, blocks iter.Seq[nft.Element], served []nft.Service) error
	Block(elems ...nft.Element) error
	Unblock(prefixes ...netip.Prefix) error
	Forgive(sources ...netip.Prefix) error
	SetHost(ignored, onLink6 []netip.Prefix) error
	Many
	Learnt
	Shape
}

// Many is what there is for more blocks than one transaction takes.
type Many interface {
	BlockAll(elems iter.Seq[nft.Element]) error
	Configure(cfg nft.Config, served []nft.Service) error
}

// Shape is how the kernel's table is looked at when others have touched it.
type Shape interface {
	Intact() (bool, error)
	Reshape() error
	HostPrefix(key netip.Addr) netip.Prefix
	RestoreNets() error
}

// Learnt is what the kernel has found out by itself, and is told of services.
type Learnt interface {
	Blocked() (all []nft.Element, whole bool, err error)
	Convicted() ([]nft.Element, error)
	Held(keys ...netip.Addr) ([]nft.Element, error)
	Served() ([]nft.Service, error)
	Serve(services []nft.Service) error
}

var _ Kernel = (*nft.Table)(nil)

// Store is what remembers blocks. *state.Store is one.
type Store interface {
	Visit(f func(state.Block)) error
	Last(source netip.Prefix) (state.Block, bool, error)
	Save(b state.Block, done func(error))
	End(source netip.Prefix, at time.Time, forgive bool, done func(error))
	Forget(before time.Time, most int)
	Changed() <-chan struct{}
	ServiceStore
	BulkStore
}

// BulkStore takes many changes of different sources at once.
type BulkStore interface {
	SaveAll(blocks []state.Block, done func(error))
	EndAll(sources []netip.Prefix, at time.Time, forgive bool, done func(error))
}

// ServiceStore is what remembers where services were seen.
type ServiceStore interface {
	Served() ([]state.Service, error)
	SaveServed(services []state.Service)
}

// response is what comes of a trigger on evidence of a protocol. Of what may be
// of either protocol, the more careful one comes.
func (c Config) response(p listener.Protocol) Response {
	switch {
	case c.Observe:
		return RespondLog
	case p == listener.TCP:
		return c.TCP
	case p == listener.UDP:
		return c.UDP
	}
	return min(c.TCP, c.UDP)
}

// blocks tells whether evidence of a protocol makes blocks.
func (c Config) blocks(p listener.Protocol) bool { return c.response(p) == RespondBlock }

// timeout is how long a block lasts that follows so many strikes.
func (c Config) timeout(strikes int) time.Duration {
	if strikes == 0 || len(c.Escalate) == 0 {
		return c.Timeout
	}
	return c.Escalate[min(strikes, len(c.Escalate))-1]
}

// timeoutFor is timeout, bounded by what the evidence is worth.
func (c Config) timeoutFor(evidence string, strikes int) time.Duration {
	if evidence == unproven {
		return min(c.timeout(strikes), c.Unproven)
	}
	return c.timeout(strikes)
}

// unproven is the evidence of blocks that rest on packets which can be forged.
var unproven = listener.Unproven.String()
