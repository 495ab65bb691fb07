package service

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nftsentry/integration/netns"
)

// TestIntrusion has a daemon try from inside what somebody would who has taken it over. All is refused: behind the
// filter of the unit, and without a service manager too. Everybody may do everything with the folder and the files that
// it tries to reach, and the process that it tries to trace is of the same user: nothing but the sandbox is in the way.
func TestIntrusion(t *testing.T) {
	for _, tt := range []struct {
		name  string
		start func(*testing.T, *place, []string) *daemon
	}{
		{"as the unit has it", func(t *testing.T, p *place, env []string) *daemon {
			wrap, filter := asUnit(t)
			return p.start(wrap, nil, append(filter, env...))
		}},
		{"with its rights alone", func(t *testing.T, p *place, env []string) *daemon {
			return p.start(asGuard(t), nil, env)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			requireLandlock(t)
			p := newPlace(t, netns.New(t, "host"), guardUser, "")
			d := tt.start(t, p, bait(t, p))
			d.hear("READY=1")
			eventually(t, "it has tried, or has become another program", func() bool { // the first signals may come too early
				return d.cmd.Process.Signal(unix.SIGUSR1) != nil || strings.Contains(d.out.String(), "\n")
			})
			first, _, _ := strings.Cut(d.out.String(), "\n")
			var got map[string]string
			if err := json.Unmarshal([]byte(first), &got); err != nil {
				t.Fatalf("%q: %v", first, err)
			}
			if len(got) < 17 {
				t.Errorf("%d attempts", len(got))
			}
			for _, what := range slices.Sorted(maps.Keys(got)) {
				refused := got[what] == unix.EPERM.Error() || got[what] == unix.EACCES.Error()
				if !refused && (what != "load a module" || got[what] != unix.ENOSYS.Error()) { // some kernels have no modules
					t.Errorf("%s: %s", what, got[what])
				}
			}
			if s := p.status(); s.Sandbox.Landlock == 0 || len(s.Problems) > 0 { // it goes on
				t.Errorf("status: %+v, %q", s.Sandbox, s.Problems)
			}
		})
	}
}

// requireLandlock skips a test where the kernel has no Landlock; in CI it fails.
func requireLandlock(t *testing.T) {
	t.Helper()
	_, _, err := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, 1) // LANDLOCK_CREATE_RULESET_VERSION
	if err == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("this kernel has no Landlock")
	}
	t.Skip("this kernel has no Landlock")
}

// bait is what an intruder is after, as the environment tells him.
func bait(t *testing.T, p *place) []string {
	t.Helper()
	folder := p.path("bait")
	must(t, os.Mkdir(folder, 0o777))
	must(t, os.Chmod(folder, 0o777))
	program, err := os.ReadFile("/bin/true")
	must(t, err)
	for name, data := range map[string][]byte{"text": []byte("secret"), "program": program, "program.old": program} {
		path := filepath.Join(folder, name)
		must(t, os.WriteFile(path, data, 0o777))
		must(t, os.Chmod(path, 0o777))
	}
	id := fmt.Sprint(guardUser)
	victim := p.host.Command(netns.Tool(t, "setpriv"), "--reuid="+id, "--regid="+id, "--clear-groups", "--inh-caps=-all", "--bounding-set=-all", "sleep", "3600")
	p.host.Start(t, victim)
	eventually(t, "the victim is of the user", func() bool {
		return strings.Contains(processStatus(t, fmt.Sprint(victim.Process.Pid))["Name"], "sleep")
	})
	return []string{"INTRUSION_FOLDER=" + folder, "INTRUSION_STATE=" + p.path("state"), fmt.Sprintf("INTRUSION_PROCESS=%d", victim.Process.Pid)}
}

// processStatus is /proc/PID/status, see proc(5).
func processStatus(t *testing.T, pid string) map[string]string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("/proc", pid, "status"))
	must(t, err)
	out := make(map[string]string)
	for line := range strings.Lines(string(data)) {
		key, value, _ := strings.Cut(line, ":")
		out[key] = strings.Join(strings.Fields(value), " ")
	}
	return out
}
