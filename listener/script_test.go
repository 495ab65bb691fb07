package listener

import (
	"context"
	"encoding/binary"
	"iter"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/netlink"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// A step is a batch of messages, or why there is none.
type step struct {
	messages []netlink.Message
	err      error
}

// A script is a netlink socket that does what it is told, and then waits for
// a deadline.
type script struct {
	steps      []step
	idle, wake func()
	woken      chan struct{}
}

func (s *script) ReceiveIter() iter.Seq2[netlink.Message, error] {
	return func(yield func(netlink.Message, error) bool) {
		if len(s.steps) == 0 {
			s.idle()
			<-s.woken
			yield(netlink.Message{}, os.ErrDeadlineExceeded)
			return
		}
		now := s.steps[0]
		s.steps = s.steps[1:]
		for _, m := range now.messages {
			if !yield(m, nil) {
				return
			}
		}
		if now.err != nil {
			yield(netlink.Message{}, now.err)
		}
	}
}

// next is for who reads datagrams.
func (s *script) next() (datagram []byte, err error) {
	for m, err := range s.ReceiveIter() {
		if err != nil {
			return nil, err
		}
		datagram = append(datagram, encode(m)...)
	}
	return datagram, nil
}

// encode is a message as the kernel sends it.
func encode(m netlink.Message) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(unix.NLMSG_HDRLEN+len(m.Data)))
	b = binary.NativeEndian.AppendUint16(b, uint16(m.Header.Type))
	b = append(b, make([]byte, unix.NLMSG_HDRLEN-len(b))...)
	b = append(b, m.Data...)
	return append(b, make([]byte, -len(b)&3)...)
}

func (s *script) Close() error                         { return nil }
func (s *script) Send(netlink.Message) error           { return nil }
func (s *script) SendMessages([]netlink.Message) error { return nil }
func (s *script) Receive() ([]netlink.Message, error)  { panic("netlink.Conn does not use it") }
func (s *script) SetDeadline(time.Time) error          { return nil }
func (s *script) SetWriteDeadline(time.Time) error     { return nil }
func (s *script) SetReadDeadline(time.Time) error      { s.wake(); return nil }

func packet(prefix string) netlink.Message {
	return netlink.Message{Header: netlink.Header{Type: nfulnlMsgPacket}, Data: message(prefix, unix.ETH_P_IP, syn4)}
}

var done = netlink.Message{Header: netlink.Header{Type: netlink.Done}, Data: make([]byte, sizeofNfgenmsg)}

// A performance is what came of a script.
type performance struct {
	*NFLOG
	events []Event
	took   time.Duration // until the script was at its end
	logs   []string
}

// play runs a script to its end, with room for so many events.
func play(t *testing.T, room int, steps ...step) performance {
	t.Helper()
	var p performance
	synctest.Test(t, func(t *testing.T) {
		idle, woken := make(chan struct{}), make(chan struct{})
		s := &script{
			steps: steps, woken: woken,
			idle: sync.OnceFunc(func() { close(idle) }), wake: sync.OnceFunc(func() { close(woken) }),
		}
		core, logs := observer.New(zap.InfoLevel)
		p.NFLOG = &NFLOG{log: zap.New(core), conn: netlink.NewConn(s, 1), reader: s, missed: make(chan struct{}, 1)}
		events := make(chan Event, room)
		ctx, cancel := context.WithCancel(t.Context())
		began := time.Now()
		var g errgroup.Group
		g.Go(func() error { defer close(events); return p.Run(ctx, events) })
		<-idle
		p.took = time.Since(began)
		cancel()
		if err := g.Wait(); err != nil {
			t.Errorf("Run: %v", err)
		}
		for e := range events {
			p.events = append(p.events, e)
		}
		for _, l := range logs.All() {
			p.logs = append(p.logs, l.Level.String()+" "+l.Message)
		}
	})
	return p
}

// missedSome reports whether Missed has something to tell.
func (p performance) missedSome() bool { return len(p.missed) == 1 }

// TestRunBatch has messages that are no packets of ours between those that are.
func TestRunBatch(t *testing.T) {
	p := play(t, 8, step{messages: []netlink.Message{packet("probe"), packet("another's"), packet("full"), done}},
		step{messages: []netlink.Message{packet("spent")}}, step{messages: []netlink.Message{{}}})
	var got []string
	for _, e := range p.events {
		got = append(got, e.Verdict.String())
	}
	if diff := cmp.Diff([]string{"noticed", "crowded", "overspent"}, got); diff != "" {
		t.Errorf("verdicts (-want +got):\n%s", diff)
	}
	if got, want := p.Stats(), (NFLOGStats{Received: 5, Malformed: 2}); got != want || p.missedSome() {
		t.Errorf("stats %+v, missed %v, want %+v and nothing missed", got, p.missedSome(), want)
	}
	if p.events[0].Time != p.events[1].Time || p.events[0].Time.IsZero() {
		t.Errorf("times %v and %v in one batch", p.events[0].Time, p.events[1].Time)
	}
}

// TestRunFull has no room for events.
func TestRunFull(t *testing.T) {
	p := play(t, 1, step{messages: []netlink.Message{packet("probe"), packet("block"), packet("block"), done}})
	if got, want := p.Stats(), (NFLOGStats{Received: 3, Lost: 2}); got != want || !p.missedSome() {
		t.Errorf("stats %+v, missed %v, want %+v and something missed", got, p.missedSome(), want)
	}
}

// TestRunMalformedBlock has a block whose source cannot be read.
func TestRunMalformedBlock(t *testing.T) {
	m := packet("block")
	m.Data = message("block", unix.ETH_P_IPV6, put(syn6, 8, mapped.AsSlice()...))
	p := play(t, 1, step{messages: []netlink.Message{m}})
	if got, want := p.Stats(), (NFLOGStats{Received: 1, Malformed: 1}); got != want || !p.missedSome() {
		t.Errorf("stats %+v, missed %v, want %+v and something missed", got, p.missedSome(), want)
	}
}

// TestRunOverrun loses messages in the kernel, which is no reason to wait.
func TestRunOverrun(t *testing.T) {
	full := step{err: os.NewSyscallError("recvmsg", unix.ENOBUFS)}
	p := play(t, 1, full, full, step{messages: []netlink.Message{packet("probe")}})
	if got, want := p.Stats(), (NFLOGStats{Received: 1, Overruns: 2}); got != want || !p.missedSome() {
		t.Errorf("stats %+v, missed %v, want %+v and something missed", got, p.missedSome(), want)
	}
	if p.took != 0 || len(p.logs) != 0 || len(p.events) != 1 {
		t.Errorf("took %v, logged %q, sent %d events, want no time, nothing and 1", p.took, p.logs, len(p.events))
	}
}

// TestRunShort has the host short of memory: the waits grow, to a second and
// no more, and begin anew after a success.
func TestRunShort(t *testing.T) {
	short := step{err: os.NewSyscallError("recvmsg", unix.ENOMEM)}
	p := play(t, 1, short, short, step{messages: []netlink.Message{packet("probe")}}, short)
	if want := (5 + 10 + 5) * time.Millisecond; p.took != want || !p.missedSome() {
		t.Errorf("took %v, missed %v, want %v and something missed", p.took, p.missedSome(), want)
	}
	if diff := cmp.Diff([]string{"warn cannot read NFLOG", "warn cannot read NFLOG"}, p.logs); diff != "" {
		t.Errorf("logs (-want +got):\n%s", diff)
	}
	p = play(t, 1, slices.Repeat([]step{short}, 12)...)
	if want := (5+10+20+40+80+160+320+640)*time.Millisecond + 4*time.Second; p.took != want {
		t.Errorf("took %v, want %v", p.took, want)
	}
}

// TestRequest has packets that come before the answer.
func TestRequest(t *testing.T) {
	ack := netlink.Message{Header: netlink.Header{Type: netlink.Error}, Data: make([]byte, 20)}
	s := &script{steps: []step{{messages: []netlink.Message{packet("probe"), done}}, {messages: []netlink.Message{ack}}}}
	n := &NFLOG{conn: netlink.NewConn(s, 1), missed: make(chan struct{}, 1)}
	if err := n.request(groupMessage(nfulnlMsgConfig, group, nil)); err != nil {
		t.Fatal(err)
	}
	if len(n.missed) != 1 || len(s.steps) != 0 {
		t.Errorf("missed %d, %d steps left, want 1 and none", len(n.missed), len(s.steps))
	}
}

// TestConfigMessage has the bytes of
//
//	struct nfgenmsg, NFULA_CFG_CMD bind, NFULA_CFG_MODE packet 128,
//	NFULA_CFG_TIMEOUT 10, NFULA_CFG_QTHRESH 64
func TestConfigMessage(t *testing.T) {
	m, err := configMessage(0xf22f)
	if err != nil {
		t.Fatal(err)
	}
	want := slices.Concat(
		[]byte{0, 0, 0xf2, 0x2f}, attr(1, []byte{1}), attr(2, []byte{0, 0, 0, 128, 2, 0}),
		attr(4, []byte{0, 0, 0, 10}), attr(5, []byte{0, 0, 0, 64}),
	)
	if diff := cmp.Diff(want, m.Data); diff != "" {
		t.Errorf("data (-want +got):\n%s", diff)
	}
}
