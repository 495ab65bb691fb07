package listener

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync/atomic"
	"time"

	"github.com/mdlayher/netlink"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// How the kernel hands messages over.
const (
	copyRange  = 128                    // bytes of each packet, from the IP header on
	batch      = 64                     // messages that are sent at once, if so many fit in a page (NLMSG_GOODSIZE)
	flushAfter = 100 * time.Millisecond // how long the first of them waits for the others
	readBuffer = 8 << 20                // bytes that the kernel holds for us
)

// ErrGroupTaken says that another program reads the NFLOG group. The kernel
// gives each group of a network namespace to one reader.
var ErrGroupTaken = errors.New("taken by another program")

// An NFLOG reads what the log rules of the kernel tell: every probe of a
// watched port, and what became of it.
type NFLOG struct {
	log    *zap.Logger
	conn   *netlink.Conn
	reader interface{ next() ([]byte, error) } // of conn; a *reader, used by Run
	missed chan struct{}                       // of size 1; full from a loss until someone looks; never closed

	received, lost, overruns, malformed atomic.Uint64
}

// NFLOGStats are counts since the group was opened.
type NFLOGStats struct {
	Received  uint64 // messages of the kernel, one for each packet
	Lost      uint64 // of these, events that nobody took in time
	Overruns  uint64 // times that the kernel had messages and no room for them
	Malformed uint64 // messages that are none of our rules' or that make no sense
}

// OpenNFLOG takes a group in the network namespace of the caller, who needs
// CAP_NET_ADMIN there and closes it. What the kernel tells from now on waits in
// it until Run. The error wraps ErrGroupTaken if another reader has the group.
func OpenNFLOG(group uint16, log *zap.Logger) (*NFLOG, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("open NFLOG: %w", err)
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open NFLOG: %w", err), conn.Close())
	}
	n := &NFLOG{log: log, conn: conn, reader: newReader(raw), missed: make(chan struct{}, 1)}
	if err := n.bind(group); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return n, nil
}

// bind takes the group. To whoever has no rights the kernel answers EPERM, as
// it does when the group is another's (nfulnl_recv_config in
// net/netfilter/nfnetlink_log.c), so that this has to be asked apart.
func (n *NFLOG) bind(group uint16) error {
	if err := n.conn.SetReadBuffer(readBuffer); err != nil {
		return fmt.Errorf("NFLOG group %d: %w", group, err)
	}
	config, err := configMessage(group)
	if err != nil {
		return fmt.Errorf("NFLOG group %d: %w", group, err)
	}
	err = n.request(config)
	switch {
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EPERM) && n.permitted(group):
		return fmt.Errorf("NFLOG group %d is %w: set trigger.nflog_group to a free one", group, ErrGroupTaken)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("NFLOG group %d: %w; it needs root or CAP_NET_ADMIN", group, err)
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("NFLOG group %d: %w; it needs the kernel module nfnetlink_log", group, err)
	case err != nil:
		return fmt.Errorf("NFLOG group %d: %w", group, err)
	}
	return nil
}

// permitted reports whether the caller has the rights to read any group. It
// sends what only the kernel sends, which nfulnl_recv_unsupp refuses with
// another error once nfnetlink_rcv has let it in.
func (n *NFLOG) permitted(group uint16) bool {
	return !errors.Is(n.request(groupMessage(nfulnlMsgPacket, group, nil)), unix.EPERM)
}

// request sends a message and waits for its acknowledgement. The first packets
// may come before that: Execute would take them for the answer.
func (n *NFLOG) request(m netlink.Message) error {
	if _, err := n.conn.Send(m); err != nil {
		return err
	}
	for {
		answers, err := n.conn.Receive()
		if err != nil {
			return err
		}
		for _, a := range answers {
			if a.Header.Type == netlink.Error { // with an error in it, it would have been one
				return nil
			}
		}
		n.miss()
	}
}

// Missed tells that messages or events were lost: what the kernel holds has to
// be looked at. Losses that come before someone has looked are told once.
func (n *NFLOG) Missed() <-chan struct{} { return n.missed }

func (n *NFLOG) miss() {
	select {
	case n.missed <- struct{}{}:
	default:
	}
}

// Stats may be called at any time.
func (n *NFLOG) Stats() NFLOGStats {
	return NFLOGStats{
		Received: n.received.Load(), Lost: n.lost.Load(),
		Overruns: n.overruns.Load(), Malformed: n.malformed.Load(),
	}
}

// Close gives the group back, and ends Run with an error.
func (n *NFLOG) Close() error { return n.conn.Close() }

// Run sends an event for each message until ctx ends, and then returns nil. It
// is called once. When events is full an event is dropped, counted and told by
// Missed, and so are messages for which the kernel had no room.
func (n *NFLOG) Run(ctx context.Context, events chan<- Event) error {
	wake := context.AfterFunc(ctx, func() { _ = n.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer wake()
	pause := time.Duration(0)
	for {
		err := n.receive(events)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			pause = 0
		case errors.Is(err, unix.ENOBUFS): // the next read succeeds
			n.overruns.Add(1)
			n.miss()
		case errors.Is(err, fs.ErrClosed):
			return fmt.Errorf("NFLOG: %w", err)
		default:
			pause = n.rest(ctx, err, pause)
		}
	}
}

// rest waits before the next try when messages cannot be read, and longer each
// time.
func (n *NFLOG) rest(ctx context.Context, err error, pause time.Duration) time.Duration {
	n.miss()
	if pause == 0 {
		n.log.Warn("cannot read NFLOG", zap.Error(err))
	}
	pause = min(max(2*pause, 5*time.Millisecond), time.Second)
	select {
	case <-ctx.Done():
	case <-time.After(pause):
	}
	return pause
}

// receive waits for a datagram of messages. All of them have its time.
func (n *NFLOG) receive(events chan<- Event) error {
	datagram, err := n.reader.next()
	if err != nil {
		return err
	}
	n.tell(datagram, time.Now(), events)
	return nil
}

func (n *NFLOG) tell(datagram []byte, now time.Time, events chan<- Event) {
	for len(datagram) > 0 {
		var m netlink.Message
		m, datagram = cutMessage(datagram)
		if m.Header.Type != netlink.Done { // it ends a batch, and is no packet
			n.notice(m, now, events)
		}
	}
}

func (n *NFLOG) notice(m netlink.Message, now time.Time, events chan<- Event) {
	n.received.Add(1)
	e, err := parse(m, now)
	if err != nil {
		n.refuse(e, err)
		return
	}
	select {
	case events <- e:
	default:
		n.lost.Add(1)
		n.miss()
	}
}

func parse(m netlink.Message, now time.Time) (Event, error) {
	if m.Header.Type != nfulnlMsgPacket {
		return Event{}, errType
	}
	return parseMessage(m.Data, now)
}

// refuse counts a message that cannot be read. If it tells of a block, the
// block is in the kernel all the same.
func (n *NFLOG) refuse(e Event, err error) {
	n.malformed.Add(1)
	if e.Verdict == Convicted {
		n.miss()
	}
	if checked := n.log.Check(zap.DebugLevel, "cannot read NFLOG message"); checked != nil { // else its fields are allocated for nothing
		checked.Write(zap.Stringer("verdict", e.Verdict), zap.Error(err))
	}
}
