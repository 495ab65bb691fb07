package controller

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"go.uber.org/zap"

	"nftsentry/listener"
	"nftsentry/nft"
	"nftsentry/state"
)

// services are the ports where a service was seen, each with the moment when
// that is forgotten.
type services map[service]time.Time

type service struct {
	protocol listener.Protocol
	port     uint16
}

// add remembers a service until a moment, or until the later one it has.
func (s services) add(one service, until time.Time) {
	if s[one].Before(until) {
		s[one] = until
	}
}

// learn asks the kernel where it has seen services, and puts on record what
// has changed. If it knows of none, somebody has emptied its set.
func (c *Controller) learn() {
	held, err := c.kernel.Served()
	if err != nil {
		c.lose(err)
		c.log.Warn("cannot read from the kernel where services are", zap.Error(err))
	}
	if err != nil || len(held) == 0 {
		return
	}
	now, known := time.Now(), make(services)
	for _, s := range held {
		known.add(service{listener.Protocol(s.Protocol), s.Port}, now.Add(s.Timeout))
	}
	var lost []nft.Service
	for s, until := range c.served { // somebody may have emptied the set, or it was full
		if _, there := known[s]; !there && until.After(now) && c.tripwire(s) {
			known.add(s, until)
			lost = append(lost, nft.Service{Protocol: byte(s.protocol), Port: s.port, Timeout: until.Sub(now)})
		}
	}
	if len(lost) > 0 {
		if err := c.kernel.Serve(lost); err != nil {
			c.log.Warn("cannot tell the kernel where services are", zap.Error(err))
		}
	}
	if !maps.EqualFunc(known, c.served, func(a, b time.Time) bool { return a.Sub(b).Abs() < time.Hour }) {
		c.served = known
		c.store.SaveServed(known.records())
	}
}

// rediscover gathers what the kernel has learnt since the last time, and where
// sockets are now, before the table is emptied or made again.
func (c *Controller) rediscover() {
	found, err := c.kernel.Served()
	if c.host.Find != nil {
		sockets, missing := c.host.Find()
		found, err = append(found, sockets...), errors.Join(err, missing)
	}
	if err != nil {
		c.log.Warn("cannot find all services of this host", zap.Error(err))
	}
	now := time.Now()
	for _, s := range found {
		if one := (service{listener.Protocol(s.Protocol), s.Port}); c.tripwire(one) {
			c.served.add(one, now.Add(s.Timeout))
		}
	}
}

// Serve tells where the host serves others now: those ports are remembered
// from now on for as long as any.
func (c *Controller) Serve(ctx context.Context, serving []nft.Service) error {
	return c.call(ctx, func(answer func(error)) {
		now := time.Now()
		var known []nft.Service
		for _, s := range serving {
			one := service{listener.Protocol(s.Protocol), s.Port}
			if c.tripwire(one) {
				known = append(known, s)
				c.served.add(one, now.Add(s.Timeout))
			}
		}
		if len(known) == 0 || c.suspended() {
			answer(nil)
			return
		}
		c.store.SaveServed(c.served.records())
		err := c.kernel.Serve(known)
		if err != nil {
			c.harm("it may not know of a service", err)
		}
		answer(err)
	})
}

// recall gathers where services were seen: on record, by the kernel, and now.
// The decoy listener is none.
func (c *Controller) recall() error {
	now := time.Now()
	stored, err := c.store.Served()
	if err != nil {
		c.log.Warn("cannot read from the store where services are", zap.Error(err))
	}
	for _, s := range stored {
		c.served.add(service{protocolOf(s.Protocol), s.Port}, s.Until)
	}
	held, err := c.kernel.Served()
	if err != nil { // a service that only the kernel knows of would become a tripwire
		return fmt.Errorf("read services from the kernel: %w", err)
	}
	for _, s := range append(held, c.host.Serving...) {
		c.served.add(service{listener.Protocol(s.Protocol), s.Port}, now.Add(s.Timeout))
	}
	maps.DeleteFunc(c.served, func(s service, until time.Time) bool { return !until.After(now) || !c.tripwire(s) })
	c.store.SaveServed(c.served.records())
	return nil
}

// tripwire tells whether a port would be one if nobody served it. Of others
// there is nothing to remember.
func (c *Controller) tripwire(s service) bool {
	t, has := c.cfg.Table, func(ranges []nft.PortRange) bool {
		return slices.ContainsFunc(ranges, func(r nft.PortRange) bool { return r.First <= s.port && s.port <= r.Last })
	}
	if s.protocol == listener.UDP {
		return has(t.WatchUDP) && !has([]nft.PortRange{t.Ephemeral})
	}
	return s.port != t.Port && (has(t.WatchTCP) || has(t.Decoys))
}

func protocolOf(name string) listener.Protocol {
	if name == listener.UDP.String() {
		return listener.UDP
	}
	return listener.TCP
}

// records is the form of services in the store.
func (s services) records() []state.Service {
	all := []state.Service{}
	for one, until := range s {
		all = append(all, state.Service{Protocol: one.protocol.String(), Port: one.port, Until: until})
	}
	return all
}

// elements is the form of services in the kernel, those that were seen last
// first.
func (s services) elements(now time.Time) []nft.Service {
	all := []nft.Service{}
	for one, until := range s {
		if left := until.Sub(now); left > 0 {
			all = append(all, nft.Service{Protocol: byte(one.protocol), Port: one.port, Timeout: left})
		}
	}
	slices.SortFunc(all, func(a, b nft.Service) int { return int(b.Timeout/time.Second - a.Timeout/time.Second) })
	return all
}
