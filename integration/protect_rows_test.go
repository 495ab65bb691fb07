package integration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"nftsentry/controller/api"
	"nftsentry/integration/netns"
	"nftsentry/integration/packet"
)

// all are the protections from a kind of probes.
func (p probe) all() []protection {
	all := append(p.forgeries(), p.peers()...)
	if p.serves() {
		all = slices.Concat(all, p.services(), p.former(), p.containers())
	}
	for i := range all {
		all[i].batch = p.name
	}
	return all
}

// forgeries are probes in the name of those who are ignored.
func (p probe) forgeries() []protection {
	rules := []edit{{chain: p.chain, rule: `@ignored[46] `}}
	local := []edit{{chain: p.chain, rule: `^fib saddr type local `}}
	forged := func(names map[bool]string, by func(*grounds) *packet.Sender) func(*testing.T, *grounds, bool) someone {
		return func(t *testing.T, g *grounds, v6 bool) someone {
			s := anyone(names[v6])
			by(g).Send(t, p.make(s, g.port(p.chain)))
			return s
		}
	}
	near := func(g *grounds) *packet.Sender { return g.near }
	far := func(g *grounds) *packet.Sender { return g.far }
	all := []protection{
		{name: "gateway/" + p.name, offend: forged(gateways, near), rules: rules, host: true},
		{name: "resolver/" + p.name, offend: forged(resolvers, far), rules: rules, host: true},
		{name: "own address/" + p.name, offend: forged(second, near), bare: local, rules: rules, host: true},
		{name: "address that is not known to be its own/" + p.name, offend: forged(third, near), bare: rules, rules: local, host: true},
		{name: "ignored/" + p.name, host: true, rules: rules, offend: func(t *testing.T, g *grounds, v6 bool) someone {
			s := anyone(fmt.Sprintf("10.6.%d.%d", g.ports/250, 1+g.ports%250))
			if v6 {
				s = anyone(fmt.Sprintf("2001:db8:b:%x::2", g.ports))
			}
			g.far.Send(t, p.make(s, g.port(p.chain)))
			return s
		}},
		{name: "ignored interface/" + p.name, rules: []edit{{chain: p.chain, rule: `^iifname "wg0" `}},
			offend: func(t *testing.T, g *grounds, v6 bool) someone {
				s := anyone(fmt.Sprintf("10.10.%d.%d", 1+g.ports/250, 1+g.ports%250))
				if v6 {
					s = anyone(fmt.Sprintf("2001:db8:10::3:%x", g.ports))
				}
				s.server = netip.MustParseAddr(sideways[v6])
				g.side.Send(t, p.make(s, g.port(p.chain)))
				return s
			}},
	}
	return append(all, p.loopback()...)
}

// loopback are probes that the host sends to itself. Of those that open
// connections no nat chain of prerouting hears: not even without rules can
// they have it blocked.
func (p probe) loopback() []protection {
	if p.chain != "sense_port" {
		return nil
	}
	aloud := func(names map[bool]string) func(*testing.T, *grounds, bool) someone {
		return func(t *testing.T, g *grounds, v6 bool) someone {
			s := anyone(names[v6])
			if s.addr == netip.MustParseAddr(loopback[false]) {
				s.server = s.addr.Next() // which is at home too
			}
			g.loop.Send(t, p.make(s, g.port(p.chain)))
			return s
		}
	}
	bare := []edit{{chain: p.chain, rule: `@ignored[46] |^fib saddr type local `}}
	rules := []edit{{chain: p.chain, rule: `^iif "lo" `}}
	if p.name != "FIN" {
		bare, rules = append(bare, rules...), nil
	}
	return []protection{
		{name: "loopback/" + p.name, offend: aloud(second), bare: bare, rules: rules, host: true},
		{name: "loopback address/" + p.name, offend: aloud(loopback), bare: bare, rules: rules, host: true},
	}
}

// peers are probes in the name of those who have a session.
func (p probe) peers() []protection {
	session := func(t *testing.T, g *grounds, v6 bool) someone {
		t.Helper()
		s := g.next(v6)
		converse(t, g.client, s.addr.String(), s.server.String(), "welcome")
		return s
	}
	peer := func(t *testing.T, g *grounds, v6 bool) someone {
		s := session(t, g, v6)
		g.far.Send(t, p.make(s, g.port(p.chain)))
		return s
	}
	known := []edit{{chain: "judge.*", rule: `@peers[46]`}}
	talk := edit{chain: "sense_session", rule: `psh`}
	return []protection{
		{name: "peer/" + p.name, offend: peer, rules: known},
		{name: "peer is learnt/" + p.name, offend: peer, rules: []edit{{chain: "sense_session", rule: `update @peers`}}},
		{name: "peer by another address/" + p.name, only: "IPv6", rules: known, offend: func(t *testing.T, g *grounds, v6 bool) someone {
			s := session(t, g, v6)
			s.addr = netip.MustParseAddr(s.key() + "99")
			g.far.Send(t, p.make(s, g.port(p.chain)))
			return s
		}},
		{name: "half-open to a session port/" + p.name, guilty: true,
			rules: []edit{talk, {chain: "sense_session", rule: `update @peers`, part: "ct status assured", with: ""}},
			offend: func(t *testing.T, g *grounds, v6 bool) someone {
				s := g.next(v6)
				g.far.Send(t, s.tcp(packet.SYN, 22).Bytes())
				g.settle(t, g.d.program, v6) // and meanwhile the client has reset it
				g.far.Send(t, p.make(s, g.port(p.chain)))
				return s
			}},
		{name: "connection to a session port without a word/" + p.name, guilty: true, rules: []edit{talk},
			offend: func(t *testing.T, g *grounds, v6 bool) someone {
				s := g.next(v6)
				expectRead(t, g.client, s.addr.String(), s.server.String(), 22, "welcome")
				g.far.Send(t, p.make(s, g.port(p.chain)))
				return s
			}},
	}
}

// containers are probes of ports that are led to a container. What belongs to
// no connection is not led anywhere.
func (p probe) containers() []protection {
	port := uint16(3999)
	if p.chain == "divert" {
		port = 2999
	}
	return []protection{{name: "container/" + p.name, rules: []edit{{do: "delete table inet docker", undo: published}},
		offend: func(t *testing.T, g *grounds, v6 bool) someone {
			s := g.next(v6)
			g.far.Send(t, p.make(s, port))
			return s
		}}}
}

// services are probes of ports that somebody serves.
func (p probe) services() []protection {
	served := func(address map[bool]string) func(*testing.T, *grounds, bool) someone {
		return func(t *testing.T, g *grounds, v6 bool) someone {
			s, port := g.next(v6), g.port(p.chain)
			defer open(t, g.server, p.network(), net.JoinHostPort(address[v6], fmt.Sprint(port))).Close()
			g.far.Send(t, p.make(s, port))
			g.settle(t, g.d.program, v6) // before it closes
			return s
		}
	}
	rule := edit{chain: p.chain, rule: `^socket wildcard`, part: "{ 0, 1 }"}
	all, one := rule, rule
	all.with, one.with = "0", "1"
	return []protection{
		{name: "service on all addresses/" + p.name, offend: served(nil), rules: []edit{all}},
		{name: "service on one address/" + p.name, offend: served(itself), rules: []edit{one}},
	}
}

// former are probes of ports that somebody has served. Only the first needs
// to be the first to run.
func (p probe) former() []protection {
	rules := []edit{{chain: p.chain, rule: `@served return`}}
	learnt := uint16(3997)
	quiet := uint16(3998)
	if p.chain == "divert" {
		learnt, quiet = 2997, 2998
	}
	touched := func(port uint16) func(*testing.T, *grounds, bool) someone {
		return func(t *testing.T, g *grounds, v6 bool) someone {
			s := g.next(v6)
			g.far.Send(t, p.make(s, port))
			return s
		}
	}
	return []protection{
		{name: "service that stops/" + p.name, rules: rules, offend: func(t *testing.T, g *grounds, v6 bool) someone {
			client, s := g.next(v6), g.next(v6)
			service := open(t, g.server, p.network(), fmt.Sprintf(":%d", learnt))
			g.far.Send(t, p.make(client, learnt))
			g.settle(t, g.d.program, v6)
			if err := service.Close(); err != nil {
				t.Error(err)
			}
			g.far.Send(t, p.make(s, learnt))
			return s
		}},
		{name: "service that stopped/" + p.name, offend: touched(learnt), rules: rules},
		{name: "service without traffic/" + p.name, offend: touched(quiet), rules: rules},
	}
}

// broadcasts are packets to more hosts than this one.
func broadcasts() []protection {
	notHost, notLocal := edit{chain: "sense_port", rule: `^meta pkttype != host return`}, edit{chain: "sense_port", rule: `^fib daddr type != local return`}
	var all []protection
	for _, to := range []string{"10.9.0.255", "255.255.255.255", "224.0.0.1", "ff02::1"} {
		family := "IPv4"
		if strings.Contains(to, ":") {
			family = "IPv6"
		}
		offend := func(t *testing.T, g *grounds, v6 bool) someone {
			port := g.port("sense_port")
			s := near(g.ports, v6)
			s.server = netip.MustParseAddr(to)
			g.neighbour.Send(t, s.udp(port).Bytes())
			return s
		}
		all = append(all,
			protection{name: "UDP to " + to + " by its frame", only: family, offend: offend, bare: []edit{notLocal}, rules: []edit{notHost}},
			protection{name: "UDP to " + to + " by its address", only: family, offend: offend, bare: []edit{notHost}, rules: []edit{notLocal}},
		)
	}
	return append(all, protection{name: "SYN to a decoy of everybody", only: "IPv4", rules: []edit{{chain: "divert", rule: `^fib daddr type != local return`}},
		offend: func(t *testing.T, g *grounds, v6 bool) someone {
			port := g.port("divert")
			s := near(g.ports, v6)
			s.server = netip.MustParseAddr("10.9.0.255")
			g.neighbour.Send(t, s.tcp(packet.SYN, port).Bytes())
			return s
		}})
}

// near is a source on the link to the server that does not exist.
func near(i int, v6 bool) someone {
	if v6 {
		return anyone(fmt.Sprintf("2001:db8:9::7:%x", i))
	}
	return anyone(fmt.Sprintf("10.9.0.%d", 10+i%240))
}

// lateness is what comes after the connection that it belongs to.
func lateness() []protection {
	answers := []edit{{chain: "shield_new", rule: `^tcp flags ! rst,ack`, part: "tcp flags ! rst,ack", with: "meta l4proto tcp"}}
	ends := answers[0]
	ends.with = "tcp flags fin" // others would have its port taken for a service
	all := []protection{{name: "end of a connection that is forgotten", offend: endForgotten, rules: []edit{ends}}}
	for _, late := range []struct {
		name  string
		flags packet.Flags
	}{
		{"ACK", packet.ACK}, {"RST", packet.RST}, {"FIN ACK", packet.FIN | packet.ACK}, {"RST ACK", packet.RST | packet.ACK},
		{"SYN ACK", packet.SYN | packet.ACK}, {"PSH ACK", packet.PSH | packet.ACK},
	} {
		all = append(all, protection{name: "late " + late.name, rules: answers, offend: func(t *testing.T, g *grounds, v6 bool) someone {
			s := g.next(v6)
			p := s.tcp(late.flags, 45000)
			p.Source = netip.AddrPortFrom(s.addr, 80)
			g.far.Send(t, p.Bytes())
			return s
		}})
	}
	ephemeral := edit{chain: "sense_udp", rule: `^udp sport 1-1023`}
	return append(all,
		protection{name: "late answer by UDP", offend: lateAnswer(false), bare: []edit{ephemeral}}, // nat chains see no answers
		protection{name: "late answer by UDP that nobody waits for", offend: lateAnswer(true), rules: []edit{ephemeral}},
	)
}

// endForgotten has the server connect to somebody who closes the connection
// when the server's connection table has lost it.
func endForgotten(t *testing.T, g *grounds, v6 bool) someone {
	s := g.next(v6)
	address := netip.AddrPortFrom(s.addr, 8080).String()
	l, err := g.client.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, err := g.server.Dial(ctx, "tcp", address, "")
	if err != nil {
		t.Fatal(err)
	}
	peer, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	_ = peer.SetDeadline(time.Now().Add(patience))
	if _, err := io.ReadAll(peer); err != nil { // until it closes
		t.Error(err)
	}
	port := conn.LocalAddr().(*net.TCPAddr).Port
	eventually(t, "the server's socket is gone", patience, func() bool { return !established(t, g.server, port) })
	forget(t, g.server)
	if err := peer.Close(); err != nil {
		t.Error(err)
	}
	return s
}

// established tells whether a host has a TCP socket on a port that is open, or
// waits for its FIN to arrive.
func established(t *testing.T, host *netns.Host, port int) bool {
	t.Helper()
	open := regexp.MustCompile(fmt.Sprintf(`:%04X [0-9A-F]+:[0-9A-F]{4} 0[14]`, port))
	return open.MatchString(host.Output(t, "cat", "/proc/net/tcp", "/proc/net/tcp6"))
}

// lateAnswer has the server ask somebody by UDP, who answers when the socket
// is closed, and if so said the connection table has lost it too.
func lateAnswer(forgotten bool) func(*testing.T, *grounds, bool) someone {
	return func(t *testing.T, g *grounds, v6 bool) someone {
		s := g.next(v6)
		resolver := netip.AddrPortFrom(s.addr, 53)
		conn, err := g.server.Dial(t.Context(), "udp", resolver.String(), "")
		if err != nil {
			t.Fatal(err)
		}
		_, err = conn.Write([]byte("?"))
		if err := errors.Join(err, conn.Close()); err != nil {
			t.Fatal(err)
		}
		if forgotten {
			forget(t, g.server)
		}
		answer := s.udp(0)
		answer.Target = conn.LocalAddr().(*net.UDPAddr).AddrPort()
		answer.Source = resolver
		g.far.Send(t, answer.Bytes())
		return s
	}
}

// exclusions are ports that are never tripwires.
func exclusions() []protection {
	excluded := func(make func(someone) []byte) func(*testing.T, *grounds, bool) someone {
		return func(t *testing.T, g *grounds, v6 bool) someone {
			s := g.next(v6)
			g.far.Send(t, make(s))
			return s
		}
	}
	listed := func(set, port string) []edit {
		element := " element inet nftsentry " + set + " { " + port + " }"
		return []edit{{do: "add" + element, undo: "delete" + element}}
	}
	syn := func(s someone) []byte { return s.tcp(packet.SYN, 443).Bytes() }
	fin := func(s someone) []byte { return s.tcp(packet.FIN, 443).Bytes() }
	udp := func(s someone) []byte { return s.udp(123).Bytes() }
	return []protection{
		{name: "excluded/SYN", offend: excluded(syn), rules: listed("watch_tcp", "443")},
		{name: "excluded/FIN", offend: excluded(fin), rules: listed("watch_tcp", "443")},
		{name: "excluded/UDP", offend: excluded(udp), rules: listed("watch_udp", "123")},
		{name: "excluded/SYN to a decoy", offend: excluded(syn), rules: listed("decoy_tcp", "443")},
	}
}

// land is what comes from the very address that it goes to.
func land() []protection {
	return []protection{{name: "from the address that it goes to", host: true, rules: []edit{
		{chain: "sense_port", rule: `@ignored[46] |^fib saddr type local `},
	},
		offend: func(t *testing.T, g *grounds, v6 bool) someone {
			s := anyone(itself[v6])
			g.near.Send(t, s.tcp(packet.SYN, g.port("sense_port")).Bytes())
			return s
		}}}
}

// reverse is a packet in the name of somebody who is behind another interface.
func reverse() protection {
	return protection{name: reversePath, rules: []edit{elsewhere}, offend: func(t *testing.T, g *grounds, v6 bool) someone {
		s := anyone(fmt.Sprintf("172.30.0.%d", 100+g.ports%100))
		if v6 {
			s = anyone("2001:db8:31::2")
		}
		g.near.Send(t, s.tcp(packet.SYN, g.port("sense_port")).Bytes())
		return s
	}}
}

// sessions are those that make no peer, or not of everybody.
func sessions() []protection {
	i := 0
	return []protection{
		{name: "session with a container", guilty: true, rules: []edit{{chain: "sense_session", rule: `^fib daddr type != local return`}},
			offend: func(t *testing.T, g *grounds, v6 bool) someone {
				s := g.next(v6)
				converse(t, g.client, s.addr.String(), inside[v6], "inside")
				g.far.Send(t, s.tcp(packet.SYN, g.port("sense_port")).Bytes())
				return s
			}},
		{name: "neighbour with a session", only: "IPv6", rules: []edit{{chain: "judge_near", rule: `@peers6`}},
			offend: func(t *testing.T, g *grounds, _ bool) someone {
				s := neighbour(i)
				i++
				converse(t, g.router, s.addr.String(), server6, "welcome")
				g.neighbour.Send(t, s.tcp(packet.SYN, g.port("sense_port")).Bytes())
				return s
			}},
		{name: "neighbour of a neighbour with a session", only: "IPv6", guilty: true, offend: func(t *testing.T, g *grounds, _ bool) someone {
			s := near(g.ports, true)
			g.neighbour.Send(t, s.tcp(packet.SYN, g.port("sense_port")).Bytes())
			return s
		}},
		{name: "first address of the link", only: "IPv6", rules: []edit{
			{chain: "count_near", rule: `== :: return`},
		}, offend: func(t *testing.T, g *grounds, _ bool) someone {
			s := anyone("2001:db8:9::")
			g.neighbour.Send(t, s.tcp(packet.SYN, g.port("sense_port")).Bytes())
			return s
		}},
	}
}

// provenPeer shows that a session protects from what can be forged, and from
// nothing else.
func (g *grounds) provenPeer(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		s := g.next(v6)
		converse(t, g.client, s.addr.String(), s.server.String(), "welcome")
		port := g.port("divert")
		if _, err := touch(g.client, s.addr.String(), s.server.String(), int(port)); err != nil {
			t.Errorf("a decoy does not answer: %v", err)
		}
		want := api.Block{
			Source: s.source, Port: port, Protocol: "tcp", Kind: "connect", Evidence: "proven", Origin: "decoy",
			Comment: fmt.Sprintf("tcp/%d connect", port),
		}
		b := g.d.bySource(s)[s.source]
		want.Since, want.Until = b.Since, b.Since.Add(10*time.Minute)
		if b != want {
			t.Errorf("listed as\n%+v, want\n%+v", b, want)
		}
		if !s.in(g.d.nftSet(s.set())) {
			t.Error("not blocked in the kernel")
		}
	}
}
