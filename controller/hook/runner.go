package hook

import (
	"context"
	"errors"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
)

const (
	// workers is how many jobs of all hooks run at once.
	workers = 4
	// grace is how long jobs may go on when the Runner ends.
	grace = time.Second
	// sayEvery is how often it is told that events were dropped or limited.
	sayEvery = time.Minute
)

// A Runner tells hooks of events. Its methods may be called at any time and from any goroutine, Run once.
type Runner struct {
	log   *zap.Logger
	trust trust
	wake  chan struct{} // a token for each worker at most; sent without waiting

	mu      sync.Mutex // guards what follows; never held while something is waited for
	modeTCP string
	modeUDP string
	slots   []*slot
	turn    int // of the slot that is asked first
}

// New checks a configuration: programs, files and templates. The error has all that is wrong, joined. Until Run runs,
// events wait.
func New(cfg Config, log *zap.Logger) (*Runner, error) {
	return newRunner(cfg, log, trust{})
}

func newRunner(cfg Config, log *zap.Logger, t trust) (*Runner, error) {
	r := &Runner{log: log, trust: t, wake: make(chan struct{}, workers)}
	return r, r.Configure(cfg)
}

// A Prepared configuration waits to be taken over, or given up; either is called once.
type Prepared interface {
	// Commit takes it over. An error says that it may not have been.
	Commit(ctx context.Context) error
	// Abort gives it up: nothing has changed.
	Abort()
}

// Configure changes which hooks there are, or returns all that is wrong and changes nothing: Prepare and Commit at once.
func (r *Runner) Configure(cfg Config) error {
	p, err := r.Prepare(context.Background(), cfg)
	if err != nil {
		return err
	}
	return p.Commit(context.Background())
}

// Prepare checks a configuration, programs, files and templates, and changes nothing. The error has all that is wrong,
// joined.
func (r *Runner) Prepare(_ context.Context, cfg Config) (Prepared, error) {
	specs, err := build(cfg, r.trust, r.log)
	if err != nil {
		return nil, err
	}
	return &plan{runner: r, cfg: cfg, specs: specs}, nil
}

// A plan is a Prepared configuration of a Runner.
type plan struct {
	runner *Runner
	cfg    Config
	specs  []spec
}

// Abort has nothing to undo.
func (p *plan) Abort() {}

// Commit changes which hooks there are. Hooks that the old and the new configuration have keep what waits for them, their
// counts and limits. Where hosts.deny is no longer kept, its lines are taken out. The caller calls Sync next if there is a
// HostsDeny. It never fails.
func (p *plan) Commit(context.Context) error {
	r, cfg, specs := p.runner, p.cfg, p.specs
	r.mu.Lock()
	defer r.mu.Unlock()
	r.modeTCP, r.modeUDP = cfg.ModeTCP, cfg.ModeUDP
	old := r.slots
	r.slots = nil
	for _, sp := range specs {
		var s *slot
		if s, old = pick(old, sp.id); s == nil {
			s = new(slot)
		}
		s.set(sp)
		r.slots = append(r.slots, s)
	}
	for _, s := range old {
		r.leave(s)
	}
	r.wakeAll()
	return nil
}

// pick takes the slot with an identity out of some, nil if there is none.
func pick(slots []*slot, id string) (*slot, []*slot) {
	for i, s := range slots {
		if s.id == id {
			return s, append(slots[:i:i], slots[i+1:]...)
		}
	}
	return nil, slots
}

// leave ends a hook that the configuration no longer has.
func (r *Runner) leave(s *slot) {
	q, ok := s.queue.(*changes)
	if !ok {
		return
	}
	if !s.leaving {
		q.replace(nil, time.Now())
	}
	s.leaving = true
	r.slots = append(r.slots, s)
}

// Tell puts an event into the queues of the hooks that want it, and never waits for one. An event without a Mode gets that
// of its Protocol.
func (r *Runner) Tell(e Event) {
	e = e.Clean()
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.Mode == "" && e.Protocol == "tcp" {
		e.Mode = r.modeTCP
	}
	if e.Mode == "" && e.Protocol == "udp" {
		e.Mode = r.modeUDP
	}
	for _, s := range r.slots {
		s.take(e, now)
	}
	r.wakeAll()
}

// Sync says which blocks there are, so that hosts.deny has their lines and no others of ours. It is called at the start,
// and after Configure.
func (r *Runner) Sync(live []Event) {
	var sources []netip.Prefix
	for _, e := range live {
		if p := e.key().source; p.IsValid() {
			sources = append(sources, p)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.slots {
		if q, ok := s.queue.(*changes); ok && !s.leaving {
			q.replace(sources, time.Now())
		}
	}
	r.wakeAll()
}

// Stats are the counts of all hooks, in the order of the configuration: exec, mail, webhook and hosts_deny.
func (r *Runner) Stats() []Stat {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []Stat
	for _, s := range r.slots {
		if !s.leaving {
			out = append(out, s.snapshot())
		}
	}
	return out
}

// wakeAll lets idle workers look again.
func (r *Runner) wakeAll() {
	for range workers {
		select {
		case r.wake <- struct{}{}:
		default:
			return
		}
	}
}

// Run does the work until ctx ends, which is no error. Then what is at work may go on for a second, in which mails that
// wait are sent and hosts.deny is rewritten; what is left is killed.
func (r *Runner) Run(ctx context.Context) error {
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(grace, cancel) })
	defer stop()
	var g errgroup.Group
	for range workers {
		g.Go(func() error {
			r.worker(ctx, work)
			return nil
		})
	}
	err := g.Wait()
	r.leftovers()
	return err
}

// worker does jobs until ctx ends, each with the context work.
func (r *Runner) worker(ctx, work context.Context) {
	for {
		final := ctx.Err() != nil
		s, j, wait := r.next(final)
		r.say()
		switch {
		case j != nil:
			r.do(work, s, j)
		case final:
			return
		default:
			r.rest(ctx, wait)
		}
	}
}

// rest waits until something happens, for no longer than wait unless it is 0.
func (r *Runner) rest(ctx context.Context, wait time.Duration) {
	var after <-chan time.Time
	if wait > 0 {
		after = time.After(wait)
	}
	select {
	case <-ctx.Done():
	case <-r.wake:
	case <-after:
	}
}

// next gives a job of the next hook that has one, or how long to wait.
func (r *Runner) next(final bool) (*slot, *job, time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	var wait time.Duration
	for i := range r.slots {
		at := (r.turn + i) % len(r.slots)
		s := r.slots[at]
		j, d := s.next(now, final)
		if j != nil {
			r.turn = at + 1
			return s, j, 0
		}
		wait = sooner(wait, d)
		if s.unsaid() {
			wait = sooner(wait, max(s.said.Add(sayEvery).Sub(now), 1))
		}
	}
	return nil, nil, wait
}

// do does a job and takes note of what came of it.
func (r *Runner) do(work context.Context, s *slot, j *job) {
	r.mu.Lock()
	name, what, timeout, sink := s.name, s.what, s.timeout, s.sink
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(work, timeout)
	err := sink.do(ctx, j)
	cancel()

	r.mu.Lock()
	again := s.done(j, err, time.Now())
	r.forget(s)
	r.wakeAll() // a hook of one job at a time may have another
	r.mu.Unlock()
	if err != nil {
		r.failed(j, again, err, zap.String("hook", name), zap.String("what", what))
	}
}

// failed tells of a job that failed.
func (r *Runner) failed(j *job, again bool, err error, fields ...zap.Field) {
	fields = append(fields, zap.Int("events", len(j.events)+j.more), zap.Error(err))
	if len(j.events) > 0 {
		fields = append(fields, zap.String("event", string(j.events[0].On)), zap.String("target", j.events[0].Target()))
	}
	var program *programError
	if errors.As(err, &program) && program.output != "" {
		fields = append(fields, zap.String("output", strconv.Quote(program.output)))
	}
	if again {
		r.log.Warn("hook failed and is tried again", fields...)
		return
	}
	r.log.Error("hook failed", fields...)
}

// forget takes a hook away that is out of the configuration and has nothing left to do.
func (r *Runner) forget(gone *slot) {
	if q, ok := gone.queue.(*changes); !gone.leaving || gone.running > 0 || !ok || q.only || q.size() > 0 {
		return
	}
	for i, s := range r.slots {
		if s == gone {
			r.slots = append(r.slots[:i:i], r.slots[i+1:]...)
			return
		}
	}
}

// unsaid says whether events were dropped or limited of which nothing was told.
func (s *slot) unsaid() bool { return s.stat.Dropped != s.saidD || s.stat.Limited != s.saidL }

// say tells of events that were dropped or limited, of each hook once in sayEvery.
func (r *Runner) say() {
	type lost struct {
		name             string
		dropped, limited uint64
	}
	var all []lost
	now := time.Now()
	r.mu.Lock()
	for _, s := range r.slots {
		if s.unsaid() && now.Sub(s.said) >= sayEvery {
			all = append(all, lost{s.name, s.stat.Dropped - s.saidD, s.stat.Limited - s.saidL})
			s.said, s.saidD, s.saidL = now, s.stat.Dropped, s.stat.Limited
		}
	}
	r.mu.Unlock()
	for _, one := range all {
		r.log.Warn("hook was not told of all events", zap.String("hook", one.name),
			zap.Uint64("dropped", one.dropped), zap.Uint64("limited", one.limited))
	}
}

// leftovers counts and tells what nobody was told of in the end.
func (r *Runner) leftovers() {
	r.mu.Lock()
	lost := make(map[string]int)
	for _, s := range r.slots {
		if n := s.waiting(); n > 0 {
			s.stat.Dropped += uint64(n)
			lost[s.name] = n
		}
	}
	r.mu.Unlock()
	for name, n := range lost {
		r.log.Warn("hook ends before it was told of all events", zap.String("hook", name), zap.Int("events", n))
	}
}
