package controller

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"nftsentry/nft"
	"nftsentry/state"
)

// ErrPanicked means that all blocks are suspended.
var ErrPanicked = errors.New("all blocks are suspended: run \"nftsentry resume\" first")

// Reconfigure takes over another configuration, all of it or, with an error,
// nothing. The table changes in one transaction, and blocks that stay are not
// touched, unless the table is in need of repair or IPv6 sources are blocked by
// other prefixes. Where fewer hosts may be blocked than are, those that can be
// spared most end once it holds: so many are evicted. Serving are the ports
// where the host serves others now, since there may be tripwires where there
// were none.
func (c *Controller) Reconfigure(ctx context.Context, cfg Config, serving []nft.Service) (evicted int, err error) {
	var n int
	err = c.call(ctx, func(answer func(error)) {
		defer c.sparing()()
		untold := c.adoptUntold()
		old, ignored, host := c.cfg, c.ignored, c.host
		sure := c.repair.at.IsZero() && !c.repair.excess && !c.suspended()
		c.cfg = cfg
		c.blocks.setPrefix6(cfg.Table.Prefix6)
		c.host.Serving = serving
		c.setHost(c.host)
		over := c.trim()
		err := c.recall()
		if err == nil {
			if err = c.reload(sure, untold); err != nil {
				err = fmt.Errorf("load the table: %w", err)
				c.excess("it may have another configuration", err)
			}
		}
		if err != nil {
			c.lose(err)
			c.cfg, c.ignored, c.host = old, ignored, host
			c.blocks.setPrefix6(old.Table.Prefix6)
			for _, b := range over {
				c.blocks.put(b)
			}
			answer(err)
			return
		}
		if n = len(over); n > 0 {
			c.log.Warn("more blocks than block.max has room for now: those that can be spared most end", zap.Int("ended", n))
		}
		c.stats.Evicted += uint64(n)
		c.end(endedNow(over), MadeRoom)
		c.touches.window = cfg.Window
		c.suspects.configure(cfg.Table)
		c.doubts.refill = newDoubts(c.log, cfg.Table.Budget).refill
		c.tell(Notice{What: Reloaded, Reason: "another configuration holds: " + c.stance()})
		c.endIgnored()
		answer(nil)
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}

// stance says, for a person, what a trigger leads to.
func (c *Controller) stance() string {
	switch {
	case c.panicked:
		return "nothing is noticed or blocked until \"nftsentry resume\""
	case c.cfg.Unlisted:
		return "nothing is noticed or blocked until ignore.files can be read"
	case c.cfg.Observe:
		return "what would be blocked is only logged"
	}
	return "blocks and sensors are in force"
}

// suspended tells whether nothing is noticed or blocked for now: by Panic, or
// because nobody knows who is to be ignored.
func (c *Controller) suspended() bool { return c.panicked || c.cfg.Unlisted }

// reload makes the table what another configuration says. If it is sure that
// the kernel blocks just those on our list, only those are written to which that
// was not known before.
func (c *Controller) reload(sure bool, untold []state.Block) error {
	if !sure || c.suspended() {
		return c.load()
	}
	err := c.kernel.Configure(c.cfg.Table, c.served.elements(time.Now()))
	if errors.Is(err, nft.ErrUnlike) {
		return c.load()
	}
	if err != nil || len(untold) == 0 {
		return err
	}
	untold = slices.DeleteFunc(untold, func(b state.Block) bool { return !c.blocks.has(b.Source) })
	return c.kernel.BlockAll(elementsOf(slices.Values(untold)))
}

// load makes the table what the configuration and our list say. What the kernel
// blocks besides goes, but for one case: of more hosts than can be listed, those
// that were added while events were lost stay until their time is up, since
// nobody knows who has added them, and what for.
func (c *Controller) load() error {
	switch {
	case c.suspended():
		return c.kernel.Load(nft.Config{Prefix6: c.cfg.Table.Prefix6, Hosts: c.cfg.Table.Hosts}, nil, nil)
	case c.many() && !c.repair.excess:
		return c.renew()
	}
	return c.loadAll()
}

// loadAll fills the table anew.
func (c *Controller) loadAll() error {
	err := c.kernel.Load(c.cfg.Table, c.elements(), c.served.elements(time.Now()))
	if err == nil {
		c.repair.excess = false
	}
	return err
}

// renew makes the table what the configuration says, takes out what is over and
// puts all blocks on our list in. What it blocks besides stays, unless there is
// no room for it.
func (c *Controller) renew(over ...ending) error {
	err := c.kernel.Configure(c.cfg.Table, c.served.elements(time.Now()))
	if errors.Is(err, nft.ErrUnlike) {
		return c.loadAll()
	}
	for some := range slices.Chunk(over, manyBlocks) {
		sources := make([]netip.Prefix, len(some))
		for i, e := range some {
			sources[i] = e.source
		}
		if err == nil {
			err = c.kernel.Unblock(sources...)
		}
	}
	if err == nil {
		err = c.kernel.BlockAll(c.elements())
	}
	if errors.Is(err, unix.ENFILE) {
		return c.loadAll()
	}
	if err == nil { // what BlockAll has put there if it had any
		err = c.kernel.RestoreNets()
	}
	return err
}

// Panic takes everything out of the kernel that drops or notices anything,
// until Resume. It returns how many blocks are suspended.
func (c *Controller) Panic(ctx context.Context) (int, error) { return c.setPanicked(ctx, true) }

// Resume ends what Panic began: the blocks whose time is not up are in force
// again.
func (c *Controller) Resume(ctx context.Context) (int, error) { return c.setPanicked(ctx, false) }

// switched is what the audience hears of the beginning and the end of a panic.
var switched = map[bool]What{true: Panicked, false: Resumed}

func (c *Controller) setPanicked(ctx context.Context, on bool) (blocks int, err error) {
	var n int
	err = c.call(ctx, func(answer func(error)) {
		defer c.sparing()()
		was := c.panicked
		c.adoptUntold()
		c.rediscover()
		c.panicked = on
		if err := c.load(); err != nil {
			c.panicked = was
			c.excess("what became of a command is not known", err)
			answer(fmt.Errorf("load the table: %w", err))
			return
		}
		n = c.blocks.len()
		if on {
			c.log.Warn("panic: nothing is noticed or blocked until resume", zap.Int("suspended", n))
		} else {
			c.log.Info("resume", zap.Int("blocks", n))
		}
		if on != was {
			c.tell(Notice{What: switched[on], Reason: c.stance()})
		}
		answer(nil)
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}
