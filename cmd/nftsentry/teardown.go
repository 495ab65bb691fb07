package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"nftsentry/conf"
	"nftsentry/controller/api"
	"nftsentry/controller/hook"
	"nftsentry/nft"
	"nftsentry/state"
)

func newTeardown(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "teardown",
		Short: "Remove our table from the kernel, and with it all blocks",
		Long: `Teardown removes the table "inet nftsentry" from the kernel and ends the blocks on
record. It is for a host that is no longer to be guarded: the daemon must not be
running. Other tables are not touched. Strikes are remembered.`,
		Example: "  systemctl stop nftsentry && nftsentry teardown",
		Args:    arguments(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, _, err := o.load()
			if err != nil {
				return err
			}
			if err := checkRights(); err != nil {
				return err
			}
			s, err := api.NewClient(cfg.Control.Socket).Status(cmd.Context())
			switch {
			case err == nil:
				return fmt.Errorf("nftsentry (process %d) is running and would make the table again: stop it first", s.PID)
			case !errors.Is(err, api.ErrNoDaemon):
				return err
			}
			lock, err := lockNamespace()
			if err != nil {
				return err
			}
			return errors.Join(o.teardown(cfg), lock.Close())
		},
	}
}

// teardown takes the table away first, and then the blocks off the record:
// cut short between the two, the next start blocks again rather than less.
func (o *options) teardown(cfg conf.Config) error {
	table, err := nft.Open(0, cfg.Block.Prefix6)
	if err != nil {
		return err
	}
	found, err := table.Delete()
	if err := errors.Join(err, table.Close()); err != nil {
		return err
	}
	ended, err := endRecorded(cfg.State.Dir)
	if err != nil {
		return fmt.Errorf("the table is gone, but not the blocks on record, which the next start would restore: %w", err)
	}
	if err := forgetDenied(cfg); err != nil {
		return fmt.Errorf("the table and the blocks are gone, but not their lines in hosts.deny: %w", err)
	}
	text := "no table inet " + nft.TableName + " was there"
	if found {
		text = "removed table inet " + nft.TableName
	}
	_, err = fmt.Fprintf(o.out.data, "%s; ended %s on record\n", text, plural(ended, "block"))
	return err
}

// forgetDenied takes the lines of blocks out of hosts.deny, if hooks keep them
// there.
func forgetDenied(cfg conf.Config) error {
	deny := hookConfig(cfg.Hook, nil).HostsDeny
	if deny == nil {
		return nil
	}
	runner, err := hook.New(hook.Config{HostsDeny: deny}, zap.NewNop())
	if err != nil {
		return err
	}
	runner.Sync(nil)
	done, cancel := context.WithCancel(context.Background())
	cancel()
	if err := runner.Run(done); err != nil { // writes what is pending
		return err
	}
	if s := runner.Stats()[0]; s.Failed > 0 || s.Waiting > 0 {
		return fmt.Errorf("%s could not be written: take the lines between the marks of nftsentry out by hand", deny.File)
	}
	return nil
}

// endRecorded ends all blocks in the store, if there is one.
func endRecorded(dir string) (int, error) {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	store, err := state.Open(dir, zap.NewNop())
	if err != nil {
		return 0, err
	}
	live, err := store.Live()
	if err == nil {
		for _, b := range live {
			store.End(b.Source, time.Now(), false, nil)
		}
		done, cancel := context.WithCancel(context.Background())
		cancel()
		err = store.Run(done) // writes what is pending
	}
	return len(live), errors.Join(err, store.Close())
}
