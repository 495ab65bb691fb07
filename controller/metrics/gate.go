package metrics

import (
	"net"
	"sync"
	"time"
)

// Limits of the gate. Who finds it full has the oldest connection closed, and is
// not refused itself: crowds of clients that idle or do not read keep nobody out.
const (
	maxConns = 32
	grace    = 20 * time.Millisecond // that every connection has
)

// A gate bounds how many connections are open at once.
type gate struct {
	net.Listener

	mu    sync.Mutex
	conns []*gateConn // the oldest first; guarded by mu
}

func newGate(l net.Listener) *gate { return &gate{Listener: l} }

// Accept returns the next connection, in the place of the oldest one if there
// are too many.
func (g *gate) Accept() (net.Conn, error) {
	conn, err := g.Listener.Accept()
	if err != nil {
		return nil, err
	}
	for {
		oldest, wait := g.oldest()
		if oldest == nil {
			break
		}
		time.Sleep(wait)
		_ = oldest.Close()
	}
	c := &gateConn{Conn: conn, gate: g, since: time.Now()}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.conns = append(g.conns, c)
	return c, nil
}

// oldest is the connection that has to go, and what it has left of its grace;
// nil if there is room.
func (g *gate) oldest() (*gateConn, time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.conns) < maxConns {
		return nil, 0
	}
	return g.conns[0], grace - time.Since(g.conns[0].since)
}

func (g *gate) remove(c *gateConn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, other := range g.conns {
		if other == c {
			g.conns = append(g.conns[:i], g.conns[i+1:]...)
			return
		}
	}
}

// A gateConn is a connection that the gate has let in.
type gateConn struct {
	net.Conn
	gate  *gate
	since time.Time
}

// Close closes the connection, and gives its place to another.
func (c *gateConn) Close() error {
	c.gate.remove(c)
	return c.Conn.Close()
}

// CloseWrite lets net/http end an answer without losing it, where the client
// has sent more than was read.
func (c *gateConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
