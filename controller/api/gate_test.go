package api

import (
	"context"
	"errors"
	"io"
	"iter"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"nftsentry/state"
)

// crowdedGuard has a list that no socket has room for.
type crowdedGuard struct{ fakeGuard }

func (crowdedGuard) List(context.Context) (iter.Seq[state.Block], error) {
	return slices.Values(make([]state.Block, 1500)), nil
}

// bad are clients that nobody should wait for: each sends what write writes,
// and reads nothing until it is thrown out.
var bad = map[string]func(io.Writer) error{
	"idle": func(io.Writer) error { return nil },
	"malformed": func(w io.Writer) error {
		_, err := io.WriteString(w, "\x16\x03\x01\x00\x00 HELO\r\n\r\n")
		return err
	},
	"slow": func(w io.Writer) error {
		for range "GET /v1/status HTTP/1.1" {
			if _, err := w.Write([]byte("G")); err != nil {
				return err
			}
			time.Sleep(time.Second)
		}
		return nil
	},
	"slow body": func(w io.Writer) error {
		_, err := io.WriteString(w, "POST /v1/blocks HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
		return err
	},
	"endless header": func(w io.Writer) error {
		_, err := io.WriteString(w, "GET /v1/status HTTP/1.1\r\nHost: x\r\nX: ")
		return endless(w, err)
	},
	"endless body": func(w io.Writer) error {
		_, err := io.WriteString(w, "POST /v1/blocks HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000000\r\n\r\n")
		return endless(w, err)
	},
	"endless chunks": func(w io.Writer) error {
		_, err := io.WriteString(w, "GET /nowhere HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n")
		return endless(w, err)
	},
	"not reading": func(w io.Writer) error {
		_, err := io.WriteString(w, "GET /v1/blocks HTTP/1.1\r\nHost: x\r\n\r\n")
		return err
	},
	"never reading": func(w io.Writer) error {
		for {
			if _, err := io.WriteString(w, "GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
				return err
			}
		}
	},
}

func endless(w io.Writer, err error) error {
	for part := []byte(strings.Repeat("x", 32<<10)); err == nil; {
		_, err = w.Write(part)
	}
	return err
}

// misbehave is one client after the other of a kind, until ctx ends. Only one
// that the server has closed has another after it, and not at once.
func misbehave(ctx context.Context, path string, write func(io.Writer) error) error {
	for ctx.Err() == nil {
		conn, err := net.Dial("unix", path)
		if err != nil {
			return err
		}
		stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
		if write(conn) == nil {
			closed(conn)
		}
		stop()
		_ = conn.Close()
		select {
		case <-ctx.Done():
		case <-time.After(500*time.Millisecond + rand.N(time.Second)):
		}
	}
	return nil
}

// closed waits until the other end has closed a connection, without reading.
func closed(conn net.Conn) {
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		_, err := unix.Poll(p, 0)
		return err != nil || p[0].Revents != 0
	})
}

// TestCrowd has a thousand bad clients of all kinds at once while good ones
// are timed, and looks for what they leave behind.
func TestCrowd(t *testing.T) {
	const (
		clients = 1000
		usual   = patience / 10 // half of the answers: a busy host takes its time, but a crowd that is waited for takes patience
		enough  = patience / 2  // all but 1 in 100
	)
	core, logs := observer.New(zap.InfoLevel)
	s := serveAs(t, zap.New(core), crowdedGuard{}, nil)
	client := NewClient(s.path)
	ask(t, client)
	until(t, "the good client has gone", func() bool { return s.open() == 0 })
	before := resourcesUsed(t)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var crowd errgroup.Group
	crowd.Go(func() error {
		for n := 0; n < clients; {
			for _, write := range bad {
				crowd.Go(func() error { return misbehave(ctx, s.path, write) })
				time.Sleep(time.Millisecond / 2) // no host takes in all in the same instant
				n++
			}
		}
		return nil
	})
	var took []time.Duration
	for began := time.Now(); time.Since(began) < 3*time.Second; {
		took = append(took, ask(t, client))
		if open := s.open(); open > maxWaiting+7*maxWorking+maxAnswering {
			t.Errorf("%d connections are open, want %d at most", open, maxWaiting+7*maxWorking+maxAnswering)
		}
	}
	slices.Sort(took)
	if half, most := took[len(took)/2], took[len(took)*99/100]; half > usual || most > enough {
		t.Errorf("of %d answers half took up to %v and 99%% up to %v, want %v and %v at most", len(took), half, most, usual, enough)
	}
	t.Logf("%d answers: half of them in %v, 99%% in %v, all in %v", len(took), took[len(took)/2], took[len(took)*99/100], took[len(took)-1])
	cancel()
	if err := crowd.Wait(); err != nil {
		t.Error(err)
	}
	until(t, "what the crowd used is free again", func() bool {
		now := resourcesUsed(t)
		return now.files <= before.files && now.goroutines <= before.goroutines && s.open() == 0
	})
	if logs.Len() != 0 {
		t.Errorf("logged: %v", logs.All())
	}
}

// ask asks as a good client does, and returns how long it took.
func ask(t *testing.T, client *Client) time.Duration {
	t.Helper()
	began := time.Now()
	if s, err := client.Status(t.Context()); err != nil || s.PID != 42 {
		t.Errorf("Status: %+v, %v", s, err)
	}
	return time.Since(began)
}

// resources are what clients use up.
type resources struct{ files, goroutines int }

func resourcesUsed(t *testing.T) resources {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return resources{len(files), runtime.NumGoroutine()}
}

// open is how many connections the server has.
func (s served) open() int {
	s.gate.mu.Lock()
	defer s.gate.mu.Unlock()
	return len(s.gate.conns)
}

func until(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not after a minute: %s: %+v", what, resourcesUsed(t))
		}
	}
}

// TestPatience shows that clients of each kind are thrown out while they go
// on, and how soon.
func TestPatience(t *testing.T) {
	const short = 200 * time.Millisecond
	s := serveAs(t, zap.NewNop(), crowdedGuard{}, func(g *gate) { g.patience = short })
	for name, write := range bad {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("unix", s.path)
			if err != nil {
				t.Fatal(err)
			}
			var g errgroup.Group
			g.Go(func() error { return write(conn) })
			began := time.Now()
			_ = conn.SetReadDeadline(began.Add(patience))
			closed(conn)
			if took := time.Since(began); took > patience*3/4 { // without the gate's own, it would be that or more
				t.Errorf("closed after %v, want %v", took, short)
			}
			until(t, "the server has no connection", func() bool { return s.open() == 0 })
			_ = conn.Close()
			_ = g.Wait()
		})
	}
}

// TestGate shows who makes room for whom.
func TestGate(t *testing.T) {
	const few = 4
	guard := slowGuard{asked: make(chan struct{}), answer: make(chan struct{})}
	s := serveAs(t, zap.NewNop(), guard, func(g *gate) { g.most = few })
	var slow errgroup.Group
	slow.Go(func() error {
		_, err := NewClient(s.path).List(context.Background())
		return err
	})
	<-guard.asked

	var idle []net.Conn
	began := time.Now()
	for range 2 * few {
		conn, err := net.Dial("unix", s.path)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		idle = append(idle, conn)
	}
	for _, conn := range idle[:few] {
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("read from one of the oldest: %v, want %v", err, io.EOF)
		}
	}
	if took := time.Since(began); took < grace || took > patience/2 {
		t.Errorf("the oldest were closed after %v, want %v or a little more", took, grace)
	}
	for i, conn := range idle[few:] {
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read from number %d of the youngest: %v, want %v", i, err, os.ErrDeadlineExceeded)
		}
	}
	ask(t, NewClient(s.path))
	close(guard.answer)
	if err := slow.Wait(); err != nil {
		t.Errorf("who was at work for all the time: %v", err)
	}
}

// slowGuard lists when it is told to.
type slowGuard struct {
	fakeGuard
	asked, answer chan struct{}
}

func (g slowGuard) List(ctx context.Context) (iter.Seq[state.Block], error) {
	close(g.asked)
	<-g.answer
	return slices.Values([]state.Block{}), ctx.Err()
}

// TestGateStarves takes all file descriptors away but that of a good client.
func TestGateStarves(t *testing.T) {
	core, logs := observer.New(zap.WarnLevel)
	s := serveAs(t, zap.New(core), fakeGuard{}, nil)
	hearOut(t, s.path)
	for range 8 {
		conn, err := net.Dial("unix", s.path)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	until(t, "the idle ones are in", func() bool { return s.open() == 8 })

	leaveOneFile(t)
	if took := ask(t, NewClient(s.path)); took > patience/2 {
		t.Errorf("the answer took %v", took)
	}
	if n := logs.FilterMessage("control socket cannot accept").Len(); n != 1 || logs.Len() != 1 {
		t.Errorf("%d warnings of %d, want 1: %v", n, logs.Len(), logs.All())
	}
}

// hearOut asks for the status until the server has closed its connection, so
// that all which the runtime needs is open, and nothing else.
func hearOut(t *testing.T, path string) {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET /v1/status HTTP/1.1\r\nHost: nftsentry\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, conn); err != nil {
		t.Fatal(err)
	}
}

// leaveOneFile lets the process open one more file, until the test ends. The
// limit is above every file that is open, so that each one that is closed
// makes room for another.
func leaveOneFile(t *testing.T) {
	t.Helper()
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	var highest uint64
	for _, e := range open {
		fd, err := strconv.ParseUint(e.Name(), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		highest = max(highest, fd)
	}
	limit := unix.Rlimit{Cur: highest + 1, Max: old.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
			t.Error(err)
		}
	})
	last := -1 // the one that is closed again
	for {
		fd, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.EMFILE) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if last >= 0 {
			t.Cleanup(func() { _ = unix.Close(fd) })
			continue
		}
		last = fd
	}
	if err := unix.Close(last); err != nil {
		t.Fatal(err)
	}
}

// TestGateAnswering shows that of those who do not read their answers only the
// last stay, and that one who reads stays.
func TestGateAnswering(t *testing.T) {
	g := &gate{conns: make(map[*gateConn]struct{}), patience: patience}
	var conns []*gateConn
	for range maxAnswering + 3 {
		conn, other := net.Pipe()
		defer other.Close()
		c := &gateConn{Conn: conn, gate: g}
		g.conns[c] = struct{}{}
		conns = append(conns, c)
	}
	for i, c := range conns {
		if !c.enter(answering) {
			t.Errorf("number %d is closed before it is answered", i)
		}
		conns[0].progress()
	}
	for i, c := range conns {
		_, open := g.conns[c]
		if want := i == 0 || i > 3; open != want {
			t.Errorf("number %d is open: %v, want %v", i, open, want)
		}
		if c.enter(working) != open {
			t.Errorf("number %d may work: %v, want %v", i, !open, open)
		}
	}
}

// TestGateClosed shows that a closed gate is an error and not a loop.
func TestGateClosed(t *testing.T) {
	s, err := Listen(t.TempDir()+"/sock", "", zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context(), fakeGuard{}, fakeDaemon{}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Run on a closed socket: %v, want %v", err, net.ErrClosed)
	}
}
