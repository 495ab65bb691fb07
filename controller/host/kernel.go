package host

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// groups are the rtnetlink groups that tell of changes. Links are among them because the IPv4 routes of a link that
// goes down vanish without a word.
const groups = unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR |
	unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_ROUTE |
	unix.RTMGRP_LINK | 1<<(unix.RTNLGRP_NEXTHOP-1)

// dumpBuffer holds one part of a dump. The kernel fills up to 32 KiB of it, and less if less is offered.
const dumpBuffer = 64 << 10

// rtnl is the network namespace in the kernel, asked by rtnetlink. The namespace is 0 for the caller's own.
type rtnl struct {
	netns int
}

var _ kernel = rtnl{}

// addresses returns the host's own addresses and the prefixes of its links.
func (k rtnl) addresses(ctx context.Context) ([]netip.Addr, []netip.Prefix, error) {
	own := addrSet{}
	var links []netip.Prefix
	err := k.dump(ctx, unix.RTM_GETADDR, ipRequests(unix.SizeofIfAddrmsg), func(b []byte) error {
		addr, link, err := parseAddress(b)
		own.add(addr)
		links = append(links, link)
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("read addresses: %w", err)
	}
	return own.sorted(), onLink6(links), nil
}

// gateways returns the next hops of the routes. Of a full routing table only the distinct ones are kept.
func (k rtnl) gateways(ctx context.Context) ([]netip.Addr, error) {
	hops := addrSet{}
	requests := ipRequests(unix.SizeofRtMsg)
	for _, r := range requests {
		r[7] = unix.RTN_UNICAST // the kernel leaves all others out
	}
	err := k.dump(ctx, unix.RTM_GETROUTE, requests, func(b []byte) error { return parseRoute(b, hops) })
	if err != nil {
		return nil, fmt.Errorf("read routes: %w", err)
	}
	err = k.dump(ctx, unix.RTM_GETNEXTHOP, [][]byte{make([]byte, unix.SizeofNhmsg)}, func(b []byte) error {
		return parseNexthop(b, hops)
	})
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) { // Linux before 5.3 has no nexthop objects
		return nil, fmt.Errorf("read nexthop objects: %w", err)
	}
	return hops.sorted(), nil
}

// ipRequests returns a message header for IPv4 and one for IPv6, each with its address family in the first byte.
func ipRequests(size int) [][]byte {
	v4, v6 := make([]byte, size), make([]byte, size)
	v4[0], v6[0] = unix.AF_INET, unix.AF_INET6
	return [][]byte{v4, v6}
}

// dump sends requests for dumps and calls each for what comes back, without keeping it. A dump that the kernel says
// was interrupted by a change is repeated a few times: an entry may be seen twice then, but none is missed.
func (k rtnl) dump(ctx context.Context, kind netlink.HeaderType, requests [][]byte, each func([]byte) error) error {
	c, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{NetNS: k.netns, Strict: true, MessageBufferSize: dumpBuffer})
	if err != nil {
		return err
	}
	defer c.Close()
	defer wake(ctx, c)()
	for _, r := range requests {
		for range 3 {
			if err := ctx.Err(); err != nil {
				return err
			}
			interrupted, err := dumpOnce(c, kind, r, each)
			if err != nil {
				return err
			}
			if !interrupted {
				break
			}
		}
	}
	return nil
}

// dumpOnce makes one dump and reports whether a change interrupted it.
func dumpOnce(c *netlink.Conn, kind netlink.HeaderType, request []byte, each func([]byte) error) (interrupted bool, err error) {
	_, err = c.Send(netlink.Message{
		Header: netlink.Header{Type: kind, Flags: netlink.Request | netlink.Dump},
		Data:   request,
	})
	if err != nil {
		return false, err
	}
	for m, err := range c.ReceiveIter() {
		if err != nil {
			return false, err
		}
		interrupted = interrupted || m.Header.Flags&netlink.DumpInterrupted != 0
		if err := each(m.Data); err != nil {
			return false, err
		}
	}
	return interrupted, nil
}

// wake ends reads from c when ctx ends, by a deadline in the past. The function it returns ends that.
func wake(ctx context.Context, c *netlink.Conn) (stop func()) {
	done := make(chan struct{})
	unhook := context.AfterFunc(ctx, func() {
		defer close(done)
		_ = c.SetReadDeadline(time.Unix(1, 0)) // fails only when c is closed, which ends reads too
	})
	return func() {
		if !unhook() {
			<-done
		}
	}
}

// subscribe returns a subscription to all changes from now on.
func (k rtnl) subscribe() (subscription, error) {
	c, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{NetNS: k.netns, Groups: groups})
	if err != nil {
		return nil, fmt.Errorf("subscribe to changes: %w", err)
	}
	return events{c}, nil
}

// events is a subscription to rtnetlink.
type events struct {
	*netlink.Conn
}

var _ subscription = events{}

// wait returns true after a change, and false when d has passed or ctx has ended.
func (e events) wait(ctx context.Context, d time.Duration) (bool, error) {
	if err := e.SetReadDeadline(time.Now().Add(d)); err != nil {
		return false, fmt.Errorf("wait for changes: %w", err)
	}
	defer wake(ctx, e.Conn)() // after the deadline was set, or that could outlast ctx
	_, err := e.Receive()
	switch {
	case err == nil, errors.Is(err, unix.ENOBUFS): // more changes than the socket could hold
		return true, nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return false, nil
	default:
		return false, fmt.Errorf("wait for changes: %w", err)
	}
}
