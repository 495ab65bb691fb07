package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/signal"
	"os/user"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"nftsentry/conf"
	"nftsentry/controller/compat"
	"nftsentry/controller/hook"
	"nftsentry/controller/hook/remote"
)

// hookSocket is where the hook service is, unless told otherwise.
const hookSocket = "/run/nftsentry-hook/hook.sock"

func newHook(o *options) *cobra.Command {
	var socket, peer string
	cmd := &cobra.Command{
		Use:   "hook",
		Short: "Run hooks, mail and webhooks for the daemon",
		Long: `Hook runs programs, sends mails and HTTP requests and keeps hosts.deny in a process
of its own, as a user without rights, for a daemon that was started with
"nftsentry run --hook-socket". It reads the same configuration file itself: the
daemon tells it of blocks, and nothing else. If it ends, blocks go on.

Only root and the user of --peer are heard on its socket; a service manager may
hand it over. SIGHUP has it read its configuration again, as a reload of the
daemon does. SIGTERM and SIGINT end it.`,
		Example: "  nftsentry hook --peer nftsentry\n  nftsentry hook -c ./nftsentry.toml --socket ./hook.sock --peer 990",
		Args:    arguments(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if socket == "" {
				return usagef("--socket: the path is empty: name the socket to make, or leave the flag out for %s", hookSocket)
			}
			uid, err := userID(peer)
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), unix.SIGINT, unix.SIGTERM)
			defer stop()
			hup := make(chan os.Signal, 1) // one that waits stands for all that come meanwhile
			signal.Notify(hup, unix.SIGHUP)
			defer signal.Stop(hup)
			s, err := openHookService(o.load, o.out)
			if err != nil {
				return err
			}
			if s.server, err = hookServer(socket, uid, s.log.Named("remote")); err != nil {
				return err
			}
			return s.run(ctx, hup)
		},
	}
	cmd.Flags().StringVar(&socket, "socket", hookSocket, "`socket` to make, unless the service manager hands one over")
	cmd.Flags().StringVar(&peer, "peer", "root", "`user` that the daemon runs as, by name or number")
	return cmd
}

// userID is the number of a user.
func userID(name string) (uint32, error) {
	id := name
	if u, err := user.Lookup(name); err == nil {
		id = u.Uid
	}
	n, err := strconv.ParseUint(id, 10, 32)
	if err != nil {
		return 0, usagef("--peer %q: there is no such user: name the one that \"nftsentry run\" runs as, such as nftsentry", name)
	}
	return uint32(n), nil
}

// hookServer takes the socket of the service manager, or makes one.
func hookServer(path string, peer uint32, log *zap.Logger) (*remote.Server, error) {
	given, err := activation.Listeners()
	if err != nil {
		return nil, fmt.Errorf("sockets of the service manager: %w", err)
	}
	if len(given) == 0 {
		return remote.Listen(path, peer, log)
	}
	l, ok := given[0].(*net.UnixListener)
	if !ok || len(given) > 1 {
		return nil, fmt.Errorf("the service manager hands over %s: it must be one, with ListenStream= and a path", plural(len(given), "socket"))
	}
	return remote.Inherit(l, peer, log)
}

// A hookService runs hooks for a daemon.
type hookService struct {
	*hook.Runner
	load   func() (conf.Config, string, error)
	log    *zap.Logger
	level  zap.AtomicLevel
	lines  atomic.Bool // Portsentry's lines are asked for
	compat *compat.Log
	server *remote.Server

	mu sync.Mutex // held while the configuration is read
}

var _ remote.Service = (*hookService)(nil)

// openHookService reads the configuration, and checks all that its hooks need.
func openHookService(load func() (conf.Config, string, error), out *output) (*hookService, error) {
	cfg, file, err := load()
	if err != nil {
		return nil, readable(err)
	}
	s := &hookService{load: load}
	s.log, s.level = newLogger(cfg.Log, out)
	s.compat = compat.New(compat.DefaultPath, s.log.Named("compat"))
	s.lines.Store(cfg.Log.Compat)
	if s.Runner, err = hook.New(hookConfig(cfg.Hook, s.ran), s.log.Named("hook")); err != nil {
		return nil, err
	}
	s.log.Info("start", zap.String("version", version), zap.String("config", describeFile(file)), zap.Int("uid", os.Geteuid()))
	s.warn(cfg.Hook)
	return s, nil
}

// readable adds to the error of a configuration that this user may not read
// what to do.
func readable(err error) error {
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return usagef("%w: this runs as uid %d: let it read the file, by chmod o+r if it has no secrets, or else by its group "+
		"and SupplementaryGroups= of the service", pathError(err), os.Geteuid())
}

// warn tells of what will not work as it does in the daemon.
func (s *hookService) warn(c conf.Hook) {
	bare, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	for i, m := range c.Mail {
		if m.Server == "" && err == nil && bare == 1 {
			s.log.Warn("mails go to a sendmail that may be of no use here: Postfix's and Exim's need their set-group-ID or set-user-ID bit, "+
				"which this service leaves without effect; set server", zap.Int("hook.mail", i), zap.String("sendmail", m.Sendmail))
		}
	}
}

// ran logs a program as Portsentry would.
func (s *hookService) ran(e hook.Event, command string) {
	if s.lines.Load() {
		s.compat.Tell(compat.Ran(e.Target(), command))
	}
}

// Prepare reads the configuration again, and looks at it.
func (s *hookService) Prepare(ctx context.Context) (string, hook.Prepared, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	cfg, file, err := s.load()
	if err != nil {
		return "", nil, readable(err)
	}
	p, err := s.Runner.Prepare(ctx, hookConfig(cfg.Hook, s.ran))
	if err != nil {
		return "", nil, err
	}
	return file, &hookChange{p, s, cfg, file}, nil
}

// A hookChange is a configuration that waits to be taken over.
type hookChange struct {
	hook.Prepared
	service *hookService
	cfg     conf.Config
	file    string
}

// Commit takes it over.
func (c *hookChange) Commit(ctx context.Context) error {
	if err := c.Prepared.Commit(ctx); err != nil {
		return err
	}
	c.service.level.SetLevel(c.cfg.Log.Level)
	c.service.lines.Store(c.cfg.Log.Compat)
	c.service.log.Info("reload", zap.String("config", describeFile(c.file)))
	c.service.warn(c.cfg.Hook)
	return nil
}

// run serves until ctx ends. Hooks run until nobody tells them anything any
// more, and lines are written until none has anything to say.
func (s *hookService) run(ctx context.Context, hup <-chan os.Signal) error {
	telling, stopTelling := context.WithCancel(context.WithoutCancel(ctx))
	defer stopTelling()
	working, stopWorking := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWorking()
	var writer, worker errgroup.Group
	writer.Go(func() error { return s.compat.Run(telling) })
	worker.Go(func() error { return s.Runner.Run(working) })

	tasks, inner := errgroup.WithContext(ctx)
	tasks.Go(func() error { return s.server.Run(inner, s) })
	tasks.Go(func() error { return s.reloadOn(inner, hup) })
	notifyManager(s.log, daemon.SdNotifyReady)
	err := tasks.Wait()
	notifyManager(s.log, daemon.SdNotifyStopping)
	stopWorking()
	err = errors.Join(err, worker.Wait())
	stopTelling()
	err = errors.Join(err, writer.Wait())
	s.log.Info("stop", zap.Error(err))
	return err
}

// reloadOn reads the configuration at each signal, until ctx ends.
func (s *hookService) reloadOn(ctx context.Context, hup <-chan os.Signal) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hup:
		}
		_, p, err := s.Prepare(ctx)
		if err == nil {
			err = p.Commit(ctx)
		}
		if err != nil {
			s.log.Error("cannot reload; the configuration stays as it was", zap.Error(err))
		}
	}
}
