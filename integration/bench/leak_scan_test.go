//go:build bench

package bench

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"nftsentry/integration/netns"
	"nftsentry/integration/packet"
)

// A scanner is a way to scan a server.
type scanner struct {
	name      string
	tool      []string // the program and what it is told, without ports and target; none for packet.Flood
	rate      int      // packets a second of a flood
	last      int      // of the ports, which begin with 1
	ipv6      bool
	udp       bool
	stateless bool          // sends one packet to each port and no other
	session   bool          // connects to port 22 before, and says who it is as SSH does
	limit     time.Duration // how long it may take
	core      bool          // one of the few that all guards have
}

func (s scanner) String() string {
	family := "IPv4"
	if s.ipv6 {
		family = "IPv6"
	}
	name := s.name
	if s.session {
		name = "a session on port 22, then " + name
	}
	return fmt.Sprintf("%s, ports 1-%d, %s", name, s.last, family)
}

// An attempt is a scanner at work.
type attempt struct {
	stop  func()        // ends it, and returns when it has ended
	ended chan struct{} // closed when it has ended
	said  func() string // what it printed, once it has ended
}

// start has it scan the server from one of the client's addresses.
func (s scanner) start(t testing.TB, client *netns.Host, source, server netip.Addr) *attempt {
	t.Helper()
	if s.tool == nil {
		return s.flood(t, client, source, server)
	}
	args := append(slices.Clone(s.tool[1:]), "-p", fmt.Sprintf("1-%d", s.last))
	switch {
	case s.tool[0] == "masscan": // --wait is how long it stays when all is sent
		args = append(args, "--wait", "0", "--adapter", "eth0", "--adapter-ip", source.String(), server.String())
	case s.ipv6:
		args = append(args, "-n", "-Pn", "-6", "-e", "eth0", "-S", source.String(), server.String())
	default:
		args = append(args, "-n", "-Pn", "-e", "eth0", "-S", source.String(), server.String())
	}
	cmd := client.Command(netns.Tool(t, s.tool[0]), args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := client.Inside(cmd.Start); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // it may have been killed
	}()
	return &attempt{
		stop:  func() { _ = cmd.Process.Kill(); <-ended },
		ended: ended,
		said:  func() string { return fmt.Sprintf("%s\n%s", strings.Join(cmd.Args, " "), out.String()) },
	}
}

// flood sends SYNs at a steady rate to all ports in random order, as zmap and
// its like do to many hosts.
func (s scanner) flood(t testing.TB, client *netns.Host, source, server netip.Addr) *attempt {
	t.Helper()
	cfg := packet.FloodConfig{
		Target: server, Sources: netip.PrefixFrom(source, source.BitLen()),
		Rate: s.rate, Count: uint64(s.last), Limit: s.limit, Seed: rand.Uint64(),
	}
	for _, i := range rand.Perm(s.last) {
		cfg.Ports = append(cfg.Ports, uint16(i+1))
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	var err error
	go func() {
		defer close(ended)
		_, err = packet.Flood(ctx, client, cfg)
	}()
	return &attempt{stop: func() { cancel(); <-ended }, ended: ended, said: func() string { return fmt.Sprint(err) }}
}

// over reports whether it has ended by itself.
func (s *attempt) over() bool {
	select {
	case <-s.ended:
		return true
	default:
		return false
	}
}

// A stage is a world in which one scan after the other begins.
type stage struct {
	world  *world
	guard  *running
	wire   *wire
	sender *packet.Sender
	views  map[netip.Addr]*view // by the address of the scanner
	tails  []*tail              // of all scans that have not been stopped
}

// A tail is a scan, and how long it may go on.
type tail struct {
	scan *attempt
	ends time.Time
}

// after is how long a scan goes on when it has been cut off.
const after = 2 * time.Second

func newStage(t testing.TB, w *world, g *running) *stage {
	t.Helper()
	// A site has a /48, so that each scanner can have a /64 of its own.
	w.router.Addr(t, "cli", "2001:db8:8:ffff::1/48")
	s := &stage{world: w, guard: g, wire: tap(t, w.router), sender: packet.Open(t, w.client), views: make(map[netip.Addr]*view)}
	t.Cleanup(func() {
		for _, tail := range s.tails {
			tail.scan.stop()
		}
	})
	return s
}

// source gives the client another address. All are of one length: Portsentry
// takes those that begin like one that it has blocked for blocked too.
func (s *stage) source(t testing.TB, ipv6 bool) netip.Addr {
	t.Helper()
	n := len(s.views)
	p := netip.MustParsePrefix(fmt.Sprintf("10.8.%d.%d/16", 100+n/100, 100+n%100))
	if ipv6 {
		p = netip.MustParsePrefix(fmt.Sprintf("2001:db8:8:%x::2/64", 0x1000+n))
	}
	s.world.client.Addr(t, "eth0", p.String())
	return p.Addr()
}

// run has a scanner scan from a new address until it has come to its end, or
// its time is up, or it is cut off; in that case it goes on for a while, which
// shows in the view.
func (s *stage) run(t testing.TB, sc scanner) *view {
	t.Helper()
	source, server := s.source(t, sc.ipv6), netip.MustParseAddr(server4)
	if sc.ipv6 {
		server = netip.MustParseAddr(server6)
	}
	v := &view{services: servicesFor(sc), trip: newTrip(t, s.guard), probes: make(map[uint16]bool), replies: make(map[uint16]bool)}
	s.views[source] = v
	if sc.session {
		conn, err := s.world.client.Dial(t.Context(), "tcp", netip.AddrPortFrom(server, 22).String(), source.String())
		if err == nil {
			_, err = conn.Write([]byte("SSH-2.0-test\r\n"))
		}
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.Close()
	}
	scan := sc.start(t, s.world.client, source, server)
	last := &tail{scan, time.Now().Add(sc.limit)}
	s.tails = append(s.tails, last)
	for began, asked := time.Now(), time.Now(); !v.cut(); pause(2 * time.Millisecond) {
		s.look(t)
		complete := scan.over() || sc.stateless && len(v.probes) == sc.last
		if complete && v.silence == 0 && time.Since(asked) > pace || time.Since(began) > sc.limit {
			last.ends = time.Now()
			s.look(t)
			if len(v.probes) == 0 {
				t.Fatalf("%s sent nothing: %s", sc, scan.said())
			}
			return v
		}
		if !v.began.IsZero() && time.Since(asked) > pace {
			s.sender.Send(t, v.ask(source, server))
			asked = time.Now()
		}
	}
	last.ends = time.Now().Add(after)
	return v
}

// pace is that of the questions.
const pace = 20 * time.Millisecond

// look takes note of what has passed, and ends the scans whose time is up.
func (s *stage) look(t testing.TB) {
	t.Helper()
	s.wire.drain(t, func(seen sighting) {
		if v := s.views[seen.source.Addr()]; v != nil {
			v.probe(seen)
		}
		if v := s.views[seen.target.Addr()]; v != nil {
			v.reply(seen)
		}
	})
	s.tails = slices.DeleteFunc(s.tails, func(tail *tail) bool {
		if time.Now().Before(tail.ends) {
			return false
		}
		tail.scan.stop()
		return true
	})
}

// close waits for the last scans.
func (s *stage) close(t testing.TB) {
	t.Helper()
	for ; len(s.tails) > 0; pause(10 * time.Millisecond) {
		s.look(t)
	}
	if n := s.wire.lost(t); n > 0 {
		t.Fatalf("%d packets were not seen", n)
	}
}
