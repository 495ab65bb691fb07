package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"

	"nftsentry/controller/api"
	"nftsentry/controller/host"
)

func (e *exam) checkConntrack(context.Context) []Finding {
	cfg := e.Table(anyPort)
	count, most, err := e.proc.Conntrack()
	return []Finding{judgeConntrack(count, most, err, cfg.DecoyRate, cfg.WatchRate)}
}

func judgeConntrack(count, most int, err error, decoys, watched uint32) Finding {
	const c check = "conntrack"
	limits := fmt.Sprintf("%d probes of decoys and %d of watched ports a second are let in", decoys, watched)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return c.ok("not in use yet: our table switches it on; until then %s", limits)
	case err != nil || most <= 0:
		return c.warn("see whether /proc/sys/net/netfilter can be read", "its size cannot be read: %v", err)
	}
	share := 100 * count / most
	const full = 75 // percent
	if share > full {
		return c.warn(fmt.Sprintf("raise net.netfilter.nf_conntrack_max, such as to %d; new connections fail when it is full", 2*most),
			"%d of %d connections, %d %%; %s", count, most, share, limits)
	}
	return c.ok("%d of %d connections, %d %%; %s", count, most, share, limits)
}

// checkGroups looks who reads the NFLOG groups that the daemon needs.
func (e *exam) checkGroups(context.Context) []Finding {
	if !e.rights.admin {
		return nil
	}
	readers, err := e.proc.Readers()
	if err != nil {
		return []Finding{check("nflog").warn("run it as root", "the readers of NFLOG groups cannot be told: %v", err)}
	}
	return []Finding{
		e.judgeGroup("nflog", e.Config.Trigger.NFLOGGroup, readers, "set trigger.nflog_group to a free one, or stop that program"),
		e.judgeGroup("lock", e.LockGroup, readers, "stop it: two in one network namespace would undo each other's table"),
	}
}

func (e *exam) judgeGroup(c check, group uint16, readers []host.Reader, advice string) Finding {
	for _, r := range readers {
		if r.Group != group {
			continue
		}
		holder, known := e.holders[r.Inode]
		who := fmt.Sprintf("%q (process %d)", holder.Name, holder.PID)
		switch {
		case !known && e.running():
			return c.ok("NFLOG group %d is taken, as the daemon is running", group)
		case !known:
			return c.fail(advice, "NFLOG group %d is taken by a program that cannot be told (netlink port %d)", group, r.Port)
		case e.running() && holder.PID == e.daemon.PID:
			return c.ok("NFLOG group %d is held by our daemon (process %d)", group, holder.PID)
		case !e.running() && !errors.Is(e.daemonErr, api.ErrNoDaemon):
			return c.warn("have the daemon answer first, see \"daemon\" below", "NFLOG group %d is taken by %s, which may be our daemon", group, who)
		}
		return c.fail(advice, "NFLOG group %d is taken by %s", group, who)
	}
	if e.running() {
		return c.warn("restart the daemon", "the daemon is running, and nobody reads NFLOG group %d: is it in another network namespace?", group)
	}
	return c.ok("NFLOG group %d is free", group)
}

func (e *exam) checkClock(context.Context) []Finding {
	var t unix.Timex
	_, err := unix.Adjtimex(&t)
	synced := err == nil && t.Status&unix.STA_UNSYNC == 0
	newest := newestLine(e.Config.State.Dir)
	for _, b := range e.blocks {
		if b.Since.After(newest) {
			newest = b.Since
		}
	}
	return []Finding{judgeClock(time.Now(), newest, synced)}
}

// tolerance is how far the clock may go back before it matters.
const tolerance = time.Minute

func judgeClock(now, newest time.Time, synced bool) Finding {
	const c check = "clock"
	switch {
	case newest.After(now.Add(tolerance)):
		return c.warn("set the clock, such as by NTP, and restart the daemon",
			"it is %s, which is before the newest block on record (%s): blocks may last too long", stamp(now), stamp(newest))
	case !synced:
		return c.warn("let a time service set it, such as systemd-timesyncd or chrony",
			"not synchronised: blocks and records may have the wrong time after a reboot")
	}
	return c.ok("synchronised")
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
