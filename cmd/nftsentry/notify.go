package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"go.uber.org/zap"

	"nftsentry/conf"
	"nftsentry/controller"
)

// statusEvery is how often the service manager may be told of a new status.
const statusEvery = 10 * time.Second

// notifyWithin is how long the service manager may take for a message. The
// library's own function would wait for ever, and hold up who is to guard.
const notifyWithin = time.Second

// notify tells the service manager, if there is one, some lines of
// sd_notify(3).
func (g *guard) notify(lines ...string) { notifyManager(g.log, lines...) }

func notifyManager(log *zap.Logger, lines ...string) {
	socket := os.Getenv("NOTIFY_SOCKET")
	if socket == "" {
		return
	}
	if err := sendTo(socket, strings.Join(lines, "\n")); err != nil {
		log.Warn("cannot tell the service manager", zap.Strings("what", lines), zap.Error(err))
	}
}

func sendTo(socket, text string) error {
	conn, err := net.DialTimeout("unixgram", socket, notifyWithin)
	if err != nil {
		return err
	}
	err = conn.SetWriteDeadline(time.Now().Add(notifyWithin))
	if err == nil {
		_, err = conn.Write([]byte(text))
	}
	return errors.Join(err, conn.Close())
}

// notifyReload tells that a reload has begun, and gives what tells that it is
// over, whatever has come of it.
func (g *guard) notifyReload() (over func()) {
	g.notify(daemon.SdNotifyReloading, strings.TrimSpace(daemon.SdNotifyMonotonicUsec()))
	return func() { g.notify(daemon.SdNotifyReady) }
}

// attend keeps the service manager informed, if there is one, until ctx ends.
// A watchdog is told that all is well only after the control loop has answered,
// and the kernel has answered the loop: while one of them hangs it hears
// nothing.
func (g *guard) attend(ctx context.Context) error {
	if os.Getenv("NOTIFY_SOCKET") == "" {
		return nil
	}
	patience, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		g.log.Warn("cannot read how often the watchdog of the service manager wants to hear: it hears nothing", zap.Error(err))
	}
	const share = 3 // of the time: one message may be late
	pause := statusEvery
	if patience > 0 {
		pause = min(pause, patience/share)
	}
	told := ""
	attend(ctx, pause, g.pulse, func(line string) {
		var lines []string
		if patience > 0 {
			lines = append(lines, daemon.SdNotifyWatchdog)
		}
		if line != told {
			lines = append(lines, "STATUS="+line)
		}
		if told = line; len(lines) > 0 {
			g.notify(lines...)
		}
	})
	return nil
}

// attend asks for a line of status at every pause until ctx ends, and tells
// each that comes.
func attend(ctx context.Context, pause time.Duration, ask func(context.Context) (string, error), tell func(string)) {
	ticker := time.NewTicker(pause)
	defer ticker.Stop()
	for {
		if line, err := ask(ctx); err == nil {
			tell(line)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// pulse asks the control loop and, through it, the kernel how the guard is. It
// waits as long as they do.
func (g *guard) pulse(ctx context.Context) (string, error) {
	stats, err := g.controller.Stats(ctx)
	if err != nil {
		return "", err
	}
	_, unreadable, err := g.counters(ctx)
	if err != nil {
		return "", err
	}
	line := guardLine(*g.cfg.Load(), stats)
	if stats.Damage != nil || unreadable != nil || g.store.Degraded() != nil {
		line += "; there are problems, see \"nftsentry status\""
	}
	return line, nil
}

// guardLine says in one line what is guarded, and who is blocked.
func guardLine(cfg conf.Config, s controller.Stats) string {
	switch {
	case s.Panicked:
		return fmt.Sprintf("Panic: nothing is noticed or blocked until \"nftsentry resume\"; %s suspended", plural(s.Live, "block"))
	case s.Unlisted:
		return fmt.Sprintf("Nothing is noticed or blocked until ignore.files can be read; %s suspended", plural(s.Live, "block"))
	}
	tripwires := fmt.Sprintf("%s and %s watched", plural(count(cfg.TCP.Decoys()), "decoy port"), plural(count(cfg.TCP.Watched())+count(cfg.UDP.Watched()), "port"))
	if cfg.Mode == conf.Observe {
		return fmt.Sprintf("Observing %s: nobody is blocked, %d would have been", tripwires, s.WouldHave)
	}
	return fmt.Sprintf("Guarding by %s: %s blocked", tripwires, plural(s.Live, "source"))
}
