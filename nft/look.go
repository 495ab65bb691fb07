package nft

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A Held is what the kernel holds of a source in one set.
type Held struct {
	Set         string     // its name
	First, Last netip.Addr // the addresses that it stands for
	// Left is how long from now it stays; 0 is for ever.
	Left    time.Duration
	Comment string
	// Counter is what was dropped since the element was made or last changed;
	// Counted says that the kernel counts it.
	Counter Counter
	Counted bool
}

// A HeldPort is a port that the kernel remembers a source to have touched.
type HeldPort struct {
	Protocol byte // as in IPv4's header
	Port     uint16
	Left     time.Duration // until it is forgotten
}

// A Sight is what the kernel holds of one address. What it does not hold is nil.
type Sight struct {
	Host    *Held // in a set of blocked hosts
	Net     *Held // in a set of blocked prefixes
	Ignored *Held
	Peer    *Held // the source has a session
	Suspect *Held // the source has touched a port that counts
	// Ports are those of the ports asked for that are remembered.
	Ports []HeldPort
}

// A LookRequest says what Look asks for.
type LookRequest struct {
	Address netip.Addr   // neither mapped nor with a zone
	Source  netip.Prefix // what is counted and blocked for it: it, or the IPv6 prefix around it
	Prefix6 int          // the length of IPv6 prefixes that are blocked as hosts, in bits
	Ports   []HeldPort   // to be asked for; Left is not looked at
}

// patience is how long a look may take in all, which waits for nobody but the
// kernel.
const patience = 2 * time.Second

// Look asks the kernel what it holds of one address, in the network namespace
// that the file descriptor netns stands for, or in the caller's if it is 0. It
// takes a request for each set and port, and for each bit of an address in a
// prefix, and lists none of the sets, so that it costs the same however full
// they are: some 10 microseconds each. It may be
// called by many at once, beside a Table; what it tells is not of one moment.
// Without a table there is nothing.
func Look(netns int, r LookRequest) (Sight, error) {
	if !r.Address.IsValid() || r.Address.Is4In6() || r.Address.Zone() != "" || !r.Source.Contains(r.Address) {
		return Sight{}, fmt.Errorf("look up %v of %v: not an address of its source", r.Address, r.Source)
	}
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: netns})
	if err != nil {
		return Sight{}, fmt.Errorf("open nftables: %w", err)
	}
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return Sight{}, fmt.Errorf("open nftables: %w", errors.Join(err, conn.Close()))
	}
	l := looker{conn: conn, request: r, sets: newSets(&nftables.Table{Name: TableName, Family: nftables.TableFamilyINet}, 0)}
	s, err := l.look()
	if err = errors.Join(err, conn.Close()); err != nil {
		return Sight{}, fmt.Errorf("look up %s: %w", r.Address, err)
	}
	return s, nil
}

// A looker asks for one address.
type looker struct {
	conn    *netlink.Conn
	request LookRequest
	sets    sets
}

func (l *looker) look() (s Sight, err error) {
	set := l.sets
	blocked, nets, ignored, peers, suspects, probes := set.blocked4, set.nets4, set.ignored4, set.peers4, set.suspects4, set.probes4
	if l.request.Address.Is6() {
		blocked, nets, ignored, peers, suspects, probes = set.blocked6, set.nets6, set.ignored6, set.peers6, set.suspects6, set.probes6
	}
	key := l.request.Source.Addr()
	for _, ask := range []struct {
		into **Held
		f    func() (*Held, error)
	}{
		{&s.Host, func() (*Held, error) { return l.host(blocked) }},
		{&s.Net, func() (*Held, error) { return l.around(nets) }},
		{&s.Ignored, func() (*Held, error) { return l.around(ignored) }},
		{&s.Peer, func() (*Held, error) { return l.one(peers, key) }},
		{&s.Suspect, func() (*Held, error) { return l.one(suspects, key) }},
	} {
		if *ask.into, err = ask.f(); err != nil {
			return Sight{}, err
		}
	}
	s.Ports, err = l.ports(probes)
	return s, err
}

// host looks for the address, and for the IPv6 prefix around it, which is what
// an address without host bits stands for. Of a neighbour it is not: that has
// an element of its own or none.
func (l *looker) host(set *nftables.Set) (*Held, error) {
	a := l.request.Address
	wide := netip.PrefixFrom(a, l.request.Prefix6).Masked()
	if a.Is4() || wide.Addr() != a {
		if h, err := l.one(set, a); h != nil || err != nil {
			return h, err
		}
	}
	if a.Is4() || l.request.Source != wide {
		return nil, nil
	}
	h, err := l.one(set, wide.Addr())
	if h != nil {
		h.First, h.Last = wide.Addr(), lastAddr(wide)
	}
	return h, err
}

// one looks for one element by its key.
func (l *looker) one(set *nftables.Set, key netip.Addr) (*Held, error) {
	e, err := l.get(set, key.AsSlice())
	if err != nil || e == nil {
		return nil, err
	}
	return e.held(set, key, key), nil
}

// around looks for the interval around the address. The kernel finds its start
// by any address in it: __nft_rbtree_get in
// https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/net/netfilter/nft_set_rbtree.c
func (l *looker) around(set *nftables.Set) (*Held, error) {
	a := l.request.Address
	start, err := l.get(set, a.AsSlice())
	if err != nil || start == nil {
		return nil, err
	}
	first, ok := netip.AddrFromSlice(start.key)
	if !ok || start.ends || first.Compare(a) > 0 {
		return nil, nil
	}
	last, err := l.last(set, a, start.key)
	if err != nil {
		return nil, err
	}
	return start.held(set, first, last), nil
}

// last looks for the last address after a that answers to the same start, in
// one request a bit. Where the interval ends the kernel tells too, but before
// Linux 6.18 wrongly, or not at all, to who asks by the first address, and where
// another interval follows at once.
func (l *looker) last(set *nftables.Set, a netip.Addr, start []byte) (netip.Addr, error) {
	for bit := a.BitLen() - 1; bit >= 0; bit-- {
		further, ok := plusBit(a, bit)
		if !ok {
			continue
		}
		e, err := l.get(set, further.AsSlice())
		if err != nil {
			return netip.Addr{}, err
		}
		if e != nil && !e.ends && bytes.Equal(e.key, start) {
			a = further
		}
	}
	return a, nil
}

// plusBit is an address and two to the power of bit, unless that is too much.
func plusBit(a netip.Addr, bit int) (netip.Addr, bool) {
	b := a.AsSlice()
	i := len(b) - 1 - bit/8
	carry := uint16(1) << (bit % 8)
	for ; i >= 0 && carry > 0; i-- {
		carry += uint16(b[i])
		b[i] = byte(carry)
		carry >>= 8
	}
	sum, _ := netip.AddrFromSlice(b)
	return sum, carry == 0
}

// ports looks for the ports that the request names.
func (l *looker) ports(set *nftables.Set) (all []HeldPort, err error) {
	for _, p := range l.request.Ports {
		e, err := l.get(set, probeKey(l.request.Source.Addr(), p))
		if err != nil {
			return nil, err
		}
		if e != nil {
			p.Left = e.left
			all = append(all, p)
		}
	}
	return all, nil
}

// probeKey is "SOURCE . PROTOCOL . PORT": each part begins on a multiple of
// four bytes.
func probeKey(source netip.Addr, p HeldPort) []byte {
	key := append(source.AsSlice(), p.Protocol, 0, 0, 0)
	return append(key, byte(p.Port>>8), byte(p.Port), 0, 0)
}

// get asks for the element that answers to a key; nil if there is none, nor
// its set.
func (l *looker) get(set *nftables.Set, key []byte) (*heldElement, error) {
	request, err := lookRequest(set, key)
	if err != nil {
		return nil, err
	}
	e, err := l.ask(request, len(key))
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("get element of set %s: %w", set.Name, err)
	}
	return e, nil
}

// ask sends a request and reads what comes up to its acknowledgement, which the
// kernel sends behind the element.
func (l *looker) ask(request netlink.Message, keyLength int) (found *heldElement, err error) {
	sent, err := l.conn.Send(request)
	if err != nil {
		return nil, err
	}
	for {
		replies, err := l.conn.Receive()
		if err != nil {
			return nil, err
		}
		for _, m := range replies {
			if m.Header.Sequence != sent.Header.Sequence {
				continue
			}
			if m.Header.Type == netlink.Error { // a real one has been returned as such
				return found, nil
			}
			if e, ok := parseElement(m.Data); ok && len(e.key) == keyLength {
				found = &e
			}
		}
	}
}
