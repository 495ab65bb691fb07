package hook

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/time/rate"
)

// A sink does what a hook is for. The ctx ends at the hook's timeout.
type sink interface {
	do(context.Context, *job) error
}

// A spec is a hook as the configuration has it.
type spec struct {
	name string // such as "exec[0]"
	id   string // of the same hook in another configuration
	what string // for a person
	sink sink

	on      map[On]bool
	timeout time.Duration
	limit   Rate
	// free lets every event in: no limit per source, and none over all.
	free bool
	// digest is for a mail, which is limited itself and not its events.
	digest *time.Duration
	// most is how many jobs there may be at once.
	most int
	// final jobs are done at the end too.
	final bool
	// retries are how long to wait before each further attempt. A hook of changes has no end of them.
	retries []time.Duration
}

// A permanentError is not worth another attempt.
type permanentError struct{ err error }

func (e *permanentError) Error() string { return e.err.Error() }
func (e *permanentError) Unwrap() error { return e.err }

// A laterError says when to try again.
type laterError struct {
	err   error
	after time.Duration
}

func (e *laterError) Error() string { return e.err.Error() }
func (e *laterError) Unwrap() error { return e.err }

// A Stat is what has become of the events of one hook, since it was configured first.
type Stat struct {
	// Name is the hook's place in the configuration, such as "exec[0]"; What is what it runs or reaches.
	Name string `json:"name"`
	What string `json:"what"`
	// Done, Failed and TimedOut count runs, mails, requests and rewritings; TimedOut all attempts.
	Done     uint64 `json:"done"`
	Failed   uint64 `json:"failed"`
	TimedOut uint64 `json:"timed_out"`
	// Dropped and Limited count events: for want of room, and by a limit.
	Dropped uint64 `json:"dropped"`
	Limited uint64 `json:"limited"`
	// Waiting are events in the queue, Running jobs at work.
	Waiting int `json:"waiting"`
	Running int `json:"running"`
}

// A slot is a hook at work. The Runner's mutex guards it.
type slot struct {
	spec
	queue   queue
	retry   []*job
	recent  recent
	limiter *rate.Limiter
	running int
	slow    bool // the last job ran into its timeout
	leaving bool // out of the configuration, with something left to do
	ended   bool // has had its last job

	stat         Stat
	said         time.Time // when dropped and limited events were told last
	saidD, saidL uint64
}

// set makes a slot do what a spec says; what waits stays, and what is used up of the limit, unless that has changed.
func (s *slot) set(sp spec) {
	if s.limiter == nil || s.limit != sp.limit {
		s.limiter = limiter(sp.limit)
	}
	s.spec, s.leaving = sp, false
	switch q := s.queue.(type) {
	case *digest:
		q.wait, q.limit = *sp.digest, s.limiter
	case nil:
		s.queue = sp.newQueue(s.limiter)
	}
}

func (sp *spec) newQueue(l *rate.Limiter) queue {
	switch {
	case sp.free:
		return &changes{}
	case sp.digest != nil:
		return &digest{wait: *sp.digest, limit: l}
	}
	return &fifo{}
}

// take puts an event into the queue, or counts why not.
func (s *slot) take(e Event, now time.Time) {
	if !s.on[e.On] || s.leaving {
		return
	}
	if !s.free && !s.allow(e.key(), now) {
		s.stat.Limited++
		return
	}
	if s.waiting() >= maxQueue && s.digest == nil && !s.free || !s.queue.push(e, now) {
		s.stat.Dropped++
	}
}

// allow says whether the limits let an event pass, and counts it if so.
func (s *slot) allow(key sourceKey, now time.Time) bool {
	if s.recent.told(key, now) || s.digest == nil && !s.limiter.AllowN(now, 1) {
		return false
	}
	s.recent.tell(key, now)
	return true
}

// waiting is how many events wait, those for a further attempt included.
func (s *slot) waiting() int {
	n := s.queue.size()
	for _, j := range s.retry {
		n += len(j.events) + j.more
	}
	return n
}

// next gives a job to do now; or else how long to wait for one, 0 for until something happens.
func (s *slot) next(now time.Time, final bool) (*job, time.Duration) {
	most := s.most
	if s.slow {
		most = 1
	}
	if s.running >= most || final && (!s.final || s.ended) {
		return nil, 0
	}
	j, wait := s.pop(now, final)
	if j != nil {
		s.running++
		s.ended = final
	}
	return j, wait
}

// pop takes a job that failed before, if its time has come, or a new one. A hook with one job at a time does not begin
// another before that.
func (s *slot) pop(now time.Time, final bool) (*job, time.Duration) {
	var wait time.Duration
	for i, j := range s.retry {
		if d := j.due.Sub(now); d > 0 && !final {
			wait = sooner(wait, d)
			continue
		}
		s.retry = append(s.retry[:i:i], s.retry[i+1:]...)
		return j, 0
	}
	if s.most == 1 && len(s.retry) > 0 {
		return nil, wait
	}
	j, d := s.queue.pop(now, final)
	return j, sooner(wait, d)
}

// sooner is the shorter of two waits, of which 0 has no end.
func sooner(a, b time.Duration) time.Duration {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// done takes note of the end of a job, and says whether it will be tried again.
func (s *slot) done(j *job, err error, now time.Time) (again bool) {
	s.running--
	s.slow = false
	if err == nil {
		s.stat.Done++
		return false
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		s.slow = true
		s.stat.TimedOut++
	}
	if q, ok := s.queue.(*changes); ok {
		s.stat.Failed++
		q.restore(j, now)
		q.next = now.Add(s.retries[min(j.attempt, len(s.retries)-1)])
		return true
	}
	var permanent *permanentError
	if j.attempt >= len(s.retries) || errors.As(err, &permanent) || s.leaving || s.ended {
		s.stat.Failed++
		return false
	}
	wait := s.retries[j.attempt]
	var later *laterError
	if errors.As(err, &later) {
		wait = max(wait, later.after)
	}
	j.attempt, j.due = j.attempt+1, now.Add(wait)
	s.retry = append(s.retry, j)
	return true
}

// snapshot is the Stat of now.
func (s *slot) snapshot() Stat {
	out := s.stat
	out.Name, out.What, out.Waiting, out.Running = s.name, s.what, s.waiting(), s.running
	return out
}
