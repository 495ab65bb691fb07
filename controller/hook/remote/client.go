package remote

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"nftsentry/controller/hook"
)

const (
	pingEvery = 5 * time.Second
	firstWait = 50 * time.Millisecond
	maxWait   = 5 * time.Second // between two attempts to reach a service that does not answer
	grace     = time.Second     // to tell what waits when Run ends
	syncTime  = 10 * time.Second
	statsTime = time.Second
)

// A Config says where the service is.
type Config struct {
	// Socket is the path of its socket.
	Socket string
	// Resync calls Sync if there is need to. It is called, by one goroutine, when the service has been reached for the first
	// time, was restarted, or has missed events. Nil if there never is.
	Resync func(ctx context.Context)
}

// A Client tells a hook service of events. Its methods may be called at any time and from any goroutine, Run once.
type Client struct {
	Config
	log  *zap.Logger
	http http.Client
	ping time.Duration // how often the service is asked if there is nothing to tell
	wake chan struct{} // a token if there is something to tell; sent without waiting
	back chan struct{} // a token if the service may have missed something; sent without waiting

	mu       sync.Mutex // guards what follows; never held while something is waited for
	queue    queue
	health   Health
	instance string // of the service that has answered last; "" before
	owed     bool   // the service is to read its configuration again
	missed   bool   // events were dropped that the service will not hear of
	stats    []hook.Stat
}

// A Health is how the service is reached.
type Health struct {
	Socket string
	// Away is why the service does not answer; nil if it does. Since is when it was noticed.
	Away  error
	Since time.Time
	// Waiting are events that it is to be told, Dropped those that found no room, or were refused.
	Waiting int
	Dropped uint64
}

// New makes a client. It connects when it runs.
func New(cfg Config, log *zap.Logger) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", cfg.Socket)
	}
	return &Client{
		Config: cfg, log: log, ping: pingEvery, wake: make(chan struct{}, 1), back: make(chan struct{}, 1),
		// A connection for each request: one to a service that was restarted cannot be taken for one to the new.
		http:   http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}},
		health: Health{Socket: cfg.Socket},
	}
}

func poke(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Tell puts an event into the queue, and never waits.
func (c *Client) Tell(e hook.Event) {
	e = e.Clean()
	c.mu.Lock()
	if !c.queue.push(e) {
		c.health.Dropped++
		c.missed = true
	}
	c.mu.Unlock()
	poke(c.wake)
}

// Sync has the service told which blocks there are, after all events so far.
func (c *Client) Sync(live []hook.Event) {
	sources := make([]netip.Prefix, 0, len(live))
	for _, e := range live {
		if e.Source.IsValid() {
			sources = append(sources, e.Source)
		}
	}
	c.mu.Lock()
	c.queue.sync(sources)
	c.mu.Unlock()
	poke(c.wake)
}

// Stats are those of the service: of now, or of when it has answered last. It waits a second at most.
func (c *Client) Stats() []hook.Stat {
	var t tally
	err := c.ask(context.Background(), statsTime, http.MethodGet, statsPath, nil, &t)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		c.stats = t.Hooks
	}
	return c.stats
}

// Health is how the service is reached now.
func (c *Client) Health() Health {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.health
	h.Waiting = len(c.queue.events)
	return h
}

// Run tells the service of events until ctx ends, which is no error. Then it may go on for a second.
func (c *Client) Run(ctx context.Context) error {
	var g errgroup.Group
	g.Go(func() error {
		c.send(ctx)
		return nil
	})
	g.Go(func() error {
		c.mend(ctx)
		return nil
	})
	err := g.Wait()
	if n := c.Health().Waiting; n > 0 {
		c.log.Warn("hooks were not told of all events", zap.Int("events", n))
	}
	return err
}

// send tells what is to be told, until ctx ends.
func (c *Client) send(ctx context.Context) {
	wait := firstWait
	for ctx.Err() == nil {
		more, err := c.tellNext(ctx)
		switch {
		case err != nil:
			rest(ctx, nil, wait)
			wait = min(2*wait, maxWait)
			continue
		case !more:
			rest(ctx, c.wake, c.ping)
		}
		wait = firstWait
	}
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	for c.pending() {
		if _, err := c.tellNext(late); err != nil {
			return
		}
	}
}

// rest waits for a token, the end of a time, or that of ctx.
func rest(ctx context.Context, token <-chan struct{}, most time.Duration) {
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-token:
	case <-timer.C:
	}
}

func (c *Client) pending() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.queue.events) > 0 || c.queue.live != nil
}

// tellNext tells what is next, and says whether there was anything. An error is that the service is away.
func (c *Client) tellNext(ctx context.Context) (bool, error) {
	c.mu.Lock()
	live, events := c.queue.next()
	c.mu.Unlock()
	var err error
	switch {
	case live != nil:
		err = c.ask(ctx, patience, http.MethodPost, sourcesPath, blocked{live}, nil)
	case len(events) > 0:
		err = c.ask(ctx, patience, http.MethodPost, eventsPath, batch{events}, nil)
	default:
		var t tally
		if err = c.ask(ctx, patience, http.MethodGet, statsPath, nil, &t); err == nil {
			c.mu.Lock()
			c.stats = t.Hooks
			c.mu.Unlock()
		}
		return false, err
	}
	if err != nil && !isRefusal(err) {
		return false, err
	}
	c.told(live, events, err)
	return true, nil
}

// told takes out of the queue what was told, or refused.
func (c *Client) told(live []netip.Prefix, events []hook.Event, refused error) {
	c.mu.Lock()
	if live != nil {
		c.queue.synced(live)
	}
	c.queue.drop(len(events))
	if refused != nil {
		c.health.Dropped += uint64(len(events))
	}
	resync := c.missed && len(c.queue.events) < maxQueue/2
	if resync {
		c.missed = false
	}
	c.mu.Unlock()
	if refused != nil {
		c.log.Error("the hook service refuses events: are the daemon and the service of one version?", zap.Error(refused))
	}
	if resync {
		poke(c.back)
	}
}

// mend puts right what the service may have missed, until ctx ends.
func (c *Client) mend(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.back:
		}
		c.redeem(ctx)
		if c.Resync != nil {
			within, cancel := context.WithTimeout(ctx, syncTime)
			c.Resync(within)
			cancel()
		}
	}
}
