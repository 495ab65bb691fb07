package hook

import (
	"maps"
	"net/netip"
	"time"

	"golang.org/x/time/rate"
)

// maxQueue is how many events may wait for a hook.
const maxQueue = 256

// A job is what a hook does at once.
type job struct {
	events []Event
	// more is how many events a mail counts and does not have.
	more int
	// changes are the lines of hosts.deny to add (true) and to remove; all others are removed if only is set.
	changes map[netip.Prefix]bool
	only    bool

	attempt int
	due     time.Time
}

// A queue holds what a hook has yet to do. Its owner guards it.
type queue interface {
	// push takes an event, and says whether there was room for it.
	push(Event, time.Time) bool
	// pop gives what is to be done now; or else how long to wait, 0 for until something is pushed. A final one waits for nothing.
	pop(now time.Time, final bool) (*job, time.Duration)
	// size is how many events wait.
	size() int
}

var (
	_ queue = (*fifo)(nil)
	_ queue = (*digest)(nil)
	_ queue = (*changes)(nil)
)

// A fifo gives one event at a time.
type fifo struct{ events []Event }

func (q *fifo) push(e Event, _ time.Time) bool {
	if len(q.events) >= maxQueue {
		return false
	}
	q.events = append(q.events, e)
	return true
}

func (q *fifo) pop(_ time.Time, final bool) (*job, time.Duration) {
	if len(q.events) == 0 || final {
		return nil, 0
	}
	j := &job{events: q.events[:1:1]}
	if q.events = q.events[1:]; len(q.events) == 0 {
		q.events = nil // let go of the array
	}
	return j, 0
}

func (q *fifo) size() int { return len(q.events) }

// A digest collects events for a mail: those that fit, and the number of the others.
type digest struct {
	wait  time.Duration
	limit *rate.Limiter

	events []Event
	more   int
	first  time.Time
}

func (q *digest) push(e Event, now time.Time) bool {
	if len(q.events) == 0 {
		q.first = now
	}
	if len(q.events) >= maxQueue {
		q.more++
		return false
	}
	q.events = append(q.events, e)
	return true
}

func (q *digest) pop(now time.Time, final bool) (*job, time.Duration) {
	if len(q.events) == 0 {
		return nil, 0
	}
	wait := max(q.first.Add(q.wait).Sub(now), untilToken(q.limit, now))
	if final {
		wait = untilToken(q.limit, now)
	}
	if wait > 0 {
		return nil, wait
	}
	q.limit.AllowN(now, 1)
	j := &job{events: q.events, more: q.more}
	q.events, q.more = nil, 0
	return j, 0
}

func (q *digest) size() int { return len(q.events) + q.more }

const (
	// settle is how long changes of hosts.deny are collected at least.
	settle = 100 * time.Millisecond
	// rewrite is how long it takes at least from one rewriting of hosts.deny to the next.
	rewrite = time.Second
	// maxChanges bounds the changes that wait.
	maxChanges = 1 << 17
)

// changes collects the lines of hosts.deny to add and to remove. Since a line that is lost would never be put right, it has
// room for all blocks that there can be.
type changes struct {
	pending map[netip.Prefix]bool
	only    bool
	next    time.Time // of the next rewriting
}

func (q *changes) push(e Event, now time.Time) bool {
	p := e.key().source
	if _, there := q.pending[p]; !p.IsValid() || !there && len(q.pending) >= maxChanges {
		return false
	}
	q.soon(now)
	q.pending[p] = e.On == Block
	return true
}

// soon makes ready for a change.
func (q *changes) soon(now time.Time) {
	if q.pending == nil {
		q.pending = make(map[netip.Prefix]bool)
	}
	if at := now.Add(settle); len(q.pending) == 0 && q.next.Before(at) {
		q.next = at
	}
}

// replace has the lines of some blocks and no others from now on.
func (q *changes) replace(live []netip.Prefix, now time.Time) {
	q.soon(now)
	q.only = true
	clear(q.pending)
	for _, p := range live {
		q.pending[p] = true
	}
}

// restore takes back what could not be done, less what has come since.
func (q *changes) restore(j *job, now time.Time) {
	q.soon(now)
	if q.only {
		return
	}
	later := q.pending
	q.pending, q.only = maps.Clone(j.changes), j.only
	if q.pending == nil {
		q.pending = make(map[netip.Prefix]bool)
	}
	maps.Copy(q.pending, later)
}

func (q *changes) pop(now time.Time, final bool) (*job, time.Duration) {
	if len(q.pending) == 0 && !q.only {
		return nil, 0
	}
	if wait := q.next.Sub(now); wait > 0 && !final {
		return nil, wait
	}
	j := &job{changes: q.pending, only: q.only}
	q.pending, q.only, q.next = nil, false, now.Add(rewrite)
	return j, 0
}

func (q *changes) size() int { return len(q.pending) }
