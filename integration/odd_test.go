package integration

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"nftsentry/controller/api"
	"nftsentry/integration/netns"
	"nftsentry/integration/packet"
)

// A crowd is a world whose client answers for whole networks, so that a test
// has as many sources as it likes.
type crowd struct {
	*world
	far, near *packet.Sender // on the client, and on the router
	neighbour *packet.Sender // on the router, by its link to the server alone
	people    int            // how many there have been
}

// The networks of a crowd. Each IPv6 source has a /64 of its own.
const crowd4, crowd6 = "10.7.0.0/16", "2001:db8:a::/48"

func newCrowd(t testing.TB) *crowd {
	t.Helper()
	w := newWorld(t)
	c := &crowd{world: w, far: packet.Open(t, w.client), near: packet.Open(t, w.router), neighbour: packet.Open(t, w.router)}
	c.neighbour.Bind(t, "srv")
	w.router.Route(t, crowd4, client4)
	w.router.Route(t, crowd6, client6)
	ip := netns.Tool(t, "ip")
	w.client.Output(t, ip, "route", "add", "local", crowd4, "dev", "lo")
	w.client.Output(t, ip, "-6", "route", "add", "local", crowd6, "dev", "lo")
	w.client.Sysctl(t, "net.ipv6.ip_nonlocal_bind", "1")
	return c
}

// A someone is one source: a host of the crowd, or anything that a packet
// says it comes from.
type someone struct {
	addr   netip.Addr
	source string // as listed
	server netip.Addr
}

// onLink is where IPv6 sources are told apart by address, not by /64.
var onLink = regexp.MustCompile(`^(2001:db8:9:|2001:db8:10:|fe80:)`)

func anyone(address string) someone {
	s := someone{netip.MustParseAddr(address), address, netip.MustParseAddr(server4)}
	if s.addr.Is6() {
		s.server = netip.MustParseAddr(server6)
	}
	if s.addr.Is6() && !onLink.MatchString(address) {
		s.source = netip.PrefixFrom(s.addr, 64).Masked().String()
	}
	return s
}

// next is somebody who has not been there yet.
func (c *crowd) next(v6 bool) someone {
	c.people++
	if !v6 {
		return anyone(fmt.Sprintf("10.7.%d.%d", c.people/250, 1+c.people%250))
	}
	return anyone(fmt.Sprintf("2001:db8:a:%x::2", c.people))
}

// key is the source as a set has it.
func (s someone) key() string { return strings.TrimSuffix(s.source, "/64") }

// set is the set of blocked hosts that may have the source.
func (s someone) set() string {
	if s.addr.Is4() {
		return "blocked4"
	}
	return "blocked6"
}

// in tells whether the source is in what nft(8) lists of a set.
func (s someone) in(listed string) bool {
	return regexp.MustCompile(`[\s{]` + regexp.QuoteMeta(s.key()) + `\s`).MatchString(listed)
}

// tcp is a segment from a port of a source to one of the server.
func (s someone) tcp(flags packet.Flags, port uint16) packet.TCP {
	return packet.TCP{
		Source: netip.AddrPortFrom(s.addr, 40000), Target: netip.AddrPortFrom(s.server, port), Flags: flags, Seq: 1, Ack: 0,
	}
}

// udp is a datagram from a source to a port of the server.
func (s someone) udp(port uint16) packet.UDP {
	return packet.UDP{Source: netip.AddrPortFrom(s.addr, 40000), Target: netip.AddrPortFrom(s.server, port), Payload: []byte("x")}
}

// settle waits until the server has judged all that was sent before: it judges
// in order, and last somebody who scans. It returns that one, and the set of
// those who are blocked.
func (c *crowd) settle(t testing.TB, p *program, v6 bool) (guilty someone, listed string) {
	t.Helper()
	guilty = c.next(v6)
	for port := uint16(801); port <= 803; port++ {
		c.far.Send(t, guilty.tcp(packet.SYN, port).Bytes())
	}
	eventually(t, "a scan is noticed", patience, func() bool {
		listed = p.nftSet(guilty.set())
		return guilty.in(listed)
	})
	return guilty, listed
}

// An oddity is a kind of packet as a scanner sends it, and what it leaves on record.
type oddity struct {
	name  string
	make  func(someone, uint16) [][]byte
	ports [3]uint16
	block string // protocol and kind on record, "" if none comes
	port  bool   // is on record too
	only6 bool
	only4 bool
}

// watched and lured are ports of the two kinds of tripwires.
var watched, lured = [3]uint16{101, 202, 1024}, [3]uint16{2323, 31337, 54320}

func segment(flags packet.Flags) func(someone, uint16) [][]byte {
	return func(s someone, port uint16) [][]byte { return [][]byte{s.tcp(flags, port).Bytes()} }
}

// changed is a SYN with something about it.
func changed(change func(*packet.TCP)) func(someone, uint16) [][]byte {
	return func(s someone, port uint16) [][]byte {
		p := s.tcp(packet.SYN, port)
		change(&p)
		return [][]byte{p.Bytes()}
	}
}

func datagram(s someone, port uint16) [][]byte { return [][]byte{s.udp(port).Bytes()} }

// inFragments splits packets into fragments of a size, the last one first if so said.
func inFragments(size int, backwards bool, make func(someone, uint16) [][]byte) func(someone, uint16) [][]byte {
	return func(s someone, port uint16) [][]byte {
		var out [][]byte
		for _, f := range packet.Fragment(make(s, port)[0], size) {
			if backwards {
				out = append([][]byte{f}, out...)
			} else {
				out = append(out, f)
			}
		}
		return out
	}
}

// The options of IP are a record of the route, with room for two addresses;
// those of TCP the usual ones of a SYN, filled up.
var (
	recordRoute = []byte{7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	tcpOptions  = []byte{2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}
)

var oddities = []oddity{
	{name: "SYN", make: segment(packet.SYN), ports: watched, block: "tcp syn", port: true},
	{name: "SYN ECE CWR", make: segment(packet.SYN | packet.ECE | packet.CWR), ports: watched, block: "tcp syn", port: true},
	{name: "SYN PSH URG", make: segment(packet.SYN | packet.PSH | packet.URG), ports: watched, block: "tcp syn", port: true},
	{name: "FIN", make: segment(packet.FIN), ports: watched, block: "tcp fin", port: true},
	{name: "FIN URG", make: segment(packet.FIN | packet.URG), ports: watched, block: "tcp fin", port: true},
	{name: "FIN PSH", make: segment(packet.FIN | packet.PSH), ports: watched, block: "tcp fin", port: true},
	{name: "NULL", make: segment(0), ports: watched, block: "tcp null", port: true},
	{name: "PSH", make: segment(packet.PSH), ports: watched, block: "tcp null", port: true},
	{name: "URG", make: segment(packet.URG), ports: watched, block: "tcp null", port: true},
	{name: "ECE CWR", make: segment(packet.ECE | packet.CWR), ports: watched, block: "tcp null", port: true},
	{name: "XMAS", make: segment(packet.FIN | packet.PSH | packet.URG), ports: watched, block: "tcp xmas", port: true},
	{name: "SYN FIN", make: segment(packet.SYN | packet.FIN), ports: watched, block: "tcp syn-fin", port: true},
	{name: "all but ACK and RST", make: segment(^(packet.ACK | packet.RST)), ports: watched, block: "tcp syn-fin", port: true},
	{name: "UDP", make: datagram, ports: watched, block: "udp udp", port: true},
	{name: "half-open to decoys", make: segment(packet.SYN), ports: lured, block: "tcp syn", port: true},
	{name: "half-open to a decoy and two watched", make: segment(packet.SYN), ports: [3]uint16{31337, 300, 301}, block: "tcp syn", port: true},
	{name: "FIN to decoys", make: segment(packet.FIN), ports: lured, block: "tcp fin", port: true},
	{name: "NULL to decoys", make: segment(0), ports: lured, block: "tcp null", port: true},
	{name: "SYN FIN to decoys", make: segment(packet.SYN | packet.FIN), ports: lured, block: "tcp syn-fin", port: true},

	{name: "IP options", make: changed(func(p *packet.TCP) { p.IPOptions = recordRoute }), ports: watched, block: "tcp syn", port: true, only4: true},
	{name: "TCP options", make: changed(func(p *packet.TCP) { p.Options = tcpOptions }), ports: watched, block: "tcp syn", port: true},
	{name: "all options", make: changed(func(p *packet.TCP) { p.IPOptions, p.Options = recordRoute, tcpOptions }), ports: lured, block: "tcp syn", port: true, only4: true},
	{name: "SYN with data", make: changed(func(p *packet.TCP) { p.Payload = make([]byte, 1000) }), ports: watched, block: "tcp syn", port: true},
	{name: "flags in the second fragment", make: inFragments(8, false, segment(packet.FIN)), ports: watched, block: "tcp fin", port: true, only4: true},
	{name: "flags in the first of two fragments", make: inFragments(8, true, segment(packet.SYN)), ports: watched, block: "tcp syn", port: true, only4: true},
	{name: "options in the second fragment", make: inFragments(24, false, changed(func(p *packet.TCP) { p.Options = tcpOptions })), ports: watched, block: "tcp syn", port: true},
	{name: "data in the second fragment", make: inFragments(24, false, changed(func(p *packet.TCP) { p.Payload = make([]byte, 40) })), ports: watched, block: "tcp syn", port: true},
	{name: "data in the first of the fragments", make: inFragments(24, true, changed(func(p *packet.TCP) { p.Payload = make([]byte, 40) })), ports: lured, block: "tcp syn", port: true},
	{name: "UDP in fragments", make: inFragments(8, false, datagram), ports: watched, block: "udp udp", port: true},
	{name: "atomic fragment", make: inFragments(1000, false, segment(packet.SYN)), ports: watched, block: "tcp syn", port: true},

	{name: "extension headers", make: changed(func(p *packet.TCP) {
		*p = p.WithHeaders(packet.HopByHop(), packet.DestinationOptions(), packet.Routing(), packet.DestinationOptions())
	}), ports: watched, block: "tcp syn", port: true, only6: true},
	{name: "extension headers to decoys", make: changed(func(p *packet.TCP) { *p = p.WithExtensions(3) }), ports: lured, block: "tcp syn", port: true, only6: true},
	{name: "extension headers before UDP", make: func(s someone, port uint16) [][]byte {
		return [][]byte{s.udp(port).WithExtensions(2).Bytes()}
	}, ports: watched, block: "udp udp", port: true, only6: true},
	{name: "extension headers in fragments", make: inFragments(24, false, func(s someone, port uint16) [][]byte {
		return [][]byte{s.tcp(packet.FIN, port).WithHeaders(packet.HopByHop(), packet.DestinationOptions()).Bytes()}
	}), ports: watched, block: "tcp fin", port: true, only6: true},
	{name: "eight extension headers", make: changed(func(p *packet.TCP) { *p = p.WithExtensions(8) }), ports: watched, block: "tcp syn", port: true, only6: true},
	{name: "flags in the second fragment, which the kernel refuses", make: inFragments(8, false, segment(packet.FIN)), ports: watched, only6: true},
	{name: "as many extension headers as hide the port", make: changed(func(p *packet.TCP) { *p = p.WithExtensions(12) }), ports: watched, block: hiddenPort, only6: true},
	{name: "forty extension headers", make: changed(func(p *packet.TCP) { *p = p.WithExtensions(40) }), ports: lured, block: hiddenPort, only6: true},
}

// A trial is an oddity sent by one source.
type trial struct {
	oddity
	someone
}

// TestOddPackets sends every kind of packet from a source of its own to three
// distinct ports: the third blocks, and is dropped.
func TestOddPackets(t *testing.T) {
	c := newCrowd(t)
	heard := hear(t, c.client)
	d := guard(t, c.server, "udp.watch = \"1-1024\"\ntrigger.budget = \"1000/s\"")
	for _, f := range families {
		v6 := f.name == "IPv6"
		var trials []trial
		for _, o := range oddities {
			if v6 && !o.only4 || !v6 && !o.only6 {
				trials = append(trials, trial{o, c.next(v6)})
			}
		}
		for _, tt := range trials {
			c.far.Send(t, append(tt.make(tt.someone, tt.ports[0]), tt.make(tt.someone, tt.ports[1])...)...)
		}
		_, listed := c.settle(t, d.program, v6)
		for _, tt := range trials {
			if tt.in(listed) {
				t.Errorf("%s over %s: blocked after two ports", tt.name, f.name)
			}
			c.far.Send(t, tt.make(tt.someone, tt.ports[2])...)
		}
		last, _ := c.settle(t, d.program, v6)
		blocks := d.bySource(last)
		answers := heard(f.set)
		for _, tt := range trials {
			t.Run(f.name+"/"+tt.name, func(t *testing.T) { tt.check(t, blocks, answers[tt.addr]) })
		}
	}
}

// hiddenPort is for a block whose port lies beyond what NFLOG shows of a packet.
const hiddenPort = "hidden"

// check compares what became of the source with what should.
func (tt trial) check(t *testing.T, blocks map[string]api.Block, answers int) {
	b, there := blocks[tt.source]
	if tt.block == "" {
		if there {
			t.Errorf("listed as %+v, want no block", b)
		}
		return
	}
	protocol, kind, _ := strings.Cut(tt.block, " ")
	var port uint16
	if tt.port {
		port = tt.ports[2]
	}
	comment := fmt.Sprintf("%s/%d %s", protocol, port, kind)
	if tt.block == hiddenPort {
		protocol, kind, comment = "", "", "port hidden by extension headers"
	}
	want := api.Block{
		Source: tt.source, Since: b.Since, Until: b.Since.Add(10 * time.Minute), Port: port, Protocol: protocol, Kind: kind,
		Evidence: "unproven", Origin: "kernel", Comment: comment,
	}
	if b != want {
		t.Errorf("listed as\n%+v, want\n%+v", b, want)
	}
	if answers != 2 {
		t.Errorf("%d packets came back for three probes, want 2: the third is dropped", answers)
	}
}

// bySource is list by source, as soon as the last one is on it: the daemon
// hears of blocks in the order in which the kernel makes them.
func (p *program) bySource(last someone) map[string]api.Block {
	p.t.Helper()
	var all map[string]api.Block
	eventually(p.t, "the last source is listed", patience, func() bool {
		all = make(map[string]api.Block)
		for _, b := range p.list() {
			all[b.Source] = b
		}
		_, there := all[last.source]
		return there
	})
	return all
}

// hear counts what comes to each address of a host, but for neighbour discovery.
func hear(t testing.TB, host *netns.Host) func(set string) map[netip.Addr]int {
	t.Helper()
	nft := netns.Tool(t, "nft")
	host.Output(t, nft, `
		table inet tap {
			set blocked4 { type ipv4_addr; flags dynamic; counter; }
			set blocked6 { type ipv6_addr; flags dynamic; counter; }
			chain in {
				type filter hook prerouting priority -500;
				icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert } accept
				add @blocked4 { ip daddr }
				add @blocked6 { ip6 daddr }
			}
		}`)
	counted := regexp.MustCompile(`(\S+) counter packets (\d+)`)
	return func(set string) map[netip.Addr]int {
		t.Helper()
		all := make(map[netip.Addr]int)
		for _, m := range counted.FindAllStringSubmatch(host.Output(t, nft, "list", "set", "inet", "tap", set), -1) {
			n, err := strconv.Atoi(m[2])
			if err != nil {
				t.Fatal(err)
			}
			all[netip.MustParseAddr(m[1])] = n
		}
		return all
	}
}

// TestOddInnocence sends what is no evidence, however many ports it touches.
func TestOddInnocence(t *testing.T) {
	c := newCrowd(t)
	d := guard(t, c.server, "tcp.watch = \"1-65535\"\nudp.watch = \"1-1024\"")
	ports := func(first uint16) []uint16 {
		var all []uint16
		for i := range uint16(150) {
			all = append(all, first+7*i)
		}
		return all
	}
	several := append(ports(1), append(ports(30000), watched[:]...)...)
	several = append(several, lured[:]...)
	tests := []struct {
		name  string
		flags packet.Flags
		ports []uint16
	}{
		{"ACK", packet.ACK, several},
		{"RST", packet.RST, several},
		{"SYN ACK", packet.SYN | packet.ACK, several},
		{"FIN ACK", packet.FIN | packet.ACK, several},
		{"RST ACK", packet.RST | packet.ACK, several},
		{"PSH ACK", packet.PSH | packet.ACK, several},
		{"FIN PSH URG ACK", packet.FIN | packet.PSH | packet.URG | packet.ACK, several},
		{"SYN RST", packet.SYN | packet.RST, several},
		{"all flags", ^packet.Flags(0), several},
		{"SYN to one port, again and again", packet.SYN, repeated(20, 500)},
		{"SYN to two ports, again and again", packet.SYN, repeated(20, 500, 23)},
		{"FIN to two ports, again and again", packet.FIN, repeated(20, 500, 23)},
	}
	var blocks map[string]api.Block
	for _, f := range families {
		v6 := f.name == "IPv6"
		people := make([]someone, len(tests))
		for i, tt := range tests {
			people[i] = c.next(v6)
			for _, port := range tt.ports {
				c.far.Send(t, people[i].tcp(tt.flags, port).Bytes())
			}
		}
		last, listed := c.settle(t, d.program, v6)
		blocks = d.bySource(last)
		for i, tt := range tests {
			if people[i].in(listed) {
				t.Errorf("%s over %s: blocked", tt.name, f.name)
			}
		}
	}
	if len(blocks) != len(families) {
		t.Errorf("blocked %v, want nobody but two who scan", blocks)
	}
}

// repeated is some ports n times.
func repeated(n int, ports ...uint16) []uint16 {
	var all []uint16
	for range n {
		all = append(all, ports...)
	}
	return all
}

// TestOddSources shows which IPv6 sources are one: the addresses of a /64, but
// not those of neighbours.
func TestOddSources(t *testing.T) {
	c := newCrowd(t)
	d := guard(t, c.server, "")
	const innocent = "2001:db8:9::4:1"
	c.router.Addr(t, "srv", innocent+"/64")
	var patient, hasty, lone []string // prefixes and addresses that are not blocked, and that are
	scan := func(s *packet.Sender, like string, addresses, ports int) {
		for i := range max(addresses, ports) {
			source := like
			if addresses > 1 {
				source = fmt.Sprintf(like, i+1)
			}
			s.Send(t, anyone(source).tcp(packet.SYN, uint16(600+i%ports)).Bytes())
		}
	}
	scan(c.far, "2001:db8:a:f001::%x", 20, 1)
	scan(c.far, "2001:db8:a:f002::%x", 20, 2)
	patient = append(patient, "2001:db8:a:f001::/64", "2001:db8:a:f002::/64")
	scan(c.far, "2001:db8:a:f003::%x", 3, 3)
	hasty = append(hasty, "2001:db8:a:f003::/64")
	for _, link := range []string{"2001:db8:9::", "fe80::"} {
		scan(c.neighbour, link+"1:%x", 20, 20)      // each of them one port
		scan(c.neighbour, link, 1, 20)              // the first address stands for all
		scan(c.neighbour, link+"2:1", 1, 3)         // one by one
		patient = append(patient, link+"/64", link) // the link
		lone = append(lone, link+"2:1")             // and its one scanner
		scan(c.neighbour, link+"3:1", 1, 2)         // not quite
		patient = append(patient, link+"3:1", link+"1:1")
	}
	last, _ := c.settle(t, d.program, true)
	blocks := d.bySource(last)
	for _, source := range patient {
		if b, there := blocks[source]; there {
			t.Errorf("blocked: %+v", b)
		}
	}
	for _, source := range append(hasty, lone...) {
		if b, there := blocks[source]; !there || b.Port != 602 {
			t.Errorf("%s: listed as %+v, want it blocked for port 602", source, b)
		}
	}
	if want := len(hasty) + len(lone) + 1; len(blocks) != want {
		t.Errorf("%d sources are blocked, want %d: %v", len(blocks), want, blocks)
	}
	if _, err := touch(c.router, innocent, server6, 22); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("a neighbour of a blocked neighbour: %v, want it refused", err)
	}
}
