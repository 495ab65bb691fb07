package integration

import (
	"bufio"
	"encoding/json"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"nftsentry/controller/api"
)

// TestWatch has a source probe, be blocked, let go, and ignored, before the
// eyes of three who watch, and an operator change what holds.
func TestWatch(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			w := newWorld(t)
			d := guard(t, w.server, "[trigger]\nconnects = 2\n")
			all := d.watch()
			some := d.watch("--event", "block", "--source", f.source, "--kind", "connect", "--port", "79")
			last := d.watch("--event", "stop")
			eventually(t, "all watch", patience, func() bool { return d.status().Readers == 3 })
			_, _ = touch(w.client, "", f.server, 23)
			_, _ = touch(w.client, "", f.server, 79)
			d.listed()
			d.must("unblock", f.source)
			d.must("panic")
			d.must("reload")
			d.must("resume")
			wantAll := []string{"probe " + f.client, "sentence " + f.client, "block " + f.client, "unblock " + f.source, "panic ", "reload ", "resume "}
			for _, want := range wantAll {
				e := all.next()
				for e.Kind == "syn" { // the kernel's word of what began the connections
					e = all.next()
				}
				if got := e.Event + " " + e.Source; got != want {
					t.Errorf("%+v, want %s", e, want)
				}
			}
			e := some.next()
			if e.Event != "block" || e.Port != 79 || e.Kind != "connect" || e.Evidence != "proven" || e.Seconds <= 0 || e.Seconds > 5 || e.Block == nil || e.Block.Source != f.source {
				t.Errorf("the filter lets pass %+v, its block %+v", e, e.Block)
			}
			all.end(unix.SIGINT, 0, "")
			d.end(unix.SIGTERM)
			if e := last.next(); e.Event != "stop" || e.Reason == "" {
				t.Errorf("the last event is %+v, want stop", e)
			}
			last.end(0, 1, "nftsentry: nftsentry is not running any more, or this reader was too slow for it\n")
			some.end(0, 1, "nftsentry: nftsentry is not running any more, or this reader was too slow for it\n")
		})
	}
}

// A watcher is a watch command that runs.
type watcher struct {
	t     *testing.T
	done  errgroup.Group
	lines chan string
	stop  func(unix.Signal)
	err   lockedBuffer
	code  int
}

func (d *daemon) watch(args ...string) *watcher {
	d.t.Helper()
	w := &watcher{t: d.t.(*testing.T), lines: make(chan string, 1000)}
	cmd := d.host.Command(os.Getenv(programEnv), append([]string{"watch", "--json", "-c", d.conf}, args...)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	cmd.Stderr = &w.err
	d.host.Start(d.t, cmd)
	w.stop = func(s unix.Signal) { _ = cmd.Process.Signal(s) }
	w.done.Go(func() error {
		defer close(w.lines)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			w.lines <- lines.Text()
		}
		_ = cmd.Wait() // the exit status says it
		w.code = cmd.ProcessState.ExitCode()
		return nil
	})
	d.t.Cleanup(func() { w.stop(unix.SIGKILL); _ = w.done.Wait() })
	return w
}

// next is the next event.
func (w *watcher) next() (e api.Event) {
	w.t.Helper()
	select {
	case line := <-w.lines:
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			w.t.Fatalf("%q: %v", line, err)
		}
		if _, err := netip.ParsePrefix(e.Source); err != nil && e.Source != "" {
			if _, err := netip.ParseAddr(e.Source); err != nil {
				w.t.Errorf("%q: %v", line, err)
			}
		}
	case <-time.After(patience):
		w.t.Fatal("no event")
	}
	return e
}

// end sends a signal, 0 for none, and compares how the command ends.
func (w *watcher) end(signal unix.Signal, code int, messages string) {
	w.t.Helper()
	w.stop(signal)
	if err := w.done.Wait(); err != nil || w.code != code || w.err.String() != messages {
		w.t.Errorf("watch ended with %d, %v, and said %q, want %d, %q", w.code, err, w.err.String(), code, messages)
	}
}
