package namespace

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/jsimonetti/rtnetlink/v2"
	"github.com/jsimonetti/rtnetlink/v2/driver"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// linkTimeout is how long a new link may take to come up. It takes a few milliseconds.
const linkTimeout = 5 * time.Second

// loopback is the index of lo, the first interface of each namespace.
const loopback = 1

// Join joins two hosts by a veth pair with the given names, at most 15 bytes each. Both ends are up when it returns.
func Join(a, b *Host, nameA, nameB string) error {
	if err := veth(a, b, nameA, nameB); err != nil {
		return fmt.Errorf("link %s/%s to %s/%s: %w", a, nameA, b, nameB, err)
	}
	return nil
}

// Addr adds addresses in prefix notation, such as "192.0.2.1/24", to an interface of the host, usable at once.
func (h *Host) Addr(ifname string, prefixes ...string) error {
	err := h.rtnetlink(func(c *rtnetlink.Conn) error {
		index, err := h.index(ifname)
		if err != nil {
			return err
		}
		for _, s := range prefixes {
			if err := addAddr(c, index, s); err != nil {
				return fmt.Errorf("add address %s: %w", s, err)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("host %s: interface %s: %w", h, ifname, err)
	}
	return nil
}

// Route sets the route of the host to dst, a prefix or "default", by way of the next hop via. A link-local next hop has
// a zone: "fe80::1%eth0".
func (h *Host) Route(dst, via string) error {
	err := h.rtnetlink(func(c *rtnetlink.Conn) error {
		req, err := h.route(dst, via)
		if err != nil {
			return err
		}
		return c.Route.Replace(req)
	})
	if err != nil {
		return fmt.Errorf("host %s: route to %s via %s: %w", h, dst, via, err)
	}
	return nil
}

// rtnetlink runs fn with a connection to rtnetlink in the namespace.
func (h *Host) rtnetlink(fn func(*rtnetlink.Conn) error) error {
	c, err := rtnetlink.Dial(&netlink.Config{NetNS: h.FD()})
	if err != nil {
		return err
	}
	return errors.Join(fn(c), c.Close())
}

// index returns the index of an interface of the host.
func (h *Host) index(ifname string) (uint32, error) {
	var index uint32
	err := h.Inside(func() error {
		ifi, err := net.InterfaceByName(ifname)
		if err != nil {
			return err
		}
		index = uint32(ifi.Index)
		return nil
	})
	return index, err
}

// lastIndex is the index of the link made last, well above those that the kernel gives. The kernel lets up to a second
// pass before it notices the carrier of a veth whose two ends have the same index, each in its own namespace
// (linkwatch_urgent_event in net/core/link_watch.c), so all indexes differ.
var lastIndex atomic.Uint32

func init() { lastIndex.Store(1000) }

// veth makes a veth pair and waits until both ends have a carrier.
func veth(a, b *Host, nameA, nameB string) error {
	peer := &rtnetlink.LinkMessage{
		Index:      lastIndex.Add(1),
		Attributes: &rtnetlink.LinkAttributes{Name: nameB, NetNS: rtnetlink.NetNSForFD(uint32(b.FD()))},
	}
	err := a.rtnetlink(func(c *rtnetlink.Conn) error {
		return c.Link.New(&rtnetlink.LinkMessage{
			Index: lastIndex.Add(1),
			Attributes: &rtnetlink.LinkAttributes{
				Name: nameA,
				Info: &rtnetlink.LinkInfo{Kind: "veth", Data: &driver.Veth{PeerInfo: peer}},
			},
		})
	})
	if err != nil {
		return fmt.Errorf("make veth pair: %w", err)
	}
	ends := []struct {
		h    *Host
		name string
	}{{a, nameA}, {b, nameB}}
	for _, e := range ends {
		if err := e.h.setUp(e.name); err != nil {
			return fmt.Errorf("set %s up: %w", e.name, err)
		}
	}
	for _, e := range ends {
		if err := e.h.waitUp(e.name); err != nil {
			return err
		}
	}
	return nil
}

// setUp sets an interface of the host up.
func (h *Host) setUp(ifname string) error {
	index, err := h.index(ifname)
	if err != nil {
		return err
	}
	return h.rtnetlink(func(c *rtnetlink.Conn) error { return linkUp(c, index) })
}

// waitUp waits until an interface of the host carries traffic.
func (h *Host) waitUp(ifname string) error {
	for deadline := time.Now().Add(linkTimeout); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		var ifi *net.Interface
		err := h.Inside(func() (err error) {
			ifi, err = net.InterfaceByName(ifname)
			return err
		})
		if err != nil {
			return err
		}
		if ifi.Flags&net.FlagRunning != 0 {
			return nil
		}
	}
	return fmt.Errorf("interface %s has no carrier after %s", ifname, linkTimeout)
}

// loopbackUp sets lo up in the namespace of the calling thread.
func loopbackUp() error {
	c, err := rtnetlink.Dial(nil)
	if err != nil {
		return err
	}
	if err := errors.Join(linkUp(c, loopback), c.Close()); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	return nil
}

// linkUp sets an interface up.
func linkUp(c *rtnetlink.Conn, index uint32) error {
	return c.Link.Set(&rtnetlink.LinkMessage{Index: index, Flags: unix.IFF_UP, Change: unix.IFF_UP})
}

// addAddr adds an address in prefix notation to an interface, without duplicate address detection.
func addAddr(c *rtnetlink.Conn, index uint32, s string) error {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return err
	}
	req := &rtnetlink.AddressMessage{
		Family:       family(p.Addr()),
		PrefixLength: uint8(p.Bits()),
		Index:        index,
		Attributes: &rtnetlink.AddressAttributes{
			Address: p.Addr().AsSlice(),
			Local:   p.Addr().AsSlice(),
		},
	}
	if p.Addr().Is6() {
		req.Attributes.Flags = unix.IFA_F_NODAD
	}
	return c.Address.New(req)
}

// route is the request for a route to dst by way of via.
func (h *Host) route(dst, via string) (*rtnetlink.RouteMessage, error) {
	next, err := netip.ParseAddr(via)
	if err != nil {
		return nil, err
	}
	req := &rtnetlink.RouteMessage{
		Family:     family(next),
		Table:      unix.RT_TABLE_MAIN,
		Protocol:   unix.RTPROT_STATIC,
		Scope:      unix.RT_SCOPE_UNIVERSE,
		Type:       unix.RTN_UNICAST,
		Attributes: rtnetlink.RouteAttributes{Gateway: next.AsSlice()},
	}
	if next.Zone() != "" {
		if req.Attributes.OutIface, err = h.index(next.Zone()); err != nil {
			return nil, err
		}
	}
	if dst == "default" {
		return req, nil
	}
	p, err := netip.ParsePrefix(dst)
	if err != nil {
		return nil, err
	}
	if p.Addr().Is4() != next.Is4() {
		return nil, errors.New("destination and next hop are of two families")
	}
	req.DstLength, req.Attributes.Dst = uint8(p.Bits()), p.Masked().Addr().AsSlice()
	return req, nil
}

// family is the address family of addr.
func family(addr netip.Addr) uint8 {
	if addr.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
