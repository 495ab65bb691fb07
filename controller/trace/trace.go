package trace

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// How much is remembered at the most, some 7 MiB in all.
const (
	MaxSources = 4096 // with probes; as many again with blocks that have ended
	MaxProbes  = 16   // of each
)

// A Probe is one touch of a tripwire.
type Probe struct {
	Time     time.Time
	Address  netip.Addr // the one that was seen
	Port     uint16     // that was touched; 0 if it cannot be told
	Protocol string     // "tcp" or "udp"; "" if it cannot be told
	Kind     string     // such as "syn"; "" if it cannot be told
	Outcome  string     // what came of it, in a word of the caller's
	Proven   bool       // its handshake was completed
}

// same tells whether p and q are one probe, perhaps with another outcome.
func (p Probe) same(q Probe) bool {
	return p.Time.Equal(q.Time) && p.Address == q.Address && p.Port == q.Port && p.Protocol == q.Protocol
}

// A History is what is remembered of the probes of one source.
type History struct {
	Total  uint64    // how many there were since First
	First  time.Time // of the first one
	Probes []Probe   // the last of them, the oldest first; at most MaxProbes
}

// An Ending is how a block ended.
type Ending struct {
	Time   time.Time
	Reason string
}

// A Log remembers. It may be used by many at once.
type Log struct {
	mu     sync.Mutex
	probes *simplelru.LRU[netip.Prefix, *record] // guarded by mu
	ends   *simplelru.LRU[netip.Prefix, Ending]  // guarded by mu
}

// A record is a History whose last probe may be anywhere in the ring.
type record struct {
	total uint64
	first time.Time
	ring  []Probe
	next  int // where the next one goes, once the ring has MaxProbes
}

// New makes a Log that remembers nothing, and takes no room until there is
// something to remember.
func New() *Log {
	probes, _ := simplelru.NewLRU[netip.Prefix, *record](MaxSources, nil) // the only error is of a size below 1
	ends, _ := simplelru.NewLRU[netip.Prefix, Ending](MaxSources, nil)
	return &Log{probes: probes, ends: ends}
}

// Add remembers a probe of a source, as it would be blocked. One that is there
// already gets the new outcome. The source that was not heard of for the
// longest time makes room for a new one.
func (l *Log) Add(source netip.Prefix, p Probe) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r, known := l.probes.Get(source)
	if !known {
		r = &record{first: p.Time}
		l.probes.Add(source, r)
	}
	r.add(p)
}

func (r *record) add(p Probe) {
	for i := range r.ring {
		if r.ring[i].same(p) {
			r.ring[i].Outcome = p.Outcome
			return
		}
	}
	r.total++
	if len(r.ring) < MaxProbes {
		r.ring = append(r.ring, p)
		return
	}
	r.ring[r.next] = p
	r.next = (r.next + 1) % MaxProbes
}

// End remembers how a block of a source ended.
func (l *Log) End(source netip.Prefix, e Ending) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ends.Add(source, e)
}

// Probes tells what is remembered of the probes of a source, which the caller
// owns. To ask keeps nobody from being forgotten.
func (l *Log) Probes(source netip.Prefix) (History, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r, known := l.probes.Peek(source)
	if !known {
		return History{}, false
	}
	h := History{Total: r.total, First: r.first, Probes: append(slices.Clone(r.ring[r.next:]), r.ring[:r.next]...)}
	slices.SortStableFunc(h.Probes, func(a, b Probe) int { return a.Time.Compare(b.Time) }) // some come late, from the disk
	return h, true
}

// Ended tells how the last block of a source ended, if that is remembered.
func (l *Log) Ended(source netip.Prefix) (Ending, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ends.Peek(source)
}
