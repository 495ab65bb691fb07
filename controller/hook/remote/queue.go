package remote

import (
	"net/netip"

	"nftsentry/controller/hook"
)

// maxQueue is how many events may wait for the service.
const maxQueue = 4096

// A queue is what the service is to be told, in its order. Its owner guards it.
type queue struct {
	events []hook.Event
	// live, if it is not nil, are the sources that were blocked when the events before at had happened.
	live []netip.Prefix
	at   int
}

// push takes an event, and says whether there was room for it.
func (q *queue) push(e hook.Event) bool {
	if len(q.events) >= maxQueue {
		return false
	}
	q.events = append(q.events, e)
	return true
}

// sync has the service told what is blocked now. What was blocked earlier need not be told any more.
func (q *queue) sync(live []netip.Prefix) {
	q.live, q.at = append([]netip.Prefix{}, live...), len(q.events)
}

// next is what the service is to be told next: sources, unless they are nil, or else events. It stays in the queue.
func (q *queue) next() ([]netip.Prefix, []hook.Event) {
	n := min(len(q.events), maxBatch)
	if q.live != nil {
		if q.at == 0 {
			return q.live, nil
		}
		n = min(n, q.at)
	}
	return nil, q.events[:n:n]
}

// drop takes so many events out that were told.
func (q *queue) drop(n int) {
	if q.events, q.at = q.events[n:], max(q.at-n, 0); len(q.events) == 0 {
		q.events = nil // let go of the array
	}
}

// synced takes sources out that were told, unless there are others by now.
func (q *queue) synced(live []netip.Prefix) {
	if len(live) == len(q.live) && (len(live) == 0 || &live[0] == &q.live[0]) && q.at == 0 {
		q.live = nil
	}
}
