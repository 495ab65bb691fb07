package api

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// Limits of the gate. Whoever is above them has the oldest of its kind closed,
// and is not refused itself.
const (
	maxWaiting   = 512                   // connections whose request is not complete
	maxAnswering = 32                    // connections that have not read their answer
	grace        = 20 * time.Millisecond // that every client has to send its request
	retry        = 10 * time.Millisecond // after the host was short of something
)

// A phase is what a connection waits for.
type phase int

const (
	waiting   phase = iota // for the rest of a request
	working                // for the daemon
	answering              // for the client to read
)

// A gate accepts connections from those who have a right to the socket, and
// keeps those that do nothing from keeping out others.
type gate struct {
	*net.UnixListener
	log  *zap.Logger
	self int // user that may come, besides root
	gid  int // group that may come, -1 for none
	most int // connections that may wait

	patience time.Duration // with clients that do not send, or do not read
	warned   time.Time     // of a shortage; only for who calls Accept

	mu    sync.Mutex
	conns map[*gateConn]struct{} // guarded by mu
}

func newGate(l *net.UnixListener, gid int, log *zap.Logger) *gate {
	g := &gate{UnixListener: l, log: log, self: os.Geteuid(), gid: gid, most: maxWaiting, patience: patience, conns: make(map[*gateConn]struct{})}
	var files unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &files) == nil {
		g.most = int(min(maxWaiting, max(files.Cur/4, 1)))
	}
	return g
}

// Accept returns the next connection of somebody who has a right to one. It
// waits while the host is short of files or memory.
func (g *gate) Accept() (net.Conn, error) {
	for {
		conn, err := g.AcceptUnix()
		switch {
		case isShortage(err):
			g.starve(err)
		case err != nil:
			return nil, err
		case g.refuses(conn):
			_ = conn.Close()
		default:
			return g.admit(conn), nil
		}
	}
}

// starve closes the oldest connection that waits, and waits before the next
// try when the host is short of something.
func (g *gate) starve(err error) {
	if time.Since(g.warned) > time.Minute {
		g.warned = time.Now()
		g.log.Warn("control socket cannot accept", zap.Error(err))
	}
	g.closeOldest(waiting, 0)
	time.Sleep(retry)
}

func isShortage(err error) bool {
	for _, e := range []unix.Errno{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// refuses tells whether a connection comes from somebody without a right to
// it, and tells the client. Nothing is read from it.
func (g *gate) refuses(conn *net.UnixConn) bool {
	p, err := peerOf(conn)
	if err == nil && p.may(g.self, g.gid) {
		return false
	}
	g.log.Debug("control connection refused", zap.Object("peer", p), zap.Error(err))
	text := "no right to use the control socket: run as root"
	if g.gid >= 0 {
		text += ", or as a member of control.group"
	}
	body := Problem{text}.encode()
	_ = conn.SetWriteDeadline(time.Now().Add(grace))
	_, _ = fmt.Fprintf(conn, "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		http.StatusForbidden, http.StatusText(http.StatusForbidden), len(body), body)
	return true
}

// admit takes a connection in, in the place of the oldest one if there are too
// many, which gets its grace first.
func (g *gate) admit(conn *net.UnixConn) *gateConn {
	c := &gateConn{Conn: conn, gate: g}
	for {
		wait := g.closeOldest(waiting, g.most-1)
		if wait <= 0 {
			break
		}
		time.Sleep(wait)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	c.phase, c.since = waiting, time.Now()
	g.conns[c] = struct{}{}
	return c
}

// closeOldest closes the oldest connection in a phase if there are more than
// most, or returns how long it still has.
func (g *gate) closeOldest(p phase, most int) time.Duration {
	g.mu.Lock()
	var oldest *gateConn
	n := 0
	for c := range g.conns {
		if c.phase != p {
			continue
		}
		n++
		if oldest == nil || c.since.Before(oldest.since) {
			oldest = c
		}
	}
	if n <= most {
		g.mu.Unlock()
		return 0
	}
	if wait := grace - time.Since(oldest.since); wait > 0 && p == waiting {
		g.mu.Unlock()
		return wait
	}
	delete(g.conns, oldest) // it can start nothing any more
	g.mu.Unlock()
	_ = oldest.Conn.Close()
	return 0
}

// A gateConn is a connection that the gate has let in.
type gateConn struct {
	net.Conn
	gate *gate

	patience time.Duration // with a client that reads nothing; 0 for the gate's, set before the answer

	phase phase     // guarded by gate.mu
	since time.Time // when the phase began, or the client last read; guarded by gate.mu
}

// enter begins a phase. It reports whether the connection is still open: one
// that is closed by then is not worked for.
func (c *gateConn) enter(p phase) bool {
	c.gate.mu.Lock()
	_, open := c.gate.conns[c]
	c.phase, c.since = p, time.Now()
	c.gate.mu.Unlock()
	if p == answering {
		c.gate.closeOldest(p, maxAnswering)
	}
	return open
}

// enterFor is enter for an answer that has no end, and a client that may rest
// while it reads.
func (c *gateConn) enterFor(p phase, patience time.Duration) bool {
	c.patience = patience
	return c.enter(p)
}

// Write gives the client a while to read each part of an answer.
func (c *gateConn) Write(b []byte) (n int, err error) {
	const part = 64 << 10
	for chunk := range slices.Chunk(b, part) {
		if err := c.SetWriteDeadline(time.Now().Add(cmp.Or(c.patience, c.gate.patience))); err != nil {
			return n, err
		}
		m, err := c.Conn.Write(chunk)
		n += m
		if err != nil {
			return n, err
		}
		c.progress()
	}
	return n, nil
}

func (c *gateConn) progress() {
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	if c.phase == answering {
		c.since = time.Now()
	}
}

// Close closes the connection, and gives its place to another.
func (c *gateConn) Close() error {
	c.gate.mu.Lock()
	delete(c.gate.conns, c)
	c.gate.mu.Unlock()
	return c.Conn.Close()
}
