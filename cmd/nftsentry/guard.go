package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"nftsentry/cmd/nftsentry/internal/sandbox"
	"nftsentry/conf"
	"nftsentry/conf/ignore"
	"nftsentry/controller"
	"nftsentry/controller/api"
	"nftsentry/controller/compat"
	"nftsentry/controller/hook/remote"
	"nftsentry/controller/host"
	"nftsentry/controller/metrics"
	"nftsentry/controller/tally"
	"nftsentry/controller/trace"
	"nftsentry/listener"
	"nftsentry/nft"
	"nftsentry/state"
)

// eventQueue is how many events may wait for the controller. One that finds
// no room is lost and counted.
const eventQueue = 4096

// A guard is all parts of the daemon, opened and joined.
type guard struct {
	load    func() (conf.Config, string, error)
	log     *zap.Logger
	level   zap.AtomicLevel
	started time.Time
	closers []func() error // in the order in which they were opened

	mu   sync.Mutex // held while a command changes what follows
	cfg  atomic.Pointer[conf.Config]
	file atomic.Pointer[string] // of the configuration; "" for the built-in defaults
	list atomic.Pointer[listing]

	socket     *api.Server
	store      *state.Store
	decoy      *listener.Decoy
	nflog      *listener.NFLOG
	table      *nft.Table
	monitor    *nft.Monitor
	watcher    *host.Watcher
	follower   *ignore.Follower
	facts      host.Facts
	controller *controller.Controller
	compat     *compat.Log
	hookSocket string
	hooks      hooks
	service    *remote.Client // as hooks; nil if they run in this process
	trace      *trace.Log
	tally      *tally.Keeper
	ended      atomic.Bool      // the controller has
	metrics    *metrics.Metrics // nil if they are off
	scrapes    net.Listener     // as metrics
	box        *sandbox.Sandbox // nil for none
	unboxed    string           // why there is none
	code       []mapping        // where the program's code is in memory
}

// openGuard opens all parts, and restores the blocks on record in one
// transaction with the table. An error leaves nothing open. Load reads the
// configuration, now and for a reload. Hooks run in this process if hookSocket
// is "".
func openGuard(load func() (conf.Config, string, error), out *output, hookSocket string) (*guard, error) {
	cfg, file, err := load()
	if err != nil {
		return nil, err
	}
	g := &guard{load: load, hookSocket: hookSocket, started: time.Now(), trace: trace.New()}
	g.log, g.level = newLogger(cfg.Log, out)
	g.compat = compat.New(compat.DefaultPath, g.log.Named("compat"))
	g.cfg.Store(&cfg)
	g.file.Store(&file)
	g.code = codeMappings()
	for _, open := range []func(conf.Config) error{
		g.lock, g.openHooks, g.openSocket, g.openMetrics, g.openStore, g.openDecoy, g.openNFLOG, g.openTable, g.openMonitor, g.openIgnored, g.openController,
		g.enterSandbox,
	} {
		if err := open(cfg); err != nil {
			return nil, errors.Join(err, g.close())
		}
	}
	return g, nil
}

func (g *guard) closeLater(f func() error) { g.closers = append(g.closers, f) }

// close closes what is open, the last part first.
func (g *guard) close() error {
	var errs []error
	for _, f := range slices.Backward(g.closers) {
		errs = append(errs, f())
	}
	g.closers = nil
	return errors.Join(errs...)
}

func (g *guard) openSocket(cfg conf.Config) (err error) {
	g.socket, err = api.Listen(cfg.Control.Socket, cfg.Control.Group, g.log.Named("api"))
	if err == nil {
		g.closeLater(g.socket.Close)
	}
	return err
}

func (g *guard) lock(conf.Config) error {
	l, err := lockNamespace()
	if err == nil {
		g.closeLater(l.Close)
	}
	return err
}

func (g *guard) openStore(cfg conf.Config) (err error) {
	g.store, err = state.Open(cfg.State.Dir, g.log.Named("state"))
	if err != nil {
		return fmt.Errorf("state.dir = %q: %w", cfg.State.Dir, err)
	}
	g.closeLater(g.store.Close)
	g.tally = tally.New(g.store, g.drops, g.log.Named("tally"))
	return nil
}

func (g *guard) openDecoy(cfg conf.Config) (err error) {
	named := func(port uint16) bool {
		return conf.Contains(cfg.TCP.Decoy, port) || conf.Contains(cfg.TCP.Exclude, port)
	}
	g.decoy, err = listener.OpenDecoy(listener.DecoyConfig{
		Port: cfg.TCP.Port, Avoid: named, Banner: cfg.TCP.Banner,
	}, g.log.Named("listener"))
	if err == nil {
		g.closeLater(g.decoy.Close)
	}
	return err
}

// openNFLOG comes before the table, so that no word of the kernel is missed.
func (g *guard) openNFLOG(cfg conf.Config) (err error) {
	g.nflog, err = listener.OpenNFLOG(cfg.Trigger.NFLOGGroup, g.log.Named("listener"))
	if err == nil {
		g.closeLater(g.nflog.Close)
	}
	return err
}

func (g *guard) openTable(cfg conf.Config) (err error) {
	g.table, err = nft.Open(0, cfg.Block.Prefix6)
	if err == nil {
		g.closeLater(g.table.Close)
	}
	return err
}

func (g *guard) openMonitor(conf.Config) (err error) {
	g.monitor, err = nft.OpenMonitor(g.table, g.log.Named("nft"))
	if err == nil {
		g.closeLater(g.monitor.Close)
	}
	return err
}

func (g *guard) openController(cfg conf.Config) error {
	g.watcher = host.New(g.log.Named("host"))
	var err error
	if g.facts, err = g.watcher.Read(); err != nil {
		g.log.Warn("cannot read all of what belongs to this host", zap.Error(err))
	}
	h := hostOf(g.facts)
	h.Find = g.serving
	if h.Serving, err = g.serving(); err != nil {
		g.log.Warn("cannot find the services of this host; they are learnt from their traffic", zap.Error(err))
	}
	table := tableConfig(cfg, g.decoy.Port(), g.log)
	g.controller = controller.New(controllerConfig(cfg, table, g.list.Load()), panicked(cfg.State.Dir), h, g.table, g.store, g.hear, g.log.Named("controller"))
	return g.controller.Restore()
}

// serving are the services of this host, each remembered as if it had been
// seen by the kernel.
func (g *guard) serving() ([]nft.Service, error) {
	found, err := g.watcher.Services()
	var out []nft.Service
	for _, s := range found {
		out = append(out, nft.Service{Protocol: s.Protocol, Port: s.Port, Timeout: nft.ServedMemory})
	}
	return out, err
}

func controllerConfig(c conf.Config, table nft.Config, l *listing) controller.Config {
	ignored := make(map[netip.Prefix]string)
	for _, p := range c.Ignore.Sources {
		ignored[p] = "ignore.sources"
	}
	return controller.Config{
		Observe: c.Mode == conf.Observe, TCP: responseOf[c.TCP.Respond], UDP: responseOf[c.UDP.Respond],
		Connects: c.Trigger.Connects, Window: c.Trigger.Window,
		Timeout: c.Block.Timeout, Escalate: c.Block.Escalate, Forget: c.Block.Forget, Unproven: c.Block.Unproven,
		Ignored: ignored, Listed: listedOf(l.list), Unlisted: l.none, IgnoreHost: c.Ignore.Host,
		Table: table,
	}
}

var responseOf = map[conf.Respond]controller.Response{
	conf.RespondLog: controller.RespondLog, conf.RespondRun: controller.RespondRun, conf.RespondBlock: controller.RespondBlock,
}

// hostOf gives the reasons why what belongs to the host is never blocked.
func hostOf(f host.Facts) controller.Host {
	h := controller.Host{Ignored: make(map[netip.Prefix]string), OnLink6: f.OnLink6}
	for _, list := range []struct {
		addrs  []netip.Addr
		reason string
	}{{f.Addresses, "own address"}, {f.Gateways, "gateway"}, {f.Resolvers, "resolver"}} {
		for _, a := range list.addrs {
			p := netip.PrefixFrom(a, a.BitLen())
			if _, there := h.Ignored[p]; !there {
				h.Ignored[p] = list.reason
			}
		}
	}
	return h
}

// run guards until ctx ends, and then closes all parts. The store writes until
// nothing hands it work any more, and the audience listens until the store has
// nothing to tell.
func (g *guard) run(ctx context.Context, hup <-chan os.Signal) error {
	writing, stopWriting := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWriting()
	var writer errgroup.Group
	writer.Go(func() error { return g.store.Run(writing) })

	telling, stopTelling := context.WithCancel(context.WithoutCancel(ctx))
	defer stopTelling()
	var tellers errgroup.Group
	tellers.Go(func() error { return g.compat.Run(telling) })
	tellers.Go(func() error { return g.hooks.Run(telling) })

	g.announce()
	err := g.runTasks(ctx, hup)
	g.ended.Store(true)
	g.notify(daemon.SdNotifyStopping)
	blocks := "stay in force"
	if panicked(g.cfg.Load().State.Dir) {
		blocks = "are suspended until \"nftsentry resume\""
	} else if g.list.Load().none {
		blocks = "are suspended until ignore.files can be read"
	}
	if gone := g.table.Unlure(); errors.Is(gone, unix.ENOENT) {
		blocks = "are on record only: our table was deleted from the kernel"
	} else if !errors.Is(err, controller.ErrDenied) { // else it is said already
		err = errors.Join(err, gone)
	}
	stopWriting()
	err = errors.Join(err, writer.Wait())
	g.writeTally(telling)
	g.compatLine(compat.Down)
	stopTelling()
	err = errors.Join(err, tellers.Wait(), g.close())
	g.log.Info("stop", zap.String("blocks", blocks), zap.Error(err))
	return err
}

// extraTasks run beside the parts. A release has none: see intrusion.go.
var extraTasks []func(context.Context) error

// runTasks runs the parts until ctx ends or one of them fails.
func (g *guard) runTasks(ctx context.Context, hup <-chan os.Signal) error {
	events := make(chan listener.Event, eventQueue)
	tasks, ctx := errgroup.WithContext(ctx)
	tasks.Go(func() error { return g.controller.Run(ctx, events, g.nflog.Missed(), g.monitor.Changes()) })
	tasks.Go(func() error { return g.decoy.Run(ctx, events) })
	tasks.Go(func() error { return g.nflog.Run(ctx, events) })
	tasks.Go(func() error { return g.monitor.Run(ctx) })
	tasks.Go(func() error { return g.reloadOn(ctx, hup) })
	tasks.Go(func() error { return g.attend(ctx) })
	tasks.Go(func() error { return g.remember(ctx) })
	tasks.Go(func() error { return ended(ctx, g.syncHooks(ctx)) })
	tasks.Go(func() error { return g.tally.Run(ctx) })
	tasks.Go(func() error { return g.watcher.Run(ctx, func(f host.Facts) { g.follow(ctx, f) }) })
	tasks.Go(func() error { return g.follower.Run(ctx, g.lookAtIgnored) })
	tasks.Go(func() error { return g.socket.Run(ctx, g.controller, g) })
	if g.metrics != nil {
		tasks.Go(func() error { return g.metrics.Run(ctx, g.scrapes) })
	}
	tasks.Go(func() error { return settle(ctx, g.code) })
	for _, task := range extraTasks {
		tasks.Go(func() error { return task(ctx) })
	}
	return tasks.Wait()
}

// ended leaves out an error that is nothing but the end of ctx.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// rememberEvery is how often services that run are remembered anew.
const rememberEvery = 6 * time.Hour

// remember begins the time anew for which services that run are remembered,
// until ctx ends.
func (g *guard) remember(ctx context.Context) error {
	ticker := time.NewTicker(rememberEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		serving, err := g.serving()
		if err == nil {
			err = g.controller.Serve(ctx, serving)
		}
		if err != nil && ctx.Err() == nil {
			g.log.Warn("cannot remember the services of this host anew", zap.Error(err))
		}
	}
}

// follow hands on what has changed of the host. It is called by the watcher alone.
func (g *guard) follow(ctx context.Context, f host.Facts) {
	if f.Equal(g.facts) {
		return
	}
	for tries := 0; ; tries++ {
		err := g.controller.SetHost(ctx, hostOf(f))
		if err == nil {
			g.facts = f
			return
		}
		if tries == 0 && ctx.Err() == nil {
			g.log.Error("cannot tell the kernel what belongs to this host; trying again every second", zap.Error(err))
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
	}
}

func (g *guard) announce() {
	cfg, file := g.cfg.Load(), *g.file.Load()
	if file == "" {
		file = "built-in defaults"
	}
	stats := controller.Stats{Panicked: panicked(cfg.State.Dir), Unlisted: g.list.Load().none}
	if stats.Panicked {
		g.log.Warn("panic: nothing is noticed or blocked until \"nftsentry resume\"")
	}
	g.log.Info("start",
		zap.String("version", version), zap.String("config", file), zap.String("mode", mode(*cfg, stats)),
		zap.String("decoys", conf.FormatPorts(cfg.TCP.Decoys())), zap.Uint16("listener", g.decoy.Port()),
		zap.String("watched", conf.FormatPorts(cfg.TCP.Watch)), zap.String("watched_udp", conf.FormatPorts(cfg.UDP.Watch)),
	)
	g.notify(daemon.SdNotifyReady)
	g.compatLine(compat.Active)
}
