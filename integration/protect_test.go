package integration

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"nftsentry/integration/netns"
	"nftsentry/integration/packet"
)

// A protection is a reason why somebody is not blocked. Each is tried with the
// table as it is, and again without the rules that make it: if nobody were
// blocked then either, the test could not fail.
type protection struct {
	name   string
	batch  string                                          // tried at once, as far as the rules are the same
	offend func(t *testing.T, g *grounds, v6 bool) someone // who would be blocked for it
	rules  []edit                                          // that protect
	bare   []edit                                          // of other protections, out of the way both times
	guilty bool                                            // the other way round: the rules have somebody blocked
	host   bool                                            // the daemon pardons, since it is the host's own
	only   string                                          // a family
}

// An edit changes the rules of some chains: both are regular expressions. A
// rule loses a part, or has another one in its place; without a part all of
// it goes. Or it is what nft(8) is told, to and fro.
type edit struct {
	chain, rule string
	part, with  string
	do, undo    string
}

// elsewhere is the last of all protections, and stands before many others.
var elsewhere = edit{chain: "convict", rule: `^fib saddr . iif oif missing return`}

const reversePath = "from where answers would not go"

// grounds are where protections are tried.
type grounds struct {
	*crowd
	d        *daemon
	loop     *packet.Sender // on the server itself
	side     *packet.Sender // on the router, by the link that is ignored
	ports    int            // how many there have been
	listener uint16         // the port behind all decoys
	spared   map[string]bool
	last     someone
}

// The resolvers of the server, and sources that it is told to ignore.
var (
	resolvers = map[bool]string{false: "10.8.0.53", true: "2001:db8:8::53"}
	gateways  = map[bool]string{false: router4, true: router6}
	itself    = map[bool]string{false: server4, true: server6}
	second    = map[bool]string{false: "10.9.0.3", true: "2001:db8:9::3"} // own addresses too
	third     = map[bool]string{false: "10.9.0.4", true: "2001:db8:9::4"}
	loopback  = map[bool]string{false: "127.0.0.1", true: "::1"}
	inside    = map[bool]string{false: "172.30.0.2", true: "2001:db8:30::2"} // the container
	sideways  = map[bool]string{false: "10.10.0.2", true: "2001:db8:10::2"}
)

// published is how firewalld forwards ports, which is later than Docker does it.
const published = `
	table inet docker {
		chain pre {
			type nat hook prerouting priority dstnat + 10
			tcp dport { 2999, 3999 } dnat ip to 172.30.0.2:80
			tcp dport { 2999, 3999 } dnat ip6 to [2001:db8:30::2]:80
			udp dport { 2999, 3999 } dnat ip to 172.30.0.2:53
			udp dport { 2999, 3999 } dnat ip6 to [2001:db8:30::2]:53
		}
	}`

// vigilant blocks for the first packet to any port but the excluded ones.
const vigilant = `
tcp.decoy = "2000-2999"
tcp.watch = "1-65535"
udp.watch = "1-65535"
trigger.ports = 1
trigger.budget = "1000/s"
ignore.sources = ["10.6.0.0/16", "2001:db8:b::/48"]
ignore.interfaces = ["wg0"]
`

// newGrounds starts the daemon while services listen that never get any
// traffic, and end then.
func newGrounds(t *testing.T) *grounds {
	t.Helper()
	g := &grounds{crowd: newCrowd(t), spared: make(map[string]bool)}
	netns.Link(t, g.server, g.router, "wg0", "wg", []string{sideways[false] + "/16", sideways[true] + "/64"}, []string{"10.10.0.1/16", "2001:db8:10::1/64"})
	g.loop, g.side = packet.Open(t, g.server), packet.Open(t, g.router)
	g.side.Bind(t, "wg")
	for i := range 4 {
		g.router.Addr(t, "srv", neighbour(i).addr.String()+"/64")
	}
	g.server.Addr(t, "eth0", second[false]+"/24", second[true]+"/64", third[false]+"/24", third[true]+"/64")
	g.server.Sysctl(t, "net.ipv4.conf.eth0.accept_local", "1") // and forged packets in its own name
	for _, conf := range []string{"all", "eth0"} {
		g.server.Sysctl(t, "net.ipv4.conf."+conf+".rp_filter", "0")
	}
	serve(t, g.server, ":22", "welcome")
	g.publish(t)
	resolve(t, resolvers[false], resolvers[true])

	var quiet []io.Closer
	for _, s := range quietServices {
		quiet = append(quiet, open(t, g.server, s.network, fmt.Sprintf(":%d", s.port)))
	}
	g.d = guard(t, g.server, vigilant)
	table := g.server.Output(t, netns.Tool(t, "nft"), "list", "chain", "inet", "nftsentry", "divert")
	if _, err := fmt.Sscanf(table[strings.LastIndex(table, ":"):], ":%d", &g.listener); err != nil {
		t.Fatalf("no port of the listener in %s", table)
	}
	for _, s := range quiet {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return g
}

// publish puts a container behind the server, which has sessions of its own.
func (g *grounds) publish(t *testing.T) {
	t.Helper()
	container := netns.New(t, "container")
	netns.Link(t, g.server, container, "docker0", "eth0", []string{"172.30.0.1/24", "2001:db8:30::1/64"}, []string{inside[false] + "/24", inside[true] + "/64"})
	container.Route(t, "default", "172.30.0.1")
	container.Route(t, "default", "2001:db8:30::1")
	g.router.Route(t, "172.30.0.0/24", server4)
	g.router.Route(t, "2001:db8:30::/64", server6)
	g.server.Forward(t)
	g.server.Route(t, "2001:db8:31::/64", inside[true])
	g.server.Output(t, netns.Tool(t, "nft"), published)
	serve(t, container, ":22", "inside")
}

// quietServices listen before the daemon starts, and never get any traffic.
var quietServices = []struct {
	network string
	port    uint16
}{{"tcp", 2998}, {"tcp", 3998}, {"udp", 3998}}

// open listens on a host, by TCP or UDP.
func open(t *testing.T, host *netns.Host, network, address string) io.Closer {
	t.Helper()
	var c io.Closer
	var err error
	if network == "udp" {
		c, err = host.ListenPacket(network, address)
	} else {
		c, err = host.Listen(network, address)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// neighbour is the i-th neighbour of the server that has an address, by IPv6.
func neighbour(i int) someone { return anyone(fmt.Sprintf("2001:db8:9::5:%d", i+1)) }

// resolve names the resolvers of all hosts. It mounts a file over that of the
// machine, which the tests' own mount namespace keeps to itself.
func resolve(t *testing.T, addresses ...string) {
	t.Helper()
	const path = "/etc/resolv.conf"
	file := filepath.Join(t.TempDir(), "resolv.conf")
	text := "nameserver " + strings.Join(addresses, "\nnameserver ") + "\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	// It may be a link into /run, which is empty here.
	if target, err := os.Readlink(path); err == nil {
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(path), target)
		}
		_, err := os.Stat(target)
		if errors.Is(err, os.ErrNotExist) {
			err = errors.Join(os.MkdirAll(filepath.Dir(target), 0o755), os.WriteFile(target, nil, 0o600))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mount(file, path, "", unix.MS_BIND, ""); err != nil {
		t.Fatalf("mount %s: %v", path, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", path, err)
		}
	})
}

// forget empties the connection table of a host, as "conntrack -F" does:
// IPCTNL_MSG_CT_DELETE without a tuple, of include/uapi/linux/netfilter/nfnetlink_conntrack.h.
func forget(t *testing.T, host *netns.Host) {
	t.Helper()
	const ctDelete = unix.NFNL_SUBSYS_CTNETLINK<<8 | 2
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: host.FD()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = c.Execute(netlink.Message{
		Header: netlink.Header{Type: ctDelete, Flags: netlink.Request | netlink.Acknowledge},
		Data:   []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0},
	})
	if err != nil {
		t.Fatalf("empty the connection table: %v", err)
	}
}

// port is one that nobody has touched yet: a decoy, or one that is only
// watched. The listener has just one.
func (g *grounds) port(chain string) uint16 {
	g.ports++
	if g.ports > 990 {
		panic("no ports are left but those that containers and services have")
	}
	switch chain {
	case "divert":
		return uint16(2000 + g.ports)
	case "hidden":
		return g.listener
	}
	return uint16(3000 + g.ports)
}

// A probe is a packet that would do if nothing protected its source.
type probe struct {
	name  string
	chain string // that decides whether it counts
	make  func(s someone, port uint16) []byte
}

// serves tells whether some service would take the packet.
func (p probe) serves() bool { return p.name != "FIN" && p.chain != "hidden" }

func (p probe) network() string {
	if p.name == "UDP" {
		return "udp"
	}
	return "tcp"
}

var probes = []probe{
	{"SYN", "sense_port", func(s someone, port uint16) []byte { return s.tcp(packet.SYN, port).Bytes() }},
	{"FIN", "sense_port", func(s someone, port uint16) []byte { return s.tcp(packet.FIN, port).Bytes() }},
	{"UDP", "sense_port", func(s someone, port uint16) []byte { return s.udp(port).Bytes() }},
	{"SYN to a decoy", "divert", func(s someone, port uint16) []byte { return s.tcp(packet.SYN, port).Bytes() }},
	{"SYN to the listener", "hidden", func(s someone, port uint16) []byte { return s.tcp(packet.SYN, port).Bytes() }},
}

// TestProtections tries each of them.
func TestProtections(t *testing.T) {
	g := newGrounds(t)
	var all []protection
	for _, p := range probes {
		all = append(all, p.all()...)
	}
	all = append(all, broadcasts()...)
	all = append(all, lateness()...)
	all = append(all, exclusions()...)
	all = append(all, sessions()...)
	all = append(all, land()...)
	all = append(all, reverse())
	g.run(t, "", all)
	t.Run("a peer that touches a decoy", g.provenPeer)

	// What was learnt of services outlives the daemon, and even the table.
	var former []protection
	for _, p := range probes {
		if p.serves() {
			former = append(former, p.former()[1:]...)
		}
	}
	g.d.end(unix.SIGKILL)
	g.d = g.d.program.run()
	g.run(t, "restart/", former)
	g.d.end(unix.SIGTERM)
	g.server.Output(t, netns.Tool(t, "nft"), "delete table inet nftsentry")
	g.d = g.d.program.run()
	g.run(t, "reboot/", former)
}

// An attempt is to have somebody blocked, over one family, with and without
// the rules.
type attempt struct {
	protection
	v6   bool
	with someone // who offends with the table as it is

	blocked [2]bool // with the rules, and without
}

func (a *attempt) name(prefix string) string {
	if a.v6 {
		return prefix + a.protection.name + "/IPv6"
	}
	return prefix + a.protection.name + "/IPv4"
}

// run tries protections over both families.
func (g *grounds) run(t *testing.T, prefix string, all []protection) {
	t.Helper()
	var attempts []*attempt
	for _, p := range all {
		if p.name != reversePath {
			p.bare = append(p.bare[:len(p.bare):len(p.bare)], elsewhere)
		}
		for _, v6 := range []bool{false, true} {
			if p.only == "" || v6 == (p.only == "IPv6") {
				attempts = append(attempts, &attempt{protection: p, v6: v6})
			}
		}
	}
	for _, some := range batches(attempts, func(a *attempt) string { return fmt.Sprint(a.bare) }) {
		g.tryWith(t, some)
	}
	for _, some := range batches(attempts, func(a *attempt) string { return fmt.Sprint(a.batch, a.bare, a.rules) }) {
		g.tryWithout(t, some)
	}
	for _, a := range attempts {
		t.Run(a.name(prefix), a.check)
	}
	blocks := g.d.bySource(g.last)
	for source := range g.spared {
		if b, there := blocks[source]; there {
			t.Errorf("blocked: %+v", b)
		}
	}
}

// batches are attempts that have the same key, in the order of the first ones.
func batches(attempts []*attempt, key func(*attempt) string) [][]*attempt {
	var all [][]*attempt
	index := make(map[string]int)
	for _, a := range attempts {
		i, there := index[key(a)]
		if !there {
			i = len(all)
			index[key(a)] = i
			all = append(all, nil)
		}
		all[i] = append(all[i], a)
	}
	return all
}

// check tells whether the rules protect, and nothing else does.
func (a *attempt) check(t *testing.T) {
	if a.blocked[0] != a.guilty {
		t.Errorf("with the table as it is, %s is blocked: %v", a.with.source, a.blocked[0])
	}
	if a.rules != nil && a.blocked[1] == a.guilty {
		t.Errorf("without the rules, blocked is %v too: this proves nothing", a.guilty)
	}
}

// tryWith makes attempts with the table as it is, but for what is in the way.
func (g *grounds) tryWith(t *testing.T, attempts []*attempt) {
	t.Helper()
	defer g.without(t, attempts[0].bare)()
	for i, victim := range g.offend(t, attempts, 0) {
		attempts[i].with = victim
		if !attempts[i].blocked[0] {
			g.spared[victim.source] = true
		}
	}
}

// tryWithout makes attempts without the rules.
func (g *grounds) tryWithout(t *testing.T, attempts []*attempt) {
	t.Helper()
	if attempts[0].rules == nil {
		return
	}
	defer g.without(t, slices.Concat(attempts[0].bare, attempts[0].rules))()
	victims := g.offend(t, attempts, 1)
	if attempts[0].host {
		g.pardon(t, victims)
		return
	}
	for _, victim := range victims { // the daemon has it on record too
		delete(g.spared, victim.source)
	}
}

// offend has somebody offend for each attempt, and notes who gets blocked.
func (g *grounds) offend(t *testing.T, attempts []*attempt, run int) []someone {
	t.Helper()
	victims := make([]someone, len(attempts))
	for i, a := range attempts {
		victims[i] = a.protection.offend(t, g, a.v6)
	}
	_, listed4 := g.settle(t, g.d.program, false)
	last, listed6 := g.settle(t, g.d.program, true)
	g.last = last
	for i, a := range attempts {
		a.blocked[run] = victims[i].in(listed4) || victims[i].in(listed6)
	}
	return victims
}

// pause stops the daemon, so that the kernel is alone.
func (d *daemon) pause(t *testing.T) {
	t.Helper()
	d.signal(t, unix.SIGSTOP)
	eventually(t, "the daemon has stopped", patience, func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", d.cmd.Process.Pid))
		return err == nil && strings.Contains(string(stat), ") T ")
	})
}

func (d *daemon) signal(t *testing.T, s unix.Signal) {
	t.Helper()
	if err := d.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// pardon has the daemon go on, and undo what the kernel has done.
func (g *grounds) pardon(t *testing.T, victims []someone) {
	t.Helper()
	g.d.signal(t, unix.SIGCONT)
	deadline := time.Now().Add(patience)
	for _, s := range victims {
		for s.in(g.d.nftSet(s.set())) {
			if time.Now().After(deadline) {
				t.Errorf("%s is the host's own, and stays blocked in the kernel", s.source)
				g.server.Output(t, netns.Tool(t, "nft"), "delete", "element", "inet", "nftsentry", s.set(), "{", s.key(), "}")
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// without makes edits, and returns what undoes them.
func (g *grounds) without(t *testing.T, edits []edit) (undo func()) {
	t.Helper()
	if len(edits) == 0 {
		return func() {}
	}
	nft := netns.Tool(t, "nft")
	g.d.pause(t) // or it would undo the edits
	table := g.server.Output(t, nft, "-t", "-a", "list", "table", "inet", "nftsentry")
	var to, fro []string
	for _, e := range edits {
		if e.chain == "" {
			to, fro = append(to, e.do), append(fro, e.undo)
			continue
		}
		there, back := e.commands(table)
		if len(there) == 0 {
			t.Errorf("no rule of a chain %q has %q", e.chain, e.rule)
		}
		to, fro = append(to, there...), append(fro, back...)
	}
	g.server.Output(t, nft, strings.Join(to, "\n"))
	return func() {
		g.server.Output(t, nft, strings.Join(fro, "\n"))
		g.d.signal(t, unix.SIGCONT)
	}
}

var (
	chainLine = regexp.MustCompile(`^\tchain (\S+) \{`)
	ruleLine  = regexp.MustCompile(`^\t\t(.*) # handle (\d+)$`)
)

// commands are those that make an edit to a table as nft(8) lists it, and
// those that fill its chains again.
func (e edit) commands(table string) (to, fro []string) {
	where, what := regexp.MustCompile("^("+e.chain+")$"), regexp.MustCompile(e.rule)
	name := ""
	for line := range strings.Lines(table) {
		line = strings.TrimRight(line, "\n")
		if m := chainLine.FindStringSubmatch(line); m != nil {
			if name = m[1]; where.MatchString(name) {
				fro = append(fro, "flush chain inet nftsentry "+name)
			}
			continue
		}
		m := ruleLine.FindStringSubmatch(line)
		if m == nil || !where.MatchString(name) {
			continue
		}
		fro = append(fro, "add rule inet nftsentry "+name+" "+m[1])
		switch {
		case !what.MatchString(m[1]):
		case e.part == "":
			to = append(to, "delete rule inet nftsentry "+name+" handle "+m[2])
		default:
			to = append(to, "replace rule inet nftsentry "+name+" handle "+m[2]+" "+strings.ReplaceAll(m[1], e.part, e.with))
		}
	}
	return to, fro
}
