package integration

import (
	"bufio"
	"context"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"nftsentry/controller/api"
	"nftsentry/integration/netns"
	"nftsentry/state"
)

// TestResilienceKill kills the daemon again and again, at any moment, while
// decoys are touched and commands given. What was said to be blocked, by the
// answer of a command or in the log, is blocked after that: in the kernel, in
// the list and in the text file, which agree, once and whole.
func TestResilienceKill(t *testing.T) {
	kills := sized(30, 1000)
	w := newWorld(t)
	everywhere(t, w)
	p := newProgram(t, w.server, "block.timeout = \"2h\"\nblock.escalate = []\nlog.level = \"info\"")
	a := newAssault(t, w)
	began := time.Now()
	var underLoad time.Duration
	for killed := 0; ; killed++ {
		d := p.run()
		a.settle(d)
		if t.Failed() || killed >= kills {
			break
		}
		if len(a.blocked) > 4000 {
			a.amnesty(d)
		}
		lives := time.Duration(rand.Int64N(int64(200 * time.Millisecond)))
		a.storm(d, lives)
		underLoad += lives
		if killed%5 == 4 { // and the next one before it is ready
			p.crash(time.Duration(rand.Int64N(int64(300 * time.Millisecond))))
			killed++
		}
	}
	a.checkHistory(p)
	t.Logf("%d kills in %v: %d commands and %d touches acknowledged, %.0f a second; %d touches not on record yet were adopted, %d of %d without an answer were blocked",
		kills, time.Since(began).Round(time.Second), a.commands, a.touches, float64(a.commands+a.touches)/underLoad.Seconds(), a.adopted, a.inFlight, a.unanswered)
}

// everywhere makes 10.16.0.0/12 addresses of the client.
func everywhere(t *testing.T, w *world) {
	t.Helper()
	w.client.Output(t, netns.Tool(t, "ip"), "route", "add", "local", "10.16.0.0/12", "dev", "lo")
	w.router.Route(t, "10.16.0.0/12", client4)
}

// crash starts the daemon and kills it soon.
func (p *program) crash(after time.Duration) {
	p.t.Helper()
	cmd := p.host.Command(os.Getenv(programEnv), "run", "-c", p.conf)
	p.host.Start(p.t, cmd)
	time.Sleep(after)
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // killed
}

// An assault keeps the books of what was blocked.
type assault struct {
	t *testing.T
	w *world

	mu       sync.Mutex
	next     uint32              // source; guarded by mu
	blocked  map[netip.Addr]bool // acknowledged; true if in this life of the daemon; guarded by mu
	maybe    map[netip.Addr]bool // asked for, without an answer; guarded by mu
	answered map[netip.Addr]bool // by a command: on record too; guarded by mu
	released map[netip.Addr]bool // to be unblocked, in this life of the daemon; guarded by mu
	ever     map[netip.Addr]bool // was acknowledged; guarded by mu

	commands, touches, adopted, inFlight, unanswered int
}

func newAssault(t *testing.T, w *world) *assault {
	return &assault{
		t: t, w: w, blocked: make(map[netip.Addr]bool), maybe: make(map[netip.Addr]bool),
		answered: make(map[netip.Addr]bool), released: make(map[netip.Addr]bool), ever: make(map[netip.Addr]bool),
	}
}

// source is the next address that was never blocked: a command's is nobody's,
// a toucher's is the client's.
func (a *assault) source(touches bool) netip.Addr {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.next++
	high := byte(128)
	if touches {
		high = 16
	}
	s := netip.AddrFrom4([4]byte{10, high + byte(a.next>>16)&15, byte(a.next >> 8), byte(a.next)})
	a.maybe[s] = true
	return s
}

// storm touches and commands until the daemon has lived long enough, and then
// some more while it is killed.
func (a *assault) storm(d *daemon, lives time.Duration) {
	a.t.Helper()
	ctx, cancel := context.WithCancel(a.t.Context())
	var g errgroup.Group
	for range 2 {
		g.Go(func() error { return paced(ctx, 18*time.Millisecond, func() { a.touch(ctx) }) })
	}
	for range 4 {
		g.Go(func() error { return paced(ctx, 36*time.Millisecond, func() { a.command(ctx, d) }) })
	}
	time.Sleep(lives)
	d.end(unix.SIGKILL)
	cancel()
	_ = g.Wait() // paced never fails
	a.read(d)
}

// paced does something at a pace until ctx ends.
func paced(ctx context.Context, pace time.Duration, do func()) error {
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for ctx.Err() == nil {
		do()
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	return nil
}

func (a *assault) touch(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	conn, err := a.w.client.Dial(ctx, "tcp", net.JoinHostPort(server4, "23"), a.source(true).String())
	if err == nil {
		_ = conn.Close()
	}
}

// command blocks a source, and unblocks each eighth again.
func (a *assault) command(ctx context.Context, d *daemon) {
	s := a.source(false)
	if _, err := d.ask().Block(ctx, api.BlockRequest{Source: s.String(), Seconds: 7200}); err != nil {
		return
	}
	a.mu.Lock()
	a.blocked[s], a.ever[s], a.answered[s] = true, true, true
	a.commands++
	if s.As4()[3]%8 == 0 {
		delete(a.blocked, s) // from here on it may be either
		a.released[s] = true
	} else {
		delete(a.maybe, s)
	}
	a.mu.Unlock()
	if s.As4()[3]%8 != 0 {
		return
	}
	if _, err := d.ask().Unblock(ctx, s.String()); err == nil {
		a.mu.Lock()
		delete(a.maybe, s)
		a.mu.Unlock()
	}
}

// read takes from the log what a daemon has said of blocks before it was
// killed.
func (a *assault) read(d *daemon) {
	a.t.Helper()
	for _, line := range d.logged() {
		if line["msg"] != "block" || line["origin"] == "kernel" {
			continue
		}
		s := netip.MustParseAddr(line["src"].(string))
		if a.released[s] || a.has(s) {
			continue
		}
		a.blocked[s], a.ever[s] = true, true
		delete(a.maybe, s)
		a.touches++
	}
}

// settle compares what was said with what the next daemon has.
func (a *assault) settle(d *daemon) {
	a.t.Helper()
	list := d.live()
	for s, fresh := range a.blocked {
		b, listed := list[s]
		if !listed {
			a.t.Errorf("%s was said to be blocked, and is not any more", s)
		}
		adopted := b.Origin == string(state.OriginKernel)
		if adopted && a.answered[s] {
			a.t.Errorf("%s was answered for, and is in the kernel alone", s)
		}
		if adopted && fresh {
			a.adopted++
		}
	}
	a.unanswered += len(a.maybe)
	for s := range list {
		switch {
		case a.maybe[s]:
			a.inFlight++
		case !a.has(s):
			a.t.Errorf("%s is blocked: nobody has asked for it, or it was unblocked since", s)
		}
	}
	kernel := held(a.t, d.host, "blocked4")
	for end := time.Now().Add(5 * time.Second); len(kernel) != len(list) && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		kernel = held(a.t, d.host, "blocked4") // a set that is being resized
	}
	file := a.lines(d.program, "portsentry.blocked.tcp")
	for end := time.Now().Add(patience); len(file) != len(list) && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		file = a.lines(d.program, "portsentry.blocked.tcp") // what was adopted is on its way to the disk
	}
	for s := range list {
		if _, there := kernel[s]; !there || !file[s] {
			a.t.Errorf("%s is listed; in the kernel: %t, in the file: %t", s, there, file[s])
		}
	}
	if len(kernel) != len(list) || len(file) != len(list) {
		a.t.Errorf("%d are listed, %d are in the kernel, %d in the file", len(list), len(kernel), len(file))
	}
	clear(a.blocked)
	clear(a.maybe)
	clear(a.released)
	clear(a.answered)
	for s := range list {
		a.blocked[s] = false
	}
}

func (a *assault) has(s netip.Addr) bool {
	_, there := a.blocked[s]
	return there
}

// amnesty lets all go, so that there are never too many.
func (a *assault) amnesty(d *daemon) {
	a.t.Helper()
	a.checkHistory(d.program)
	if n, err := d.ask().UnblockAll(a.t.Context()); err != nil || n != len(a.blocked) {
		a.t.Errorf("%d were let go, %v, want %d", n, err, len(a.blocked))
	}
	clear(a.blocked)
}

// lines reads a file in Portsentry's format, and checks that each line is
// whole and there but once.
func (a *assault) lines(p *program, name string) map[netip.Addr]bool {
	a.t.Helper()
	text := p.file(name)
	if text != "" && !strings.HasSuffix(text, "\n") {
		a.t.Errorf("%s ends in a torn line", name)
	}
	seen, sources := make(map[string]bool), make(map[netip.Addr]bool)
	for scan := bufio.NewScanner(strings.NewReader(text)); scan.Scan(); {
		line, err := state.ParseLine(scan.Text())
		if err != nil || seen[scan.Text()] || sources[line.Address] {
			a.t.Errorf("%s: %q: error %v, the same line before: %t, the same source: %t", name, scan.Text(), err, seen[scan.Text()], sources[line.Address])
		}
		seen[scan.Text()], sources[line.Address] = true, true
	}
	return sources
}

// checkHistory looks for all that was ever acknowledged in the history.
func (a *assault) checkHistory(p *program) {
	a.t.Helper()
	history := a.lines(p, "portsentry.history")
	for s := range a.ever {
		if !history[s] {
			a.t.Errorf("portsentry.history lacks %s", s)
		}
	}
}
