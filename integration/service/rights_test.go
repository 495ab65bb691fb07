package service

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"nftsentry/integration/netns"
)

// nobody is a user that each Debian has by name.
const nobody = 65534

// twoRights are CAP_NET_ADMIN and CAP_NET_BIND_SERVICE, as /proc/PID/status shows them.
var twoRights = fmt.Sprintf("%016x", 1<<unix.CAP_NET_ADMIN|1<<unix.CAP_NET_BIND_SERVICE)

const noRights = "0000000000000000"

// threads are what all threads of a daemon say of themselves, each key with its one value; a key with several is an error.
func (d *daemon) threads() map[string]string {
	d.t.Helper()
	pid := fmt.Sprint(d.cmd.Process.Pid)
	tasks, err := os.ReadDir(filepath.Join("/proc", pid, "task"))
	must(d.t, err)
	out := make(map[string]string)
	for _, task := range tasks {
		data, err := os.ReadFile(filepath.Join("/proc", pid, "task", task.Name(), "status"))
		if err != nil {
			continue // it has ended
		}
		for line := range strings.Lines(string(data)) {
			key, value, _ := strings.Cut(line, ":")
			value = strings.Join(strings.Fields(value), " ")
			if before, there := out[key]; there && before != value {
				value = before + ", " + value
			}
			out[key] = value
		}
	}
	return out
}

// wantRights compares what matters of them.
func (d *daemon) wantRights(want map[string]string) {
	d.t.Helper()
	all, got := d.threads(), make(map[string]string)
	for key := range want {
		got[key] = all[key]
	}
	if diff := cmp.Diff(want, got); diff != "" {
		d.t.Errorf("rights (-want +got):\n%s", diff)
	}
}

// TestRightsUnit looks at a daemon that is started as the unit has it, and at work.
func TestRightsUnit(t *testing.T) {
	p := newPlace(t, netns.New(t, "host"), guardUser, "metrics.listen = \"127.0.0.1:9478\"")
	wrap, env := asUnit(t)
	d := p.start(wrap, nil, env)
	d.hear("READY=1")
	id := strings.Repeat(fmt.Sprintf("%d ", guardUser), 4)
	d.wantRights(map[string]string{
		"Uid": id[:len(id)-1], "Gid": id[:len(id)-1], "Groups": "", "CapEff": twoRights, "CapPrm": twoRights, "CapBnd": twoRights,
		"CapInh": twoRights, "CapAmb": twoRights, "NoNewPrivs": "1", "Seccomp": "2",
	})
	p.must("block", "192.0.2.7")
	p.must("reload")
	p.must("panic")
	p.must("resume")
	wantWell(t, p)
	if state := d.stop(unix.SIGTERM); state.ExitCode() != 0 {
		t.Errorf("%v", state)
	}
}

// wantWell wants a status without problems, and one block.
func wantWell(t *testing.T, p *place) {
	t.Helper()
	if s := p.status(); len(s.Problems) != 0 || s.Blocks.Live != 1 {
		t.Errorf("%d blocks, problems %q", s.Blocks.Live, s.Problems)
	}
}

// TestUser has root start it, without a service manager. A second start has the same folders, and what root has left
// there is the user's as well.
func TestUser(t *testing.T) {
	p := newPlace(t, netns.New(t, "host"), 0, "")
	must(t, os.RemoveAll(p.path("run")))
	for range 2 {
		d := p.start(nil, []string{"--user", "nobody"}, nil)
		d.hear("READY=1")
		d.wantRights(map[string]string{
			"Uid": "65534 65534 65534 65534", "Gid": "65534 65534 65534 65534", "Groups": "", "CapEff": twoRights, "CapPrm": twoRights, "CapBnd": twoRights,
			"CapInh": noRights, "CapAmb": noRights, "NoNewPrivs": "1",
		})
		p.must("block", "192.0.2.7")
		wantWell(t, p)
		if state := d.stop(unix.SIGTERM); state.ExitCode() != 0 {
			t.Errorf("%v", state)
		}
	}
	files, err := filepath.Glob(p.path("state", "*"))
	must(t, err)
	for _, path := range append(files, p.path("state"), p.path("run")) {
		var st unix.Stat_t
		must(t, unix.Stat(path, &st))
		if st.Uid != nobody || len(files) < 4 {
			t.Errorf("%s belongs to user %d; there are %d files", path, st.Uid, len(files))
		}
	}
}

// TestUserAfterRoot takes over the state that a daemon of root's has left.
func TestUserAfterRoot(t *testing.T) {
	p := newPlace(t, netns.New(t, "host"), 0, "")
	d := p.start(nil, nil, nil)
	d.hear("READY=1")
	p.must("block", "192.0.2.7")
	d.stop(unix.SIGKILL)
	d = p.start(nil, []string{"--user", "nobody"}, nil)
	d.hear("READY=1")
	wantWell(t, p)
}

// TestUserAfterRootInHisFolders is the same where the folders were the user's
// already, as a package makes them.
func TestUserAfterRootInHisFolders(t *testing.T) {
	p := newPlace(t, netns.New(t, "host"), 0, "")
	d := p.start(nil, []string{"--user", "nobody"}, nil)
	d.hear("READY=1")
	d.stop(unix.SIGTERM)
	must(t, os.Remove(p.path("run", "sock.lock")))
	d = p.start(nil, nil, nil)
	d.hear("READY=1")
	p.must("block", "192.0.2.7")
	d.stop(unix.SIGKILL)
	d = p.start(nil, []string{"--user", "nobody"}, nil)
	d.hear("READY=1")
	wantWell(t, p)
}

func TestUserMistakes(t *testing.T) {
	for _, tt := range []struct {
		name, user string
		prepare    func(*place)
		wrap       []string
		code       int
		want       string
	}{
		{"unknown", "no-such-user", nil, nil, 2, `nftsentry: --user no-such-user: this host has no such user: add it, such as by: useradd `},
		{"root", "root", nil, nil, 2, `nftsentry: --user root: this user is root: name another, or leave the flag out`},
		{"not root", "nobody", nil, asGuard(t), 2, `nftsentry: --user nobody: only root can become another user: start it as root, or leave the flag out`},
		{"empty", "", nil, nil, 2, `nftsentry: --user: the name is empty: `},
		{"a folder of others", "nobody", func(p *place) { must(p.t, os.Mkdir(p.path("state", "sub"), 0o755)) }, nil, 1, `nftsentry: --user nobody: state.dir: `},
		{"a link", "nobody", func(p *place) {
			must(p.t, os.Rename(p.path("state"), p.path("elsewhere")))
			must(p.t, os.Symlink("elsewhere", p.path("state")))
		}, nil, 1, `nftsentry: --user nobody: state.dir: `},
		{"a folder out of reach", "nobody", func(p *place) { must(p.t, os.Chmod(p.path(), 0o700)) }, nil, 2, `nftsentry: --user nobody: state.dir: `},
		{"secret configuration", "nobody", func(p *place) { must(p.t, os.Chmod(p.path("etc", "nftsentry.toml"), 0o600)) }, nil, 2,
			`nftsentry: --user nobody: the user has no right to read the configuration: `},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPlace(t, netns.New(t, "host"), 0, "")
			if tt.prepare != nil {
				tt.prepare(p)
			}
			d := p.start(tt.wrap, []string{"--user", tt.user}, nil)
			for range d.notes { // until it has ended
			}
			_ = d.ended.Wait()
			if code := d.cmd.ProcessState.ExitCode(); code != tt.code || !strings.HasPrefix(d.log.String(), tt.want) {
				t.Errorf("exit status %d, %q, want %d, %q", code, d.log, tt.code, tt.want)
			}
		})
	}
}

// TestExitStatus holds what the unit makes of the ends of a daemon: a wrong configuration ends it with the status that
// keeps it from being started again, a crash does not, although a Go program would end with the same.
func TestExitStatus(t *testing.T) {
	p := newPlace(t, netns.New(t, "host"), guardUser, "mood = 1")
	wrong := p.start(asGuard(t), nil, nil)
	for range wrong.notes { // until it has ended
	}
	_ = wrong.ended.Wait()
	if code := wrong.cmd.ProcessState.ExitCode(); code != 2 {
		t.Errorf("a wrong configuration: exit status %d", code)
	}
	p.configure("")
	wrap, env := asUnit(t)
	d := p.start(wrap, nil, env)
	d.hear("STATUS=")
	eventually(t, "it has crashed", func() bool { return d.cmd.Process.Signal(unix.SIGUSR2) != nil })
	_ = d.ended.Wait()
	status, _ := d.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !status.Signaled() || status.Signal() != unix.SIGABRT || !strings.Contains(d.log.String(), "panic: asked to crash") {
		t.Errorf("a crash: %v, want SIGABRT", d.cmd.ProcessState)
	}
}

// TestOpenRC has the script of OpenRC read by a shell, and looks at what it would do.
func TestOpenRC(t *testing.T) {
	const script = "../../contrib/openrc/nftsentry"
	stubs := `ebegin() { :; }; eend() { return "$1"; }; need() { :; }; after() { :; }; before() { echo "before $*"; };
. ` + script + "\n"
	run := func(text string) string {
		out, err := exec.Command("sh", "-euc", stubs+text).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return strings.TrimSpace(string(out))
	}
	for text, want := range map[string]string{
		`echo "$command $command_args"`: "/usr/sbin/nftsentry run --user nftsentry",
		`depend`:                        "before net",
	} {
		if got := run(text); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
	if got, want := strings.TrimSpace(string(mustOutput(t, "sh", "-euc", `nftsentry_user= nftsentry_config=/x.toml; `+stubs+`echo "$command_args"`))), "run --config /x.toml"; got != want {
		t.Errorf("with a file, as root: %q, want %q", got, want)
	}
}

func mustOutput(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return out
}
