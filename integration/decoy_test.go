package integration

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"nftsentry/integration/netns"
)

// TestNmapConnect scans with nmap, as real scanners do.
func TestNmapConnect(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			w := newWorld(t)
			serve(t, w.server, ":8080", "welcome")
			d := guard(t, w.server, "")
			args := []string{"-sT", "-n", "-Pn", "-r", "--max-retries", "0", "--host-timeout", "20s", "-p", "1-100,8080"}
			if strings.Contains(f.server, ":") {
				args = append(args, "-6")
			}
			out := w.client.Output(t, netns.Tool(t, "nmap"), append(args, f.server)...)
			if got := d.listed().Source; got != f.source {
				t.Errorf("blocked %s, want %s\n%s", got, f.source, out)
			}
			expectSilence(t, w.client, "", f.server, 8080)
			expectRead(t, w.router, "", f.server, 8080, "welcome")
		})
	}
}

// TestServiceOwnsItsPort starts a service on a decoy port while the daemon runs.
func TestServiceOwnsItsPort(t *testing.T) {
	for _, f := range families {
		for _, bind := range []string{"", f.server} {
			t.Run(fmt.Sprintf("%s bound to %q", f.name, bind), func(t *testing.T) {
				w := newWorld(t)
				d := guard(t, w.server, "")
				address := ":2323"
				if bind != "" {
					address = "[" + bind + "]:2323"
					if !strings.Contains(bind, ":") {
						address = bind + ":2323"
					}
				}
				serve(t, w.server, address, "welcome")
				for range 3 {
					expectRead(t, w.client, "", f.server, 2323, "welcome")
				}
				if got := d.sources(); len(got) != 0 {
					t.Errorf("clients of a service are blocked: %v", got)
				}
				if got := d.nftSet("served"); !strings.Contains(got, "tcp . 2323") {
					t.Errorf("the service is not known: %s", got)
				}
				_, _ = touch(w.client, "", f.server, 23)
				d.listed()
				expectSilence(t, w.client, "", f.server, 2323)
			})
		}
	}
}

// TestServiceRestarts shows that the clients of a service that is down for a
// moment are not blocked.
func TestServiceRestarts(t *testing.T) {
	w := newWorld(t)
	d := guard(t, w.server, "")
	l, err := w.server.Listen("tcp", ":2323")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := w.client.Dial(t.Context(), "tcp", server4+":2323", "")
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := touch(w.client, "", server4, 2323); err == nil {
		t.Error("the port of a service that is down answers")
	}
	time.Sleep(100 * time.Millisecond)
	if got := d.sources(); len(got) != 0 {
		t.Errorf("clients of a service that is down are blocked: %v", got)
	}
}

// TestContainer publishes ports of a container behind the server, as Docker
// does: no socket of the server has them.
func TestContainer(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			w := newWorld(t)
			container := netns.New(t, "container")
			netns.Link(t, w.server, container, "docker0", "eth0",
				[]string{"172.30.0.1/24", "2001:db8:30::1/64"}, []string{"172.30.0.2/24", "2001:db8:30::2/64"})
			w.server.Forward(t)
			container.Route(t, "default", "172.30.0.1")
			container.Route(t, "default", "2001:db8:30::1")
			serve(t, container, ":80", "from the container")
			nft := netns.Tool(t, "nft")
			w.server.Output(t, nft, "add table inet docker")
			w.server.Output(t, nft, "add chain inet docker pre { type nat hook prerouting priority dstnat; }")
			w.server.Output(t, nft, "add rule inet docker pre tcp dport { 1080, 8080 } dnat ip to 172.30.0.2:80")
			w.server.Output(t, nft, "add rule inet docker pre tcp dport { 1080, 8080 } dnat ip6 to [2001:db8:30::2]:80")
			d := guard(t, w.server, "") // 1080 is a decoy port by default

			for range 3 {
				expectRead(t, w.client, "", f.server, 1080, "from the container")
			}
			if got := d.sources(); len(got) != 0 {
				t.Errorf("clients of a container are blocked: %v", got)
			}
			_, _ = touch(w.client, "", f.server, 23)
			d.listed()
			expectSilence(t, w.client, "", f.server, 8080) // and the container is protected
		})
	}
}

// TestPassingTraffic shows that connections through a router that is guarded
// are none of its business.
func TestPassingTraffic(t *testing.T) {
	w := newWorld(t)
	serve(t, w.server, ":23", "a real telnet")
	d := guard(t, w.router, "")
	expectRead(t, w.client, "", server4, 23, "a real telnet")
	expectRead(t, w.client, "", server6, 23, "a real telnet")
	if got := d.sources(); len(got) != 0 {
		t.Errorf("blocked: %v", got)
	}
}

// TestRepliesFromBlocked shows that what the host begins itself goes on, also
// with a blocked source, and with a blocked router whose link-layer address
// has to be learnt again.
func TestRepliesFromBlocked(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			w := newWorld(t)
			serve(t, w.client, ":80", "hello server")
			d := guard(t, w.server, "ignore.host = false")
			d.must("block", f.source, router4, router6)
			link := w.server.Output(t, netns.Tool(t, "ip"), "-6", "neigh", "show")
			for line := range strings.Lines(link) {
				if a := strings.Fields(line)[0]; strings.HasPrefix(a, "fe80") {
					d.must("block", a)
				}
			}
			w.server.Output(t, netns.Tool(t, "ip"), "neigh", "flush", "all")
			for range 3 {
				expectRead(t, w.server, "", f.client, 80, "hello server")
			}
			serve(t, w.server, ":80", "welcome")
			expectSilence(t, w.client, "", f.server, 80)
		})
	}
}

// TestListenerStaysHidden shows that nothing is sent from the port of the decoy
// listener, also when connection tracking has forgotten a connection that a
// blocked scanner has reset.
func TestListenerStaysHidden(t *testing.T) {
	w := newWorld(t)
	d := guard(t, w.server, "tcp.port = 777")
	nft := netns.Tool(t, "nft")
	for _, rule := range []string{
		"add table inet seen",
		"add chain inet seen forward { type filter hook forward priority 0; }",
		"add rule inet seen forward iifname srv tcp sport 23 tcp flags fin counter",
		"add rule inet seen forward iifname srv tcp sport 777 counter",
	} {
		w.router.Output(t, nft, rule)
	}
	for _, f := range families {
		conn, err := w.client.Dial(t.Context(), "tcp", net.JoinHostPort(f.server, "23"), "")
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, f.source+" is blocked", patience, func() bool { return slices.Contains(d.sources(), f.source) })
		if err := conn.(*net.TCPConn).SetLinger(0); err != nil {
			t.Fatal(err)
		}
		_ = conn.Close() // a reset, as nmap leaves it
	}
	time.Sleep(5 * time.Second)
	seen := w.router.Output(t, nft, "list", "chain", "inet", "seen", "forward")
	if strings.Contains(seen, "sport 23 tcp flags fin counter packets 0") || !strings.Contains(seen, "sport 777 counter packets 0") {
		t.Errorf("want the end of connections from port 23, and nothing from port 777:\n%s", seen)
	}
}

// TestIgnored shows who is never blocked: whom the configuration names, and
// what belongs to the host, also what it has got since the start.
func TestIgnored(t *testing.T) {
	w := newWorld(t)
	d := guard(t, w.server, "tcp.banner = \"go away\"\nignore.sources = [\"10.8.0.0/28\", \"2001:db8:8::2\"]")
	for _, f := range families {
		for range 2 { // nor are they counted: the connection goes to the port itself, which is closed
			if _, err := touch(w.client, "", f.server, 23); err == nil {
				t.Errorf("a decoy answers an ignored source over %s", f.name)
			}
			if _, err := touch(w.router, "", f.server, 23); err == nil {
				t.Errorf("a decoy answers the gateway over %s", f.name)
			}
		}
	}
	if got := d.sources(); len(got) != 0 {
		t.Errorf("ignored sources are blocked: %v", got)
	}
	if r := d.command("block", client4); r.code != 1 || !strings.Contains(r.stderr, "10.8.0.2 is covered by 10.8.0.0/28 (ignore.sources): an ignored source is never blocked") {
		t.Errorf("block of an ignored source: %+v", r)
	}

	// Within a blocked prefix, ignored sources are spared.
	serve(t, w.server, ":80", "welcome")
	d.must("block", "10.8.0.0/16", "2001:db8:8::/48")
	expectRead(t, w.client, "", server4, 80, "welcome")
	expectRead(t, w.client, "", server6, 80, "welcome")
	d.must("unblock", "--all")

	// The gateway moves to an address that has just been blocked.
	w.router.Addr(t, "srv", "10.9.0.7/24")
	expectRead(t, w.router, "10.9.0.7", server4, 23, "go away")
	d.expectSources("10.9.0.7")
	w.server.Route(t, "default", "10.9.0.7")
	eventually(t, "the new gateway is let go", patience, func() bool { return len(d.list()) == 0 })
	if _, err := touch(w.router, "10.9.0.7", server4, 23); err == nil {
		t.Error("a decoy answers the new gateway")
	}
	if got := d.sources(); len(got) != 0 {
		t.Errorf("the new gateway is blocked: %v", got)
	}
}

// TestIgnoredInterface shows that nothing is noticed that arrives at an
// ignored interface.
func TestIgnoredInterface(t *testing.T) {
	w := newWorld(t)
	serve(t, w.server, ":80", "welcome")
	d := guard(t, w.server, "ignore.interfaces = [\"eth0\"]")
	for _, port := range []int{23, int(d.status().Decoys.Listener), 200, 201, 202} {
		if _, err := touch(w.client, "", server4, port); err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("port %d at an ignored interface: %v, want it refused", port, err)
		}
	}
	if s := d.status(); s.Watched.Probes != 0 || s.Decoys.Connections != 0 || s.Blocks.Live != 0 {
		t.Errorf("noticed at an ignored interface: %+v", s)
	}
	d.must("block", client4)
	expectRead(t, w.client, "", server4, 80, "welcome")
}

// TestLoopback shows that the host itself finds its decoy ports closed, even
// if its own addresses are not ignored.
func TestLoopback(t *testing.T) {
	w := newWorld(t)
	d := guard(t, w.server, "ignore.host = false\ntcp.banner = \"go away\"")
	for _, address := range []string{"127.0.0.1", "::1", server4, server6} {
		if _, err := touch(w.server, "", address, 23); err == nil {
			t.Errorf("a decoy answers the host itself at %s", address)
		}
	}
	if got := d.sources(); len(got) != 0 {
		t.Errorf("the host has blocked itself: %v", got)
	}
}

// TestPrefix6 shows that all addresses of a /64 are one source, but that
// neighbours are not.
func TestPrefix6(t *testing.T) {
	w := newWorld(t)
	d := guard(t, w.server, "trigger.connects = 2")
	var far, near []string
	for i := range 20 {
		far = append(far, fmt.Sprintf("2001:db8:8::1:%x", i+1))
		near = append(near, fmt.Sprintf("2001:db8:9::1:%x", i+1))
	}
	for i := range far {
		w.client.Addr(t, "eth0", far[i]+"/64")
		w.router.Addr(t, "srv", near[i]+"/64")
	}
	for _, a := range far {
		_, _ = touchQuickly(w.client, a, server6, 23)
	}
	d.expectSources("2001:db8:8::/64")
	for range 2 {
		for _, a := range near[:2] {
			_, _ = touchQuickly(w.router, a, server6, 23)
		}
	}
	d.expectSources("2001:db8:8::/64", near[0], near[1])
	expectNoDecoy := func(source string) {
		if _, err := touchQuickly(w.router, source, server6, 79); err != nil {
			t.Errorf("a neighbour of a blocked neighbour is cut off: %v", err)
		}
	}
	expectNoDecoy(near[2])
}

// TestServedFull shows that a service on a decoy port has its clients when no
// more services can be remembered, and that this is said.
func TestServedFull(t *testing.T) {
	w := newWorld(t)
	d := guard(t, w.server, "")
	var many []string
	for port := range 4096 {
		many = append(many, fmt.Sprintf("tcp . %d", 50000+port))
	}
	w.server.Output(t, netns.Tool(t, "nft"), "add element inet nftsentry served { "+strings.Join(many, ", ")+" }")
	serve(t, w.server, ":2323", "welcome")
	for range 3 {
		expectRead(t, w.client, "", server4, 2323, "welcome")
	}
	eventually(t, "status tells of it", patience, func() bool {
		s := d.status()
		return len(s.Problems) == 1 && strings.Contains(s.Problems[0], "a set of the kernel is full")
	})
	if got := d.sources(); len(got) != 0 {
		t.Errorf("clients of a service are blocked: %v", got)
	}
}
