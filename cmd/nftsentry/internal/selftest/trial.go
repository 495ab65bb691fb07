package selftest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"nftsentry/conf"
	"nftsentry/controller/api"
	"nftsentry/nft"
)

// How long things may take on a slow machine. They take milliseconds, or a tenth of a second where the daemon learns of
// them by NFLOG.
const (
	waiting   = 5 * time.Second
	settling  = 20 * time.Millisecond
	answering = 5 * time.Second
	silence   = 100 * time.Millisecond // is taken for no answer
)

// A lab has all that trials need.
type lab struct {
	cfg    conf.Config
	world  *world
	daemon *daemon
	table  *nft.Table // of the guarded host
	// patience is how long the daemon and the kernel may take.
	patience time.Duration
	// settle is how long a block that should not be may take to be seen.
	settle time.Duration
}

// A trial is one that is under way.
type trial struct {
	*lab
	kind   kind
	family family
	source netip.Addr
	before api.Status
	Trial
}

// try makes a trial from the i-th source. The error is that the test itself does not work.
func (l *lab) try(ctx context.Context, k kind, f family, i int) (Trial, error) {
	t := &trial{lab: l, kind: k, family: f, source: f.source(i), Trial: Trial{
		Kind: k.name, Family: f.name, Outcome: NotWatched, Ports: k.tripwires(l.cfg, l.world.port), Blocked: No,
	}}
	if len(t.Ports) == 0 {
		t.Ports = []uint16{}
		return t.Trial, nil
	}
	t.Source = t.source.String()
	t.Outcome = AsConfigured
	if err := t.run(ctx); err != nil {
		return t.Trial, fmt.Errorf("%s over %s: %w", k.name, f.name, err)
	}
	return t.Trial, nil
}

// A problem is what is not as configured.
type problem string

func (p problem) Error() string { return string(p) }

// run goes through the life of a block, up to the first thing that is not as configured.
func (t *trial) run(ctx context.Context) error {
	for _, step := range []func(context.Context) error{t.begin, t.scan, t.notice, t.expectSilence, t.release} {
		err := step(ctx)
		var p problem
		if errors.As(err, &p) {
			t.Outcome, t.Problem = Failed, string(p)
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// begin has the source answered by a service, as anybody is.
func (t *trial) begin(ctx context.Context) (err error) {
	if err := t.world.dial(ctx, t.family, t.source, t.world.port, answering); err != nil {
		return problem(fmt.Sprintf("the source gets no answer before it has done anything: %v", err))
	}
	t.before, err = t.daemon.Status(ctx)
	return err
}

// scan sends probes until there is a block, or until there should be one.
func (t *trial) scan(ctx context.Context) error {
	most := t.kind.trigger(t.cfg)
	if t.kind.name != connect {
		most = min(most, len(t.Ports))
	}
	for i := range most {
		began := time.Now()
		if err := t.probe(ctx, t.Ports[i%len(t.Ports)]); err != nil {
			return err
		}
		blocked, err := t.blocked(ctx, t.wait(i+1, most))
		if err != nil {
			return err
		}
		if blocked {
			t.Blocked, t.Probes, t.Microseconds = Yes, i+1, time.Since(began).Microseconds()
			if t.atOnce() {
				t.Microseconds = 0 // most of it was spent on waiting for the connection
			}
			return t.judge(i+1, most)
		}
		if i == most-1 && t.enough() && !t.kind.blocks(t.cfg) {
			return t.would(ctx, began, most)
		}
	}
	if t.expected() {
		return problem(fmt.Sprintf("no block after %d probes", most))
	}
	return nil
}

// wait is how long to look for a block after so many probes: long for one that is due, a little for one that would be
// wrong, before the probe that is to make it and after the last.
func (t *trial) wait(probes, most int) time.Duration {
	switch {
	case probes == most && t.expected():
		return t.patience
	case probes >= most-1:
		return t.settle
	}
	return 0
}

// enough tells whether the tripwires are as many as make a block.
func (t *trial) enough() bool {
	return t.kind.name == connect || len(t.Ports) >= t.kind.trigger(t.cfg)
}

// expected tells whether there is to be a block in the end.
func (t *trial) expected() bool { return t.kind.blocks(t.cfg) && t.enough() }

// judge says whether a block is one that the configuration asks for.
func (t *trial) judge(probes, trigger int) error {
	switch {
	case !t.kind.blocks(t.cfg):
		return problem("blocked, where the configuration only logs")
	case probes < trigger:
		return problem(fmt.Sprintf("blocked after %d of %d probes", probes, trigger))
	}
	return nil
}

// probe sends one probe from the source.
func (t *trial) probe(ctx context.Context, port uint16) error {
	if t.kind.name != connect {
		to := netip.AddrPortFrom(netip.MustParseAddr(t.family.guarded), port)
		return t.world.sender.Transmit(ctx, t.kind.packet(netip.AddrPortFrom(t.source, 40000+port%10000), to))
	}
	within := answering
	if t.atOnce() {
		within = silence
	}
	err := t.world.dial(ctx, t.family, t.source, port, within)
	if err != nil && !(t.atOnce() && isTimeout(err)) {
		return problem(fmt.Sprintf("no decoy answers on port %d: %v", port, err))
	}
	return nil
}

// atOnce tells whether the packet that opens a connection makes a block, and is dropped.
func (t *trial) atOnce() bool {
	return t.kind.name == connect && t.kind.recorded(t.cfg) != connect && t.kind.blocks(t.cfg)
}

// blocked looks for the block in the kernel, within a time. What the rules themselves have blocked is mostly there at once.
func (t *trial) blocked(ctx context.Context, within time.Duration) (found bool, err error) {
	for end := time.Now().Add(within); ; time.Sleep(20 * time.Microsecond) {
		_, found, err = t.table.Left(t.prefix())
		if found || err != nil || time.Now().After(end) {
			return found, err
		}
		if err := ctx.Err(); err != nil {
			return false, err
		}
	}
}

// prefix is what is blocked of a source that is no neighbour.
func (t *trial) prefix() netip.Prefix {
	bits := t.source.BitLen()
	if t.source.Is6() {
		bits = t.cfg.Block.Prefix6
	}
	return netip.PrefixFrom(t.source, bits).Masked()
}

// would waits until the daemon says that it would have made a block.
func (t *trial) would(ctx context.Context, began time.Time, probes int) error {
	err := waitFor(ctx, t.patience, func() (bool, error) {
		s, err := t.daemon.Status(ctx)
		return s.Blocks.Would > t.before.Blocks.Would, err
	})
	if errors.Is(err, errNotYet) {
		return problem(fmt.Sprintf("after %d probes the daemon does not say that it would block", probes))
	}
	if err == nil {
		t.Blocked, t.Probes, t.Microseconds = Would, probes, time.Since(began).Microseconds()
	}
	return err
}

// notice asks the daemon what it has counted, and what it has on record of the block.
func (t *trial) notice(ctx context.Context) error {
	err := waitFor(ctx, t.patience, func() (bool, error) {
		s, err := t.daemon.Status(ctx)
		return s.Watched.Probes > t.before.Watched.Probes || s.Decoys.Connections > t.before.Decoys.Connections, err
	})
	if errors.Is(err, errNotYet) {
		return problem("the daemon has not noticed anything")
	}
	t.Noticed = err == nil
	if err != nil || t.Blocked != Yes {
		return err
	}
	return t.recorded(ctx)
}

// recorded waits until the block is on record, for the right reason.
func (t *trial) recorded(ctx context.Context) error {
	var found api.Block
	err := waitFor(ctx, t.patience, func() (bool, error) {
		all, err := t.daemon.List(ctx)
		for _, b := range all {
			if b.Source == api.Display(t.prefix()) && b.Kind != "" {
				found = b
				return true, err
			}
		}
		return false, err
	})
	switch want := t.kind.recorded(t.cfg); {
	case errors.Is(err, errNotYet):
		return problem("the kernel has the block, but not the daemon")
	case err != nil:
		return err
	case found.Kind != want:
		return problem(fmt.Sprintf("blocked for %q, want %q", found.Kind, want))
	}
	return nil
}

// expectSilence has the service give no answer to a blocked source, and answer one that is not.
func (t *trial) expectSilence(ctx context.Context) error {
	if t.Blocked != Yes {
		return t.expectAnswer(ctx, "not blocked, and the service does not answer")
	}
	before, err := t.table.Counters()
	if err != nil {
		return err
	}
	within := silence
	if t.cfg.Block.Action == conf.Reject {
		within = answering
	}
	err = t.world.dial(ctx, t.family, t.source, t.world.port, within)
	after, cerr := t.table.Counters()
	if cerr != nil {
		return cerr
	}
	t.Packets = after.Dropped.Packets - before.Dropped.Packets
	refused := errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EHOSTUNREACH)
	switch {
	case err == nil:
		return problem("blocked, and a service answers all the same")
	case ctx.Err() != nil:
		return ctx.Err()
	case t.cfg.Block.Action == conf.Drop && !isTimeout(err):
		return problem(fmt.Sprintf("blocked, and still told: %v", err))
	case t.cfg.Block.Action == conf.Reject && !refused:
		return problem(fmt.Sprintf("blocked, and not refused as configured: %v", err))
	case t.Packets == 0:
		return problem("no answer, but the kernel has counted nothing that it dropped")
	}
	t.Dropped = true
	return nil
}

func isTimeout(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) || os.IsTimeout(err)
}

func (t *trial) expectAnswer(ctx context.Context, otherwise string) error {
	if err := t.world.dial(ctx, t.family, t.source, t.world.port, answering); err != nil {
		return problem(fmt.Sprintf("%s: %v", otherwise, err))
	}
	return nil
}

// release ends the block, as an operator does.
func (t *trial) release(ctx context.Context) error {
	if t.Blocked != Yes {
		return nil
	}
	if _, err := t.daemon.Unblock(ctx, t.source.String()); err != nil {
		return problem(fmt.Sprintf("it cannot be unblocked: %v", err))
	}
	if _, found, err := t.table.Left(t.prefix()); found || err != nil {
		return errors.Join(problem("unblocked, and still in the kernel"), err)
	}
	err := t.expectAnswer(ctx, "unblocked, and the service does not answer")
	t.Released = err == nil
	return err
}
