package integration

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"nftsentry/controller/api"
	"nftsentry/integration/netns"
	"nftsentry/state"
)

// jumps are how far the clock of the host goes between two runs of the daemon.
var jumps = []time.Duration{0, -24 * time.Hour, 24 * time.Hour, 10 * 365 * 24 * time.Hour}

// TestResilienceClock shifts what is on record, as if the clock of the host
// had been set between two runs: with the table still in the kernel, which
// knows how long each block has left, and after a reboot. A clock cannot be set
// in a namespace, and a daemon that runs goes by the monotonic one.
func TestResilienceClock(t *testing.T) {
	const (
		lasts  = 6 * time.Second
		away   = 3 * time.Second // longer than anybody may be blocked for too much
		excess = time.Second     // that is allowed: elements last whole seconds
		slack  = 700 * time.Millisecond
	)
	for name, times := range map[string]struct{ kept, rebooted int }{
		"table in the kernel": {1, 0}, "table in the kernel, and then a reboot": {1, 1}, "reboot": {0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := netns.New(t, "host")
			p := newProgram(t, host, "")
			d := p.run()
			shifts, began := make(map[netip.Prefix]time.Duration), make(map[netip.Prefix]span)
			for i, jump := range jumps {
				for _, form := range []string{"198.51.100.%d", "2001:db8:7:%d::/64", "203.0.%d.0/24"} {
					source := fmt.Sprintf(form, 10+2*i) // apart, since the kernel may join neighbours
					parsed, _ := api.ParseSource(source)
					before := time.Now()
					if _, err := d.ask().Block(t.Context(), api.BlockRequest{Source: source, Seconds: int64(lasts / time.Second)}); err != nil {
						t.Fatal(err)
					}
					shifts[parsed], began[parsed] = -jump, span{before, time.Now()}
				}
			}
			d.end(unix.SIGTERM)
			p.shift(shifts)
			if times.kept > 0 {
				time.Sleep(away)
			}
			for range times.kept {
				d = p.run()
				d.end(unix.SIGTERM)
			}
			if times.rebooted > 0 {
				host.Output(t, netns.Tool(t, "nft"), "delete table inet nftsentry")
			}
			lost := times.kept == 0 // all there is to go by is on record
			restarted := time.Now()
			d = p.run()
			again := span{restarted, time.Now()}
			ends := endings(t, d, shifts, restarted)
			for source, shift := range shifts {
				from, over := began[source], ends[source.Addr()]
				switch {
				case lost && shift < 0 && over.first.Equal(restarted): // it was not blocked again
					continue
				case lost && shift > 0: // nobody knows how long ago it began
					from = again
				}
				if late := over.first.Sub(from.last) - lasts; late > excess+slack {
					t.Errorf("%s, clock set by %v: let go %v late", source, -shift, late)
				}
				if early := lasts - over.last.Sub(from.first); early > slack {
					t.Errorf("%s, clock set by %v: let go %v early", source, -shift, early)
				}
			}
		})
	}
}

// shift changes the times of blocks on record.
func (p *program) shift(by map[netip.Prefix]time.Duration) {
	p.t.Helper()
	store, err := state.Open(p.state(""), zap.NewNop())
	if err != nil {
		p.t.Fatal(err)
	}
	live, err := store.Live()
	if err != nil || len(live) != len(by) {
		p.t.Fatalf("%d blocks on record, %v, want %d", len(live), err, len(by))
	}
	for _, b := range live {
		b.Since, b.Until = b.Since.Add(by[b.Source]), b.Until.Add(by[b.Source])
		store.Save(b, nil)
	}
	ended, end := context.WithCancel(p.t.Context())
	end()
	if err := store.Run(ended); err != nil {
		p.t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		p.t.Fatal(err)
	}
}

// A span is when something has happened: not before first, and not after last.
type span struct{ first, last time.Time }

// endings waits until nothing is blocked any more, and tells when each source
// was let go: not before the start, from when on it looks.
func endings(t *testing.T, d *daemon, sources map[netip.Prefix]time.Duration, start time.Time) map[netip.Addr]span {
	t.Helper()
	ends := make(map[netip.Addr]span)
	for source := range sources {
		ends[source.Addr()] = span{first: start}
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		now, there := time.Now(), held(t, d.host, "blocked4", "blocked6", "nets4")
		for source, end := range ends {
			if _, blocked := there[source]; blocked {
				ends[source] = span{first: now}
			} else if end.last.IsZero() {
				end.last = time.Now()
				ends[source] = end
			}
		}
		if len(there) == 0 {
			return ends
		}
		if now.After(deadline) {
			t.Fatalf("still there: %s", strings.Join(d.sources(), " "))
		}
	}
}
