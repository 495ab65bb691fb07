package controller

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"nftsentry/nft"
)

// ErrPanicked means that all blocks are suspended.
var ErrPanicked = errors.New("all blocks are suspended: run \"nftsentry resume\" first")

// Reconfigure takes over another configuration, all of it or, with an error,
// nothing. The table changes in one transaction. Serving are the ports where
// the host serves others now, since there may be tripwires where there were
// none.
func (c *Controller) Reconfigure(ctx context.Context, cfg Config, serving []nft.Service) error {
	return c.call(ctx, func(answer func(error)) {
		defer c.sparing()()
		c.adoptUntold()
		old, ignored, host := c.cfg, c.ignored, c.host
		c.cfg = cfg
		c.host.Serving = serving
		c.setHost(c.host)
		err := c.recall()
		if err == nil {
			if err = c.load(); err != nil {
				err = fmt.Errorf("load the table: %w", err)
				c.harm("it may have another configuration", err)
			}
		}
		if err != nil {
			c.lose(err)
			c.cfg, c.ignored, c.host = old, ignored, host
			answer(err)
			return
		}
		c.touches.window = cfg.Window
		c.suspects.configure(cfg.Table)
		c.doubts.refill = newDoubts(c.log, cfg.Table.Budget).refill
		c.tell(Notice{What: Reloaded, Reason: "another configuration holds: " + c.stance()})
		c.endIgnored()
		answer(nil)
	})
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

// load makes the table what the configuration and our list say.
func (c *Controller) load() error {
	if c.suspended() {
		return c.kernel.Load(nft.Config{Prefix6: c.cfg.Table.Prefix6}, nil, nil)
	}
	return c.kernel.Load(c.cfg.Table, c.elements(), c.served.elements(time.Now()))
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
			c.harm("what became of a command is not known", err)
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
