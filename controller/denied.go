package controller

import (
	"errors"
	"fmt"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// ErrDenied means that this process has no right to nftables any more. To try
// again does not help.
var ErrDenied = errors.New("the kernel denies this process its own table: it needs CAP_NET_ADMIN: " +
	"run it as root, or leave it that capability (CapabilityBoundingSet= and AmbientCapabilities= of the service)")

// lose ends Run if an error of the kernel is that there is no right to ask it.
func (c *Controller) lose(why error) {
	if c.lost != nil || !errors.Is(why, unix.EPERM) && !errors.Is(why, unix.EACCES) {
		return
	}
	c.lost = fmt.Errorf("%w: %w", ErrDenied, why)
	c.log.Error("cannot go on: no right to nftables any more; all blocks that are in force stay so", zap.Error(why))
}
