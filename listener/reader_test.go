package listener

import (
	"encoding/hex"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// datagrams are those of testdata, which the kernel has sent, by name.
func datagrams(t testing.TB) map[string][]byte {
	t.Helper()
	text, err := os.ReadFile("testdata/datagrams.txt")
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string][]byte)
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		name, digits, _ := strings.Cut(strings.TrimSpace(line), " ")
		if all[name], err = hex.DecodeString(digits); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// pipe is an NFLOG that reads what is written to a socket.
func pipe(t testing.TB) (n *NFLOG, reads *os.File, writes int) {
	t.Helper()
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(ends[0]), "NFLOG")
	t.Cleanup(func() { _ = errors.Join(f.Close(), unix.Close(ends[1])) })
	raw, err := f.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	return &NFLOG{log: zap.NewNop(), reader: newReader(raw), missed: make(chan struct{}, 1)}, f, ends[1]
}

// receive has it receive one datagram.
func receive(t testing.TB, n *NFLOG, fd int, datagram []byte, events chan<- Event) {
	t.Helper()
	if _, err := unix.Write(fd, datagram); err != nil {
		t.Fatal(err)
	}
	if err := n.receive(events); err != nil {
		t.Fatal(err)
	}
}

// TestReceive reads what the kernel has sent.
func TestReceive(t *testing.T) {
	event := func(port uint16, source, target string, kind Kind) Event {
		e := Event{
			Source: netip.AddrPortFrom(netip.MustParseAddr(source), port), Target: netip.AddrPortFrom(netip.MustParseAddr(target), 23),
			Protocol: TCP, Kind: kind,
		}
		if kind == Datagram {
			e.Target, e.Protocol, e.Verdict = netip.AddrPortFrom(e.Target.Addr(), 161), UDP, Convicted
		}
		return e
	}
	lone := func(kind Kind) Event { return event(40000, "10.9.0.2", "10.9.0.1", kind) }
	want := map[string][]Event{
		"syn4":  {event(40001, "10.9.0.2", "10.9.0.1", Syn)},
		"syn6":  {event(40001, "2001:db8:9::2", "2001:db8:9::1", Syn)},
		"fin4":  {lone(Fin)},
		"null4": {lone(Null)},
		"xmas4": {lone(Xmas)},
		"udp4":  {lone(Datagram)},
		"batch": {lone(Syn), lone(Fin), lone(Null), lone(Datagram), lone(Datagram), lone(Datagram)},
	}
	n, _, fd := pipe(t)
	got := make(map[string][]Event)
	for name, datagram := range datagrams(t) {
		events := make(chan Event, batch)
		receive(t, n, fd, datagram, events)
		for len(events) > 0 {
			e := <-events
			if age := time.Since(e.Time); age < 0 || age > time.Minute {
				t.Errorf("%s: event is %v old", name, age)
			}
			e.Time = time.Time{}
			got[name] = append(got[name], e)
		}
	}
	if diff := cmp.Diff(want, got, compare); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if got, want := n.Stats(), (NFLOGStats{Received: 12}); got != want {
		t.Errorf("stats %+v, want %+v", got, want)
	}
}

// TestReceiveAllocs shows that an event allocates nothing, nor do batches of
// them, nor what is lost or malformed.
func TestReceiveAllocs(t *testing.T) {
	n, _, fd := pipe(t)
	events := make(chan Event, batch)
	all := datagrams(t)
	all["malformed"] = append(slices.Clone(all["syn4"]), 1)
	for name, datagram := range all {
		allocs := testing.AllocsPerRun(100, func() {
			receive(t, n, fd, datagram, events)
			for len(events) > 0 {
				<-events
			}
		})
		if allocs != 0 {
			t.Errorf("%s: %v allocations, want none", name, allocs)
		}
	}
	allocs := testing.AllocsPerRun(100, func() { receive(t, n, fd, all["syn4"], nil) })
	if allocs != 0 {
		t.Errorf("nobody takes it: %v allocations, want none", allocs)
	}
}

// TestReceiveMalformed counts what is no message of a datagram, once, and
// reads those before it.
func TestReceiveMalformed(t *testing.T) {
	syn := datagrams(t)["syn4"]
	long, short := slices.Clone(syn), slices.Clone(syn)
	long[0]++
	short[0] = unix.NLMSG_HDRLEN - 1
	for name, tt := range map[string]struct {
		datagram []byte
		want     NFLOGStats
	}{
		"nothing":             {nil, NFLOGStats{}},
		"too long":            {long, NFLOGStats{Received: 1, Malformed: 1}},
		"too short":           {short, NFLOGStats{Received: 1, Malformed: 1}},
		"only a header":       {append([]byte{unix.NLMSG_HDRLEN, 0, 0, 0, 0, byte(unix.NFNL_SUBSYS_ULOG)}, make([]byte, 10)...), NFLOGStats{Received: 1, Malformed: 1}},
		"less than a header":  {syn[:unix.NLMSG_HDRLEN-1], NFLOGStats{Received: 1, Malformed: 1}},
		"one more":            {slices.Concat(syn, syn), NFLOGStats{Received: 2}},
		"half of one more":    {slices.Concat(syn, syn[:len(syn)/2]), NFLOGStats{Received: 2, Malformed: 1}},
		"a header of no type": {slices.Concat([]byte{unix.NLMSG_HDRLEN, 0, 0, 0}, make([]byte, 12), syn), NFLOGStats{Received: 2, Malformed: 1}},
	} {
		n := &NFLOG{log: zap.NewNop()}
		n.tell(tt.datagram, time.Now(), make(chan Event, batch))
		if got := n.Stats(); got != tt.want {
			t.Errorf("%s: stats %+v, want %+v", name, got, tt.want)
		}
	}
}

// TestReaderEnds ends a read by a deadline, and by closing the socket.
func TestReaderEnds(t *testing.T) {
	n, f, _ := pipe(t)
	if err := f.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := n.reader.next(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after a deadline: %v, want that it is over", err)
	}
	if err := f.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := n.reader.next(); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("after the end: %v, want fs.ErrClosed", err)
	}
}

// FuzzReceive reads datagrams of anything.
func FuzzReceive(f *testing.F) {
	for _, datagram := range datagrams(f) {
		f.Add(datagram)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		n := &NFLOG{log: zap.NewNop(), missed: make(chan struct{}, 1)}
		events := make(chan Event, 1+len(b)/unix.NLMSG_HDRLEN)
		n.tell(b, time.Unix(1, 0), events)
		if s := n.Stats(); s.Lost > 0 || s.Received != s.Malformed+uint64(len(events)) {
			t.Errorf("%d events, and stats %+v", len(events), s)
		}
		for len(events) > 0 {
			checkEvent(t, <-events)
		}
	})
}
