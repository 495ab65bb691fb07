package service

import (
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nftsentry/integration/netns"
)

// TestNotify follows what the service manager is told from the start to the end.
func TestNotify(t *testing.T) {
	host := netns.New(t, "host")
	p := newPlace(t, host, guardUser, "")
	d := p.start(asGuard(t), nil, nil)
	if got := d.hear(""); got != "READY=1" {
		t.Errorf("at first it is told %q", got)
	}
	if table := host.Output(t, netns.Tool(t, "nft"), "list", "table", "inet", "nftsentry"); !strings.Contains(table, "chain lure") {
		t.Errorf("it says that it is ready before its table is\n%s", table)
	}
	if got, want := d.hear("STATUS="), "STATUS=Guarding by 28 decoy ports and 1010 ports watched: 0 sources blocked"; got != want {
		t.Errorf("told %q, want %q", got, want)
	}
	p.must("reload")
	d.wantReload()
	p.configure("mood = 1")
	if r := p.ask("reload", "--socket", p.path("run", "sock")); r.code != 2 || !strings.Contains(r.stderr, "mood") {
		t.Errorf("a reload with a mistake: %+v", r)
	}
	d.wantReload()
	must(t, d.cmd.Process.Signal(unix.SIGHUP))
	d.wantReload()
	if state := d.stop(unix.SIGTERM); state.ExitCode() != 0 {
		t.Errorf("%v", state)
	}
	d.hear("STOPPING=1")
}

// wantReload wants the beginning of a reload, with its time, and its end.
func (d *daemon) wantReload() {
	d.t.Helper()
	note := d.hear("RELOADING=1")
	usec, err := strconv.ParseInt(strings.TrimPrefix(note, "RELOADING=1\nMONOTONIC_USEC="), 10, 64)
	if err != nil || usec <= 0 {
		d.t.Errorf("told %q", note)
	}
	d.hear("READY=1")
}

// TestWatchdog freezes the kernel's answers to a daemon that is well: the service manager hears nothing any more,
// until they come again.
func TestWatchdog(t *testing.T) {
	p := newPlace(t, netns.New(t, "host"), guardUser, "")
	const wait = 600 * time.Millisecond
	d := p.start(asGuard(t), nil, []string{fmt.Sprintf("WATCHDOG_USEC=%d", wait.Microseconds())})
	d.hear("READY=1")
	for range 3 {
		d.hear("WATCHDOG=1")
	}
	thaw := d.freeze()
	d.silent(5 * wait)
	thaw()
	d.hear("WATCHDOG=1")
}

// freeze has each message to the kernel take an hour, until thaw is called.
func (d *daemon) freeze() (thaw func()) {
	d.t.Helper()
	log := &buffer{}
	cmd := exec.Command(netns.Tool(d.t, "strace"), "-f", "-e", "trace=sendto,sendmsg", "-e", "inject=sendto,sendmsg:delay_enter=3600s",
		"-p", fmt.Sprint(d.cmd.Process.Pid))
	cmd.Stderr = log
	must(d.t, cmd.Start())
	over := false
	thaw = func() {
		if over {
			return
		}
		over = true
		_ = cmd.Process.Signal(unix.SIGTERM)
		_ = cmd.Wait() // it ends by the signal
	}
	d.t.Cleanup(thaw)
	eventually(d.t, "strace is attached: "+log.String(), func() bool { return strings.Contains(log.String(), "send") })
	return thaw
}

// silent wants nothing to be heard for a while; what was on its way is let pass.
func (d *daemon) silent(d2 time.Duration) {
	d.t.Helper()
	deadline := time.After(patience)
	for quiet := time.NewTimer(d2); ; {
		select {
		case <-quiet.C:
			return
		case <-d.notes:
			quiet.Reset(d2)
		case <-deadline:
			d.t.Fatal("the watchdog hears of a loop that hangs")
		}
	}
}
