package host

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"go.uber.org/zap"
)

const (
	// settle is how long the first of several changes waits for the others.
	settle = 100 * time.Millisecond
	// minInterval is the shortest time from one reading to the next.
	minInterval = time.Second
	// share is how many times as long as a reading took the next one waits, at most maxInterval: on a router with a
	// full table a reading takes a second of processor time, and its routes change all the while.
	share       = 20
	maxInterval = time.Minute
	// statInterval is how often the files of the resolvers are looked at while nothing else changes.
	statInterval = 30 * time.Second
	// minBackoff and maxBackoff bound how long a reading that failed waits for the next; it doubles each time.
	minBackoff = time.Second
	maxBackoff = 30 * time.Second
)

// kernel is what the Watcher asks of the kernel.
type kernel interface {
	addresses(context.Context) ([]netip.Addr, []netip.Prefix, error)
	gateways(context.Context) ([]netip.Addr, error)
	sockets(ctx context.Context, request []byte, each func([]byte) error) error
	subscribe() (subscription, error)
}

// subscription tells that something changed since it was made.
type subscription interface {
	// wait returns true after a change, and false when d has passed or ctx has ended.
	wait(ctx context.Context, d time.Duration) (bool, error)
	Close() error
}

// A Watcher reads and follows the Facts of a host. Its methods may be called at once.
type Watcher struct {
	log    *zap.Logger
	kernel kernel
	files  resolvFiles

	mu    sync.Mutex // guards known
	known Facts
}

// An Option changes where a Watcher looks.
type Option func(*Watcher)

// WithNetNS makes the Watcher look at the network namespace of a file descriptor, which must stay open, instead of the
// one that the program is in.
func WithNetNS(fd int) Option {
	return func(w *Watcher) { w.kernel = rtnl{netns: fd} }
}

// WithResolv makes the Watcher read the resolvers from conf instead of /etc/resolv.conf, and, if that names a loopback
// address or none, from the files upstream too.
func WithResolv(conf string, upstream ...string) Option {
	return func(w *Watcher) { w.files = resolvFiles{conf: conf, upstream: upstream} }
}

// New returns a Watcher of the host that the program runs on.
func New(log *zap.Logger, options ...Option) *Watcher {
	w := &Watcher{
		log:    log,
		kernel: rtnl{},
		files:  resolvFiles{conf: resolvConf, upstream: []string{resolvedConf, netManagerConf}},
	}
	for _, o := range options {
		o(w)
	}
	return w
}

// Read returns what the host is now. What cannot be read keeps the value that it had at an earlier reading, so with an
// error too the Facts are the best that is known.
func (w *Watcher) Read() (Facts, error) {
	return w.read(context.Background())
}

// read is Read that ends early with ctx.
func (w *Watcher) read(ctx context.Context) (Facts, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	addresses, onLink6, aerr := w.kernel.addresses(ctx)
	if aerr == nil {
		w.known.Addresses, w.known.OnLink6 = addresses, onLink6
	} else if w.known.OnLink6 == nil {
		w.known.OnLink6 = []netip.Prefix{linkLocal6}
	}
	gateways, gerr := w.kernel.gateways(ctx)
	if gerr == nil {
		w.known.Gateways = gateways
	}
	resolvers, rerr := w.files.read()
	if rerr == nil {
		w.known.Resolvers = resolvers
	}
	return w.known, errors.Join(aerr, gerr, rerr)
}

// Run calls changed with the Facts at once, and again whenever they differ from those it was called with last, until
// ctx ends; it returns nil then. Calls are made one at a time in the goroutine of Run, which reads nothing meanwhile.
// Errors never end it: the first one is logged, and what failed is tried again, less and less often.
func (w *Watcher) Run(ctx context.Context, changed func(Facts)) error {
	r := run{Watcher: w, changed: changed}
	for ctx.Err() == nil {
		sleep(ctx, r.round(ctx))
	}
	return nil
}
