package selftest

import (
	"context"
	"testing"
	"time"

	"nftsentry/conf"
	"nftsentry/integration/netns"
	"nftsentry/nft"
)

func TestMain(m *testing.M) { netns.Main(m) }

// newLab is a lab without a daemon, whose table is that of some configuration.
func newLab(t *testing.T, cfg conf.Config, table nft.Config) *lab {
	t.Helper()
	netns.Require(t)
	w, err := openWorld(cfg, 2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.close(); err != nil {
			t.Error(err)
		}
	})
	l := &lab{cfg: cfg, world: w, patience: time.Second, settle: 500 * time.Millisecond}
	if l.table, err = nft.Open(w.guarded.FD(), cfg.Block.Prefix6); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.table.Close() })
	if err := l.table.Load(table, nil, nil); err != nil {
		t.Fatal(err)
	}
	for _, f := range w.families { // neighbours find each other
		if err := w.dial(t.Context(), f, f.source(1), w.port, answering); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

// correct is the table of the default configuration, but for decoys.
func correct() nft.Config {
	return nft.Config{
		Enforce: true, JudgeTCP: true, WatchTCP: []nft.PortRange{{First: 1, Last: 1024}},
		Ports: 3, Window: time.Minute, Timeout: time.Minute, Budget: nft.Rate{Count: 120, Per: time.Minute},
		Group: 61999, DecoyRate: 1000, WatchRate: 1000, Prefix6: 64,
	}
}

// TestFaults has tables that do something else than configured found out.
func TestFaults(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*nft.Config)
		want   string // the problem; "" for none
	}{
		{"as configured", func(*nft.Config) {}, ""},
		{"blocks too late", func(c *nft.Config) { c.Ports = 4 }, "no block after 3 probes"},
		{"blocks too early", func(c *nft.Config) { c.Ports = 2 }, "blocked after 2 of 3 probes"},
		{"does not watch", func(c *nft.Config) { c.WatchTCP = []nft.PortRange{{First: 9, Last: 9}} }, "no block after 3 probes"},
		{"does not drop", func(c *nft.Config) { c.Enforce = false }, "blocked, and a service answers all the same"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			table := correct()
			tt.change(&table)
			l := newLab(t, conf.Default(), table)
			for _, f := range l.world.families {
				k := kindOf(t, "fin")
				trial := &trial{lab: l, kind: k, family: f, source: f.source(0), Trial: Trial{Ports: k.tripwires(l.cfg, 0)}}
				got := ""
				for _, step := range []func(context.Context) error{trial.scan, trial.expectSilence} {
					if err := step(t.Context()); err != nil && got == "" {
						got = err.Error()
					}
				}
				if got != tt.want {
					t.Errorf("%s: problem %q, want %q", f.name, got, tt.want)
				}
			}
		})
	}
}

// TestOnlyLogged has a block found out where there must be none.
func TestOnlyLogged(t *testing.T) {
	cfg := conf.Default()
	cfg.Mode = conf.Observe
	l := newLab(t, cfg, correct())
	f := l.world.families[0]
	trial := &trial{lab: l, kind: kindOf(t, "fin"), family: f, source: f.source(0), Trial: Trial{Ports: []uint16{1, 2, 3}}}
	trial.before.Blocks.Would = 1
	want := "blocked, where the configuration only logs"
	if err := trial.scan(t.Context()); err == nil || err.Error() != want {
		t.Errorf("%v, want %q", err, want)
	}
}

// TestStillTold has a refusal found out where silence is configured.
func TestStillTold(t *testing.T) {
	table := correct()
	table.Reject = true
	l := newLab(t, conf.Default(), table)
	f := l.world.families[0]
	trial := &trial{lab: l, kind: kindOf(t, "syn"), family: f, source: f.source(0), Trial: Trial{Ports: []uint16{1, 2, 3}}}
	if err := trial.scan(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := trial.expectSilence(t.Context()); err == nil || trial.Dropped {
		t.Errorf("error %v, dropped %v", err, trial.Dropped)
	}
}

func TestIsolate(t *testing.T) {
	s := Subject{Config: conf.Default(), Dir: t.TempDir()}
	s.Config.Trigger.Budget.Count = 1
	notes, err := isolate(s)
	if err != nil || len(notes) != 1 {
		t.Fatalf("notes %q, %v", notes, err)
	}
	got, err := conf.Load(s.Dir + "/" + fileConfig)
	if err != nil {
		t.Fatal(err)
	}
	if got.State.Dir != s.Dir+"/state" || got.Control.Socket != s.Dir+"/sock" || got.Trigger.Budget.Count != budget {
		t.Errorf("state %s, socket %s, budget %s", got.State.Dir, got.Control.Socket, got.Trigger.Budget)
	}
}
