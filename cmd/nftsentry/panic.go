package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"nftsentry/conf"
	"nftsentry/controller/api"
	"nftsentry/nft"
)

// panicName is the file in the state folder that suspends all blocks while it
// is there.
const panicName = "panic"

func panicked(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, panicName))
	return !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR)
}

// setPanicked makes or removes the file, and has the disk keep it so.
func setPanicked(dir string, on bool) error {
	path := filepath.Join(dir, panicName)
	if !on {
		if err := os.Remove(path); err != nil {
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
				return nil
			}
			return err
		}
		return syncFolder(dir)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close(), syncFolder(dir))
}

func syncFolder(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func newPanic(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "panic",
		Short: "Take all blocks and sensors out of the kernel at once, until resume",
		Long: `Panic takes everything out of the kernel that drops or notices anything, and
keeps it out over restarts, until "nftsentry resume". It is for when this guard
itself seems to be in the way. The blocks stay on record: those whose time is
not up by then are in force again after the resume.

It works with and without a running daemon.`,
		Example: "  nftsentry panic\n  nftsentry resume",
		Args:    arguments(0, 0, "no arguments"),
		RunE:    func(cmd *cobra.Command, _ []string) error { return o.switchPanic(cmd.Context(), true) },
	}
	return o.asks(cmd)
}

func newResume(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "resume",
		Short:   "End a panic: blocks and sensors are in force again",
		Example: "  nftsentry resume",
		Args:    arguments(0, 0, "no arguments"),
		RunE:    func(cmd *cobra.Command, _ []string) error { return o.switchPanic(cmd.Context(), false) },
	}
	return o.asks(cmd)
}

func (o *options) switchPanic(ctx context.Context, on bool) error {
	cfg, err := o.loadOrDefault()
	if err != nil {
		return err
	}
	client := api.NewClient(cmp.Or(o.socket, cfg.Control.Socket))
	do := client.Resume
	if on {
		do = client.Panic
	}
	p, err := do(ctx)
	if errors.Is(err, api.ErrNoDaemon) {
		return o.switchPanicAlone(cfg, on)
	}
	if err != nil {
		return err
	}
	if p.Suspended != "" {
		o.out.message(errors.New(p.Suspended))
	}
	_, err = fmt.Fprintln(o.out.data, switched(p, on))
	return err
}

// switched says what has come of a panic or a resume.
func switched(p api.Panicked, on bool) string {
	blocks, where := plural(p.Blocks, "block"), "in force"
	if p.Suspended != "" {
		where = "on record"
	}
	switch {
	case on && p.Already:
		return "panic already: " + blocks + " suspended, and nothing is noticed, until \"nftsentry resume\""
	case on:
		return "panic: " + blocks + " suspended, and nothing is noticed, until \"nftsentry resume\""
	case p.Already:
		return "there was no panic to resume from: " + blocks + " " + where
	}
	return "resumed: " + blocks + " " + where
}

// loadOrDefault takes the defaults for a file that has mistakes: what switches
// the guard off must work then, too.
func (o *options) loadOrDefault() (conf.Config, error) {
	cfg, file, err := o.load()
	var wrong conf.Errors
	if errors.As(err, &wrong) {
		o.out.message(fmt.Errorf("%s has mistakes (see \"nftsentry check\"): going on with the default control.socket and state.dir", file))
		return conf.Default(), nil
	}
	return cfg, err
}

// switchPanicAlone does without a daemon what can be done, first of all in the
// kernel.
func (o *options) switchPanicAlone(cfg conf.Config, on bool) error {
	if err := checkRights(); err != nil {
		return err
	}
	lock, err := lockNamespace()
	if err != nil {
		return err
	}
	text := "resumed: the next \"nftsentry run\" puts the blocks in force again"
	if !panicked(cfg.State.Dir) {
		text = "there was no panic to resume from: \"nftsentry run\" puts the blocks in force"
	}
	if on {
		text = "panic: the table is gone, and stays so over restarts until \"nftsentry resume\""
		err = deleteTable(cfg)
	}
	if marked := setPanicked(cfg.State.Dir, on); marked != nil {
		err = errors.Join(err, fmt.Errorf("a restart will not know of it: %w", marked))
	}
	if err := errors.Join(err, lock.Close()); err != nil {
		return err
	}
	_, err = fmt.Fprintln(o.out.data, text)
	return err
}

func deleteTable(cfg conf.Config) error {
	table, err := nft.Open(0, cfg.Block.Prefix6)
	if err != nil {
		return err
	}
	_, err = table.Delete()
	return errors.Join(err, table.Close())
}

// Panic suspends all blocks, also over restarts.
func (g *guard) Panic(ctx context.Context) (api.Panicked, error) { return g.switchPanic(ctx, true) }

// Resume ends what Panic began.
func (g *guard) Resume(ctx context.Context) (api.Panicked, error) { return g.switchPanic(ctx, false) }

// switchPanic changes the kernel first: that is what somebody waits for.
func (g *guard) switchPanic(ctx context.Context, on bool) (api.Panicked, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	do := g.controller.Resume
	if on {
		do = g.controller.Panic
	}
	before, err := g.controller.Stats(ctx)
	if err != nil {
		return api.Panicked{}, err
	}
	n, err := do(ctx)
	if err != nil {
		return api.Panicked{}, err
	}
	g.resync()
	if err := setPanicked(g.cfg.Load().State.Dir, on); err != nil {
		return api.Panicked{}, fmt.Errorf("done in the kernel, but a restart will not know of it: %w", err)
	}
	p := api.Panicked{Blocks: n, Already: before.Panicked == on}
	if !on && g.cfg.Load().Mode == conf.Observe {
		p.Suspended = "mode is observe: none of the blocks is in force"
	}
	if problems := g.list.Load().problems(); !on && g.list.Load().none && len(problems) > 0 {
		p.Suspended = problems[0]
	}
	return p, nil
}
