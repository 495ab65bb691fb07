package controller

import (
	"cmp"
	"net/netip"
	"slices"
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
	if !c.isHost(source) || c.blocks.count(v4) < nft.MaxHosts {
		return
	}
	hosts := c.hosts(v4)
	if len(hosts) < nft.MaxHosts {
		return
	}
	c.stats.Evicted++
	if c.stats.Evicted == 1 {
		c.log.Warn("as many blocks as the kernel's set holds: each new one ends the one that can be spared most", zap.Int("blocks", len(hosts)))
	}
	victim := slices.MinFunc(hosts, spared)
	victim.Until = time.Now()
	c.end([]state.Block{victim}, MadeRoom)
}

// relieve makes room for what the kernel blocks by itself, when a set is full
// of blocks.
func (c *Controller) relieve(v4 bool) {
	const room = 64
	if c.blocks.count(v4) < nft.MaxHosts-room/2 {
		return
	}
	hosts := c.hosts(v4)
	if len(hosts) < nft.MaxHosts-room/2 {
		return
	}
	slices.SortFunc(hosts, spared)
	victims := hosts[:room]
	for i := range victims {
		victims[i].Until = time.Now()
	}
	c.stats.Evicted += room
	c.end(victims, MadeRoom)
}

// hosts are the blocks that go to the set of hosts of a family.
func (c *Controller) hosts(v4 bool) []state.Block {
	all := make([]state.Block, 0, c.blocks.count(v4))
	for b := range c.blocks.all() {
		if b.Source.Addr().Is4() == v4 && c.isHost(b.Source) {
			all = append(all, b)
		}
	}
	return all
}

// spared orders blocks by how well they can be spared.
func spared(a, b state.Block) int {
	suspicion := func(b state.Block) int {
		if b.Evidence == unproven {
			return 0
		}
		return 1
	}
	return cmp.Or(suspicion(a)-suspicion(b), a.Until.Compare(b.Until), a.Source.Compare(b.Source))
}

// spare puts on record that blocks have ended to make room for others.
func (c *Controller) spare(over []state.Block) {
	for _, b := range over {
		c.stats.Evicted++
		c.over(b, MadeRoom)
	}
}

// trim takes off our list, and returns, what is more than the kernel's sets
// hold, as after a restart with smaller ones.
func (c *Controller) trim() (over []state.Block) {
	for _, v4 := range []bool{true, false} {
		if c.blocks.count(v4) <= nft.MaxHosts {
			continue
		}
		hosts := c.hosts(v4)
		slices.SortFunc(hosts, spared)
		for _, b := range hosts[:max(0, len(hosts)-nft.MaxHosts)] {
			c.blocks.remove(b.Source)
			b.Until = time.Now()
			over = append(over, b)
		}
	}
	return over
}
