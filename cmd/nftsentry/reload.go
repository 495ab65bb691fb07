package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"nftsentry/conf"
	"nftsentry/conf/ignore"
	"nftsentry/controller/api"
)

func newReload(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "reload",
		Short: "Have the daemon read its configuration again",
		Long: `Reload has the daemon read the file that it was started with again, as SIGHUP
does. All of it takes effect in one transaction, or nothing: a file with a
mistake changes nothing, and is told of here.

Where block.max is less than are blocked now, it tells how many blocks have ended.

What cannot change while the daemon runs is named, and waits for a restart. Where
a service of its own runs the hooks, it reads the file too; one that does not
answer is named, and reads it once it is back.`,
		Example: "  nftsentry check && nftsentry reload",
		Args:    arguments(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			socket, wrong, err := o.socketToReload()
			if err != nil {
				return err
			}
			r, err := api.NewClient(socket).Reload(cmd.Context())
			if wrong != nil && errors.Is(err, api.ErrNoDaemon) {
				return wrong
			}
			if err != nil {
				return eachLine(err)
			}
			for _, key := range r.Restart {
				o.out.message(fmt.Errorf("%s has changed: it waits for a restart of the daemon", key))
			}
			for _, w := range r.Warnings {
				o.out.message(errors.New(w))
			}
			_, err = fmt.Fprintf(o.out.data, "reloaded %s\n", describeFile(r.Config))
			return err
		},
	}
	return o.asks(cmd)
}

// socketToReload is where the daemon is, and what is wrong in the file, of which
// the daemon tells if it is there. Where it is a wrong file does not say.
func (o *options) socketToReload() (socket string, wrong conf.Errors, err error) {
	if o.socket != "" {
		return o.socket, nil, nil
	}
	cfg, _, err := o.load()
	if errors.As(err, &wrong) {
		return conf.Default().Control.Socket, wrong, nil
	}
	return cfg.Control.Socket, nil, err
}

// eachLine makes an error of each line of one, as wrong a usage as it was.
func eachLine(err error) error {
	var all []error
	for line := range strings.Lines(err.Error()) {
		all = append(all, errors.New(strings.TrimSpace(line)))
	}
	var wrong *api.RequestError
	if errors.As(err, &wrong) {
		return &usageError{errors.Join(all...)}
	}
	return errors.Join(all...)
}

func describeFile(file string) string {
	if file == "" {
		return "built-in defaults"
	}
	return file
}

// Reload reads the configuration again and takes it over, but for the keys
// that it returns, which wait for a restart. An error changes nothing.
func (g *guard) Reload(ctx context.Context) (api.Reloaded, error) {
	over := g.notifyReload()
	r, err := g.reload(ctx)
	over()
	if g.metrics != nil {
		g.metrics.Reloaded(err == nil)
	}
	return r, err
}

func (g *guard) reload(ctx context.Context) (api.Reloaded, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	cfg, file, err := g.load()
	if errors.Is(err, fs.ErrPermission) {
		err = g.outsideFile(file, err)
	}
	if err == nil {
		err = g.outside(cfg)
	}
	if err != nil {
		g.log.Error("cannot reload; the configuration stays as it was", zap.Error(err))
		return api.Reloaded{}, &api.RequestError{Err: err}
	}
	list, err := ignore.Read(cfg.Ignore.Files)
	if err != nil {
		g.log.Error("cannot reload; the configuration stays as it was", zap.Error(err))
		return api.Reloaded{}, &api.RequestError{Err: err}
	}
	read := &listing{list: list}
	restart := keep(&cfg, *g.cfg.Load(), g.decoy.Port())
	table := tableConfig(cfg, g.decoy.Port(), g.log)
	serving, err := g.serving()
	if err != nil {
		g.log.Warn("cannot find the services of this host; they are learnt from their traffic", zap.Error(err))
	}
	hooks, err := g.hooks.Prepare(ctx, hookConfig(cfg.Hook, g.programRan))
	if err != nil {
		g.log.Error("cannot reload; the configuration stays as it was", zap.Error(err))
		return api.Reloaded{}, &api.RequestError{Err: err}
	}
	evicted, err := g.controller.Reconfigure(ctx, controllerConfig(cfg, table, read), serving)
	if err != nil {
		hooks.Abort()
		g.log.Error("cannot reload; the configuration stays as it was", zap.Error(err))
		return api.Reloaded{}, err
	}
	var warnings []string
	if evicted > 0 {
		warnings = append(warnings, fmt.Sprintf("block.max = %d is less than were blocked: %s ended", cfg.Block.Max, plural(evicted, "block")))
	}
	if err := hooks.Commit(ctx); err != nil {
		warnings = append(warnings, err.Error())
		g.log.Warn("not all is reloaded", zap.Error(err))
	}
	g.decoy.SetBanner(cfg.TCP.Banner)
	g.level.SetLevel(cfg.Log.Level)
	g.cfg.Store(&cfg)
	g.list.Store(read)
	g.follower.Follow(cfg.Ignore.Files)
	g.file.Store(&file)
	g.resync()
	g.log.Info("reload", zap.String("config", describeFile(file)), zap.Strings("restart", restart))
	return api.Reloaded{Config: file, Restart: restart, Warnings: warnings}, nil
}

// keep puts back what cannot change while the daemon runs with a decoy
// listener at port, and names the keys of it that were to change.
func keep(cfg *conf.Config, old conf.Config, port uint16) (restart []string) {
	restart = []string{}
	put := func(key string, changed bool, back func()) {
		if changed {
			restart = append(restart, key)
			back()
		}
	}
	moved := cfg.TCP.Port != old.TCP.Port && cfg.TCP.Port != port
	put("tcp.port", moved, func() { cfg.TCP.Port = old.TCP.Port })
	put("trigger.nflog_group", cfg.Trigger.NFLOGGroup != old.Trigger.NFLOGGroup, func() { cfg.Trigger.NFLOGGroup = old.Trigger.NFLOGGroup })
	put("state.dir", cfg.State != old.State, func() { cfg.State = old.State })
	put("control.socket", cfg.Control.Socket != old.Control.Socket, func() { cfg.Control.Socket = old.Control.Socket })
	put("control.group", cfg.Control.Group != old.Control.Group, func() { cfg.Control.Group = old.Control.Group })
	put("metrics.listen", cfg.Metrics.Listen != old.Metrics.Listen, func() { cfg.Metrics.Listen = old.Metrics.Listen })
	put("metrics.expose", cfg.Metrics.Expose != old.Metrics.Expose, func() { cfg.Metrics.Expose = old.Metrics.Expose })
	put("log.format", cfg.Log.Format != old.Log.Format, func() { cfg.Log.Format = old.Log.Format })
	return restart
}

// reloadOn reloads at each signal, until ctx ends. What comes of it is logged.
func (g *guard) reloadOn(ctx context.Context, hup <-chan os.Signal) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hup:
			_, _ = g.Reload(ctx)
		}
	}
}
