//go:build bench

package bench

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"nftsentry/integration/packet"
)

// benchFramed has a forger send SYNs in the name of hosts that have done
// nothing, one of which has a session open with the server, and no flood. It
// reports whether the tool notices scans at all, or is none.
func benchFramed(t *testing.T, r *recorder, g guard) bool {
	t.Helper()
	w := newWorld(t)
	echo(t, w.server, 80)
	echo(t, w.server, 22)
	tool := g.start(t, w.server)
	if g.name != unguarded.name && len(tool.ports)+len(tool.closed) == 0 {
		return false
	}
	const known4 = "10.8.2.3"
	w.client.Addr(t, "eth0", stranger4+"/16", known4+"/16")
	session, err := w.client.Dial(t.Context(), "tcp", server4+":22", known4)
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	forger := packet.Open(t, w.router)
	for _, host := range []string{stranger4, known4} {
		if ok, _ := w.reaches(host); !ok || !answers(session) {
			t.Fatalf("no answer to %s before anything has happened", host)
		}
		frame(t, forger, host, tool)
	}
	time.Sleep(time.Second + g.lag + g.lag/2)

	kase := fmt.Sprintf("%d SYNs in the name of a third host", len(decoyPorts))
	add := func(measure string, cut bool) {
		t.Helper()
		r.add(kase, g.name, measure, "", one(cut))
		if cut {
			r.add(kase, g.name, measure+" for", "s", g.lasts)
		}
	}
	reached, _ := w.reaches(stranger4)
	add("a stranger is cut off", !reached)
	reached, _ = w.reaches(known4)
	add("one with a session is cut off", !reached)
	add("its session is cut off", !answers(session))
	return true
}

// frame sends SYNs in the name of a host to what has the tool block it, and to
// other ports where tools wait for a scan.
func frame(t testing.TB, forger *packet.Sender, host string, tool *running) {
	t.Helper()
	for i, port := range slices.Concat(tool.closed, tool.ports, decoyPorts)[:len(decoyPorts)] {
		forger.Send(t, packet.TCP{
			Source: netip.AddrPortFrom(netip.MustParseAddr(host), 40000+uint16(i)),
			Target: netip.AddrPortFrom(netip.MustParseAddr(server4), port), Flags: packet.SYN,
		}.Bytes())
	}
}

// answers reports whether the other side of a session sends back what it gets.
func answers(session net.Conn) bool {
	_ = session.SetDeadline(time.Now().Add(giveUp))
	if _, err := session.Write([]byte("?")); err != nil {
		return false
	}
	n, err := session.Read(make([]byte, 16))
	return err == nil && n > 0
}
