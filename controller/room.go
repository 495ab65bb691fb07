package controller

import (
	"net/netip"
	"time"

	"go.uber.org/zap"

	"nftsentry/nft"
	"nftsentry/state"
)

// makeRoom ends a block if the set of hosts that a new source goes to is full:
// of those on unproven evidence the one that ends soonest, or else of the
// others.
func (c *Controller) makeRoom(source netip.Prefix) {
	v4 := source.Addr().Is4()
	if !c.isHost(source) || c.blocks.hosts(v4) < c.cfg.Table.MaxHosts() {
		return
	}
	if c.stats.Evicted == 0 {
		c.log.Warn("as many blocks as the kernel's set holds, block.max: each new one ends the one that can be spared most", zap.Int("blocks", c.blocks.hosts(v4)))
	}
	c.evict(v4, 1)
}

// relieve makes room for what the kernel blocks by itself, when a set is full
// of blocks.
func (c *Controller) relieve(v4 bool) {
	if c.blocks.hosts(v4) >= c.cfg.Table.MaxHosts()-relief/2 {
		c.evict(v4, relief)
	}
}

// relief is how many hosts make room at once.
const relief = 64

// evict ends so many hosts that can be spared most.
func (c *Controller) evict(v4 bool, n int) {
	victims := endedNow(c.blocks.takeSpare(v4, n))
	c.stats.Evicted += uint64(len(victims))
	c.end(victims, MadeRoom)
}

// endedNow are blocks that end before their time.
func endedNow(blocks []state.Block) []state.Block {
	for i := range blocks {
		blocks[i].Until = time.Now()
	}
	return blocks
}

// spare puts on record that blocks have ended to make room for others.
func (c *Controller) spare(over []state.Block) {
	for _, b := range endedNow(over) {
		c.stats.Evicted++
		c.over(b, MadeRoom)
	}
}

// shrink ends what is more than the kernel's sets hold, before the table is
// loaded.
func (c *Controller) shrink() {
	over := c.trim()
	c.repair.excess = c.repair.excess || len(over) > 0
	c.spare(over)
}

// trim takes off our list, and returns as they were, what is more than the
// kernel's sets hold, as after a reload or restart with smaller ones.
func (c *Controller) trim() (over []state.Block) {
	for _, v4 := range []bool{true, false} {
		over = append(over, c.blocks.takeSpare(v4, c.blocks.hosts(v4)-c.cfg.Table.MaxHosts())...)
	}
	return over
}

// many tells whether there are more hosts than the kernel can list, or take in
// one transaction, in good time.
func (c *Controller) many() bool {
	return max(c.blocks.hosts(true), c.blocks.hosts(false)) > nft.MostListed
}
