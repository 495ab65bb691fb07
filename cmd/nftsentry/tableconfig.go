package main

import (
	"go.uber.org/zap"

	"nftsentry/conf"
	"nftsentry/controller/host"
	"nftsentry/nft"
)

// tableConfig is what the configuration means for the kernel of this host,
// with a decoy listener at port.
func tableConfig(c conf.Config, port uint16, log *zap.Logger) nft.Config {
	enforce, rate := c.Mode == conf.Enforce, watchRate(log)
	return nft.Config{
		Enforce: enforce, Reject: c.Block.Action == conf.Reject,
		Decoys: without(portRanges(c.TCP.Decoys()), port), Port: port,
		WatchTCP: without(portRanges(c.TCP.Watched()), port), WatchUDP: portRanges(c.UDP.Watched()),
		JudgeTCP: enforce && c.TCP.Respond == conf.RespondBlock, JudgeUDP: enforce && c.UDP.Respond == conf.RespondBlock,
		Ports: c.Trigger.Ports, Window: c.Trigger.Window, Timeout: min(c.Block.Timeout, c.Block.Unproven),
		Budget: nft.Rate(c.Trigger.Budget), Group: c.Trigger.NFLOGGroup,
		Sessions: portRanges(c.Ignore.Sessions), Ephemeral: ephemeral(log), WatchRate: rate, DecoyRate: 2 * rate,
		Prefix6: c.Block.Prefix6, Hosts: c.Block.Max, Ignored: c.Ignore.Sources, IgnoredInterfaces: c.Ignore.Interfaces,
	}
}

func portRanges(ranges []conf.PortRange) []nft.PortRange {
	var out []nft.PortRange
	for _, r := range ranges {
		out = append(out, nft.PortRange(r))
	}
	return out
}

// without takes the listener's own port out of sorted ranges.
func without(ranges []nft.PortRange, port uint16) []nft.PortRange {
	var out []nft.PortRange
	for _, r := range ranges {
		if port < r.First || port > r.Last {
			out = append(out, r)
			continue
		}
		if r.First < port {
			out = append(out, nft.PortRange{First: r.First, Last: port - 1})
		}
		if port < r.Last {
			out = append(out, nft.PortRange{First: port + 1, Last: r.Last})
		}
	}
	return out
}

// ephemeral are the ports from which this host connects.
func ephemeral(log *zap.Logger) nft.PortRange {
	first, last, err := host.LocalPorts()
	if err != nil {
		log.Warn("cannot read from which ports this host connects; late answers by UDP may count as probes", zap.Error(err))
	}
	return nft.PortRange{First: first, Last: last}
}

// Probes are forgotten by connection tracking after three seconds or so, and
// as many are let through at once as in a second: an unending flood of watched
// and of decoy ports fills (3 + 1) * (1 + 2) times this rate, three sixteenths
// of the table. Decoys have the larger share, since a connection that is to
// prove its source has to find its way through the flood.
const (
	watchShare   = 64   // of the size of the table is one second's worth
	maxWatchRate = 5000 // more would keep the daemon busy for nothing
	minWatchRate = 16
)

// watchRate is how many probes of watched ports a second may reach connection
// tracking.
func watchRate(log *zap.Logger) uint32 {
	most, err := host.ConntrackMax()
	if err != nil {
		log.Warn("cannot read the size of the connection table; assuming a small one", zap.Error(err))
	}
	return uint32(min(max(most/watchShare, minWatchRate), maxWatchRate))
}
