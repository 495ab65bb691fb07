//go:build bench

package bench

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"nftsentry/integration/netns"
)

// What the server really serves. All else is closed.
var (
	tcpServices = []uint16{22, 80, 443, 3306, 8080, 50000}
	udpServices = []uint16{123, 500}
)

// servicesFor are the services among the ports of a scan.
func servicesFor(s scanner) []uint16 {
	services := tcpServices
	if s.udp {
		services = udpServices
	}
	return slices.DeleteFunc(slices.Clone(services), func(port uint16) bool { return int(port) > s.last })
}

// leakEnv, if it is "full", has all kinds of scans at all speeds, in both orders
// and of all ports, which takes an hour.
const leakEnv = "NFTSENTRY_BENCH_LEAK"

const leakRounds = 5

// TestBenchLeak counts of how many ports scanners learn the true state, and how
// many of the services they find, until they are cut off and for two seconds
// after that, in the answers that pass the router: SYN and ACK, or a datagram,
// from a service; a reset, or an ICMP message that the port is unreachable, from
// a closed port. Each scan comes from an address of its own.
//
// What comes before a guard has reason to block is the scanner's luck: nmap asks
// the ports that are most often open first, unless it is told to go in order.
// So what it learns by probes after the one that gives the reason counts apart.
// FIN, NULL and XMAS scans get no answers from services. Datagrams are no
// reason for nftsentry unless it is told to watch their ports, so it is here a
// second time as it is then. Nor is a scan without connections for whoever has
// had a session on port 22 within the hour.
func TestBenchLeak(t *testing.T) {
	r := record(t, "leak")
	for round := range leakRounds {
		for _, g := range leakGuards() {
			scanners := scannersFor(g, round)
			if len(scanners) == 0 {
				continue
			}
			each(t, []guard{g}, func(t *testing.T, g guard) { leak(t, r, g, scanners) })
		}
	}
}

// udpSentry is nftsentry that notices datagrams, as its reference says to begin.
var udpSentry = sentryWith("nftsentry, UDP watched", "[udp]\nwatch = \"1-1024\"\n")

// leakGuards are all that notice scans, and the floor.
func leakGuards() []guard {
	return slices.DeleteFunc(slices.Insert(all(), 2, udpSentry), func(g guard) bool { return g.name == "sshguard" })
}

// scannersFor are the scans that a guard has in a round. What is not guarded is
// the same each time; Portsentry does not guard IPv6, which one scan shows. Tools
// that take seconds have but a few.
func scannersFor(g guard, round int) []scanner {
	return slices.DeleteFunc(scanners(), func(s scanner) bool {
		switch g.name {
		case unguarded.name:
			return round > 0
		case sentry.name:
			return s.udp && round > 0
		case udpSentry.name:
			return !s.udp
		case "psad", "fail2ban":
			return !s.core || round > 1
		}
		return s.ipv6 && (round > 0 || !s.core)
	})
}

// scanners are all scans.
func scanners() (all []scanner) {
	add := func(s scanner, families ...bool) {
		for _, s.ipv6 = range families {
			all = append(all, s)
		}
	}
	const v4, v6 = false, true
	nmap := func(last int, flags ...string) scanner {
		s := scanner{name: "nmap", tool: append([]string{"nmap"}, flags...), last: last, limit: 15 * time.Second}
		for _, flag := range flags {
			s.name += " " + flag
		}
		if slices.Contains(flags, "-sU") { // the kernel sends an ICMP message a second
			s.udp, s.limit = true, 3*time.Second
		}
		return s
	}
	flood := func(rate, last int) scanner {
		return scanner{name: fmt.Sprintf("SYNs at %d/s in random order", rate), rate: rate, last: last, stateless: true, limit: 15 * time.Second}
	}
	masscan := func(rate, last int) scanner {
		flag := fmt.Sprint(rate)
		return scanner{name: "masscan --rate " + flag, tool: []string{"masscan", "--rate", flag}, last: last, stateless: true, limit: 15 * time.Second}
	}
	core := func(s scanner) scanner { s.core = true; return s }
	if os.Getenv(leakEnv) == "full" {
		for _, last := range []int{1024, 65535} {
			for _, kind := range []string{"-sS", "-sT", "-sF", "-sN", "-sX", "-sU"} {
				for _, timing := range []string{"-T3", "-T4", "-T5"} {
					add(core(nmap(last, kind, timing)), v4, v6)
					add(nmap(last, kind, timing, "-r"), v4, v6)
				}
			}
			for _, rate := range []int{1000, 10_000} {
				add(core(masscan(rate, last)), v4)
				add(core(flood(rate, last)), v4, v6)
			}
		}
		return all
	}
	add(core(nmap(1024, "-sS", "-T4")), v4, v6)
	add(core(nmap(1024, "-sS", "-T4", "-r")), v4)
	add(nmap(1024, "-sS", "-T4", "-r"), v6)
	add(nmap(1024, "-sS", "-T3"), v4)
	add(nmap(1024, "-sS", "-T5"), v4)
	add(nmap(65535, "-sS", "-T4"), v4, v6)
	add(core(nmap(1024, "-sT", "-T4")), v4)
	add(nmap(1024, "-sT", "-T4"), v6)
	known := nmap(1024, "-sS", "-T4")
	known.session = true
	add(known, v4)
	for _, kind := range []string{"-sF", "-sN", "-sX", "-sU"} {
		add(nmap(1024, kind, "-T4"), v4, v6)
	}
	add(core(masscan(1000, 1024)), v4)
	add(masscan(10_000, 1024), v4)
	add(flood(1000, 1024), v4, v6)
	add(flood(10_000, 1024), v4, v6)
	return all
}

// leak has a guard meet some scanners.
func leak(t *testing.T, r *recorder, g guard, scanners []scanner) {
	w := newWorld(t)
	serveAll(t, w.server)
	s := newStage(t, w, g.start(t, w.server))
	views := make([]*view, len(scanners))
	for i, sc := range scanners {
		views[i] = s.run(t, sc)
		if g.name == sentry.name && !sc.udp && !sc.session && !views[i].cut() {
			t.Errorf("%s: nftsentry has not blocked", sc)
		}
	}
	s.close(t)
	if strings.HasPrefix(g.name, "portsentry") && !slices.ContainsFunc(views, (*view).cut) {
		t.Errorf("%s has not blocked at all", g.name)
	}
	for i, sc := range scanners {
		keep(r, g, sc, views[i])
	}
}

// keep records what a scan has come to.
func keep(r *recorder, g guard, sc scanner, v *view) {
	r.t.Helper()
	l, kase := v.lesson(), sc.String()
	if answersTell(sc) {
		r.add(kase, g.name, fmt.Sprintf("services found of %d", len(v.services)), "", float64(l.services))
	}
	r.add(kase, g.name, "ports learnt", "", float64(l.services+l.closed))
	r.add(kase, g.name, "closed ports that posed as open", "", float64(l.posing))
	r.add(kase, g.name, "cut off", "", float64(count(v.cut())))
	r.add(kase, g.name, "time to the last new answer", "ms", milliseconds(v.last.Sub(v.began)))
	if v.trip.watched == nil || sc.udp {
		return
	}
	r.add(kase, g.name, "watched ports learnt", "", float64(l.tripwires))
	if v.trip.over() {
		r.add(kase, g.name, "services found by later probes", "", float64(l.lateServices))
		r.add(kase, g.name, "ports learnt by later probes", "", float64(l.lateServices+l.lateClosed))
	}
}

// answersTell reports whether services answer such a scan.
func answersTell(s scanner) bool {
	return !slices.ContainsFunc(s.tool, func(flag string) bool { return slices.Contains([]string{"-sF", "-sN", "-sX"}, flag) })
}

// serveAll has the server serve by both families.
func serveAll(t testing.TB, server *netns.Host) {
	t.Helper()
	for _, port := range tcpServices {
		l, err := server.Listen("tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		go func() {
			for conn, err := l.Accept(); err == nil; conn, err = l.Accept() {
				_ = conn.Close()
			}
		}()
	}
	for _, port := range udpServices {
		for _, addr := range []string{server4, server6} {
			c, err := server.ListenPacket("udp", netip.AddrPortFrom(netip.MustParseAddr(addr), port).String())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = c.Close() })
			go mirror(c)
		}
	}
}

// mirror sends datagrams back until the socket is closed.
func mirror(c net.PacketConn) {
	buf := make([]byte, 2048)
	for n, from, err := c.ReadFrom(buf); err == nil; n, from, err = c.ReadFrom(buf) {
		_, _ = c.WriteTo(buf[:n], from)
	}
}
