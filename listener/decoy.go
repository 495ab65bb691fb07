package listener

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Limits of the decoy. What is above them is noticed all the same, but gets
// no banner.
const (
	maxConns          = 1024 // connections held open, in all
	maxConnsPerSource = 8    // and for one source, an IPv6 /64 counting as one
	patience          = time.Second
	maxRead           = 4096        // bytes that are read to nowhere
	userTimeout       = time.Second // how long the kernel sends again what is not acknowledged
)

// A DecoyConfig says where the decoy listens and what it says.
type DecoyConfig struct {
	// Port is where it listens, 1 to 65535; 0 takes a free one below 1024,
	// which no unprivileged process can take in its place.
	Port uint16
	// Avoid tells which ports the search for a free one leaves out.
	Avoid func(uint16) bool
	// Banner is sent to whoever connects; none if empty.
	Banner string
}

// A Decoy is the listening socket of all decoy ports.
type Decoy struct {
	log      *zap.Logger
	banner   atomic.Pointer[string]
	listener *net.TCPListener

	accepted, lost, starved atomic.Uint64

	mu      sync.Mutex
	total   int                  // connections held open; guarded by mu
	holding map[netip.Prefix]int // the same for each source; guarded by mu
}

// Where the search for a free port begins, going down, and where it ends.
const (
	FirstHidden = 1023
	LastHidden  = 512
)

// DecoyStats are counts since the decoy was opened.
type DecoyStats struct {
	Accepted uint64 // connections noticed
	Lost     uint64 // of these, events that nobody took in time
	Starved  uint64 // times that the host had no file or memory left for a connection
}

// OpenDecoy opens the socket, for IPv6 and IPv4 in one where the host has
// both. Connections wait in it until Run. The caller closes it.
func OpenDecoy(cfg DecoyConfig, log *zap.Logger) (*Decoy, error) {
	l, err := listen(cfg)
	if err != nil {
		return nil, err
	}
	d := &Decoy{log: log, listener: l, holding: make(map[netip.Prefix]int)}
	d.SetBanner(cfg.Banner)
	return d, nil
}

// SetBanner changes what is sent to whoever connects from now on.
func (d *Decoy) SetBanner(banner string) { d.banner.Store(&banner) }

func listen(cfg DecoyConfig) (*net.TCPListener, error) {
	if cfg.Port != 0 {
		l, err := listenOn(cfg.Port)
		if err != nil {
			return nil, fmt.Errorf("decoy listener: %w; set tcp.port to a free port, or to 0", err)
		}
		return l, nil
	}
	for port := uint16(FirstHidden); port >= LastHidden; port-- {
		if cfg.Avoid != nil && cfg.Avoid(port) {
			continue
		}
		l, err := listenOn(port)
		if errors.Is(err, unix.EADDRINUSE) {
			continue
		}
		if errors.Is(err, fs.ErrPermission) {
			return nil, fmt.Errorf("decoy listener: %w; a port below 1024 needs root or CAP_NET_BIND_SERVICE", err)
		}
		return l, err
	}
	return nil, fmt.Errorf("decoy listener: no free port between %d and %d; set tcp.port", LastHidden, FirstHidden)
}

func listenOn(port uint16) (*net.TCPListener, error) {
	lc := net.ListenConfig{KeepAlive: -1, Control: answerTwice}
	lc.SetMultipathTCP(false) // SO_ORIGINAL_DST is not for MPTCP sockets
	l, err := lc.Listen(context.Background(), "tcp", ":"+strconv.Itoa(int(port)))
	if err != nil {
		return nil, err
	}
	return l.(*net.TCPListener), nil
}

// Port is where the decoy listens.
func (d *Decoy) Port() uint16 { return d.listener.Addr().(*net.TCPAddr).AddrPort().Port() }

// Stats may be called at any time.
func (d *Decoy) Stats() DecoyStats {
	return DecoyStats{Accepted: d.accepted.Load(), Lost: d.lost.Load(), Starved: d.starved.Load()}
}

// Close closes the socket: connections to it are refused from now on.
func (d *Decoy) Close() error { return d.listener.Close() }

// Run sends an event for each connection until ctx ends, and then returns
// nil. When events is full an event is dropped and counted: whoever touches a
// decoy and goes unnoticed will be noticed the next time.
func (d *Decoy) Run(ctx context.Context, events chan<- Event) error {
	wake := context.AfterFunc(ctx, func() { _ = d.listener.SetDeadline(time.Unix(1, 0)) })
	defer wake()
	var conns errgroup.Group
	err := d.accept(ctx, events, &conns)
	return errors.Join(err, conns.Wait())
}

func (d *Decoy) accept(ctx context.Context, events chan<- Event, conns *errgroup.Group) error {
	pause := time.Duration(0)
	for {
		conn, err := d.listener.AcceptTCP()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = conn.Close()
			}
			return nil
		case err == nil:
			pause = 0
			d.notice(ctx, conn, events, conns)
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("decoy listener: %w", err)
		default:
			pause = d.starve(ctx, err, pause)
		}
	}
}

// starve waits before the next try when the host is short of something, and
// longer each time.
func (d *Decoy) starve(ctx context.Context, err error, pause time.Duration) time.Duration {
	d.starved.Add(1)
	if pause == 0 {
		d.log.Warn("decoy listener cannot accept", zap.Error(err))
	}
	pause = min(max(2*pause, 5*time.Millisecond), time.Second)
	select {
	case <-ctx.Done():
	case <-time.After(pause):
	}
	return pause
}

// notice sends the event first: the sooner the source is blocked the better.
func (d *Decoy) notice(ctx context.Context, conn *net.TCPConn, events chan<- Event, conns *errgroup.Group) {
	e := event(conn)
	d.accepted.Add(1)
	select {
	case events <- e:
	default:
		d.lost.Add(1)
	}
	runtime.Gosched() // whoever takes it blocks before the connection is seen to
	banner := *d.banner.Load()
	if setUserTimeout(conn) != nil || banner == "" || !d.hold(e.Source.Addr()) {
		_ = conn.Close()
		return
	}
	conns.Go(func() error {
		defer d.release(e.Source.Addr())
		d.greet(ctx, conn, banner)
		return nil
	})
}

func event(conn *net.TCPConn) Event {
	source := plain(conn.RemoteAddr().(*net.TCPAddr).AddrPort())
	target, err := originalDestination(conn, source.Addr())
	if err != nil { // nothing has translated it: the client asked for this very socket
		target = plain(conn.LocalAddr().(*net.TCPAddr).AddrPort())
	}
	return Event{
		Time: time.Now(), Source: source, Target: target,
		Protocol: TCP, Kind: Connect, Evidence: Proven,
	}
}

// plain takes the clothes off an address: IPv4 in IPv6, as a socket for both
// has it, and the zone.
func plain(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}

// greet sends the banner and closes. What the client has sent is read to
// nowhere, since a socket closed with unread data is reset and takes the
// banner with it.
func (d *Decoy) greet(ctx context.Context, conn *net.TCPConn, banner string) {
	defer conn.Close()
	hurry := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer hurry()
	if conn.SetDeadline(time.Now().Add(patience)) != nil {
		return
	}
	if _, err := io.WriteString(conn, banner); err != nil {
		return
	}
	if conn.CloseWrite() != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, conn, maxRead) // ends by deadline, limit or the client
}

// hold reports whether a source may have one more connection held open, and counts it.
func (d *Decoy) hold(source netip.Addr) bool {
	key := holder(source)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.total >= maxConns || d.holding[key] >= maxConnsPerSource {
		return false
	}
	d.total++
	d.holding[key]++
	return true
}

func (d *Decoy) release(source netip.Addr) {
	key := holder(source)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.total--
	if d.holding[key]--; d.holding[key] == 0 {
		delete(d.holding, key)
	}
}

func holder(source netip.Addr) netip.Prefix {
	return netip.PrefixFrom(source, min(source.BitLen(), 64)).Masked()
}
