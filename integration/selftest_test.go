package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"nftsentry/integration/netns"
)

// A selftestReport is what selftest --json prints, as scripts read it.
type selftestReport struct {
	Mode   string
	Passed bool
	Notes  []string
	Trials []struct {
		Kind, Family, Outcome, Problem, Blocked string
		Ports                                   []uint16
		Noticed, Dropped, Released              bool
		Probes                                  int
		Microseconds                            int64
	}
}

// selftest runs the command with a configuration and returns its report and
// exit status.
func selftest(t *testing.T, conf string) (selftestReport, int) {
	t.Helper()
	p := newProgram(t, netns.New(t, "host"), conf)
	r := p.command("selftest", "--json")
	var report selftestReport
	if err := json.Unmarshal([]byte(r.stdout), &report); err != nil {
		t.Fatalf("%v: %s%s", err, r.stdout, r.stderr)
	}
	return report, r.code
}

// results says of each kind what came of it, over both families.
func (r selftestReport) results() []string {
	var out []string
	for _, t := range r.Trials {
		s := fmt.Sprintf("%s %s", t.Kind, t.Outcome)
		if t.Noticed {
			s += fmt.Sprintf(", blocked %s after %d", t.Blocked, t.Probes)
		}
		if t.Dropped {
			s += ", dropped"
		}
		if t.Released {
			s += ", released"
		}
		if t.Problem != "" {
			s += ": " + t.Problem
		}
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

func TestSelftest(t *testing.T) {
	stealth := func(result string) []string {
		var out []string
		for _, kind := range []string{"syn", "fin", "null", "xmas", "syn-fin"} {
			out = append(out, kind+" "+result)
		}
		return out
	}
	for _, tt := range []struct {
		name, conf, mode string
		want             []string
	}{
		{"defaults", "", "enforce", slices.Concat([]string{"connect ok, blocked yes after 1, dropped, released"},
			stealth("ok, blocked yes after 3, dropped, released"), []string{"udp not watched"})},
		{"UDP", "[udp]\nwatch = \"1-1024\"\n[trigger]\nconnects = 2\nports = 4\n[block]\naction = \"reject\"\nprefix6 = 56", "enforce",
			slices.Concat([]string{"connect ok, blocked yes after 2, dropped, released"},
				stealth("ok, blocked yes after 4, dropped, released"), []string{"udp ok, blocked yes after 4, dropped, released"})},
		{"no watched ports, only decoys", "[tcp]\nwatch = \"\"\ndecoy = \"23,2323\"\n[trigger]\nports = 2", "enforce",
			slices.Concat([]string{"connect ok, blocked yes after 1, dropped, released"},
				stealth("ok, blocked yes after 2, dropped, released"), []string{"udp not watched"})},
		{"no tripwire at all", "[tcp]\nwatch = \"\"\ndecoy = \"\"", "enforce",
			slices.Concat([]string{"connect not watched"}, stealth("not watched"), []string{"udp not watched"})},
		{"fewer tripwires than the trigger", "[tcp]\nwatch = \"9\"\ndecoy = \"\"", "enforce",
			slices.Concat([]string{"connect not watched"}, stealth("ok, blocked no after 0"), []string{"udp not watched"})},
		{"observe", "mode = \"observe\"\n[udp]\nwatch = \"69,161,162\"", "observe",
			slices.Concat([]string{"connect ok, blocked would be after 1"},
				stealth("ok, blocked would be after 3"), []string{"udp ok, blocked would be after 3"})},
		{"what the test comes from is ignored", "[ignore]\nsources = [\"198.18.0.0/15\", \"2001:db8::/32\"]\ninterfaces = [\"selftest0\"]", "enforce",
			slices.Concat([]string{"connect ok, blocked yes after 1, dropped, released"},
				stealth("ok, blocked yes after 3, dropped, released"), []string{"udp not watched"})},
		{"one packet is enough", "[trigger]\nports = 1\nconnects = 2", "enforce",
			slices.Concat([]string{"connect ok, blocked yes after 1, dropped, released"},
				stealth("ok, blocked yes after 1, dropped, released"), []string{"udp not watched"})},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, code := selftest(t, tt.conf)
			if got := r.results(); !slices.Equal(tt.want, got) || len(r.Trials) != 14 {
				t.Errorf("%d trials, got\n%s\nwant\n%s", len(r.Trials), strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
			}
			if code != 0 || !r.Passed || r.Mode != tt.mode {
				t.Errorf("exit status %d, passed %v, mode %s", code, r.Passed, r.Mode)
			}
		})
	}
}

// TestSelftestTouchesNothing has selftest run on a host with a daemon and a
// firewall of its own, and compares all of it before and after.
func TestSelftestTouchesNothing(t *testing.T) {
	host := netns.New(t, "host")
	d := guard(t, host, "[tcp]\ndecoy = \"23\"")
	nft, ip := netns.Tool(t, "nft"), netns.Tool(t, "ip")
	look := func() string {
		return host.Output(t, nft, "-s", "list", "ruleset") + host.Output(t, ip, "-br", "addr") + host.Output(t, ip, "route")
	}
	temp := t.TempDir()
	before := look()
	cmd := host.Command(os.Getenv(programEnv), "selftest", "-c", d.conf)
	cmd.Env = append(os.Environ(), "TMPDIR="+temp)
	host.Start(t, cmd)
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if after := look(); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	if s := d.status(); s.Blocks.Made != 0 || s.Watched.Probes != 0 || s.Decoys.Connections != 0 {
		t.Errorf("the daemon of the host has seen something: %+v", s)
	}
	wantEmpty(t, temp)
}

func wantEmpty(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) > 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

// TestSelftestListed has a file of ignore.files name where the test would come
// from, and one that is not there.
func TestSelftestListed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "bogons")
	must(t, os.WriteFile(file, []byte("198.18.0.0/15\n192.0.2.0/24\n2001:db8::/32\n"), 0o600))
	p := newProgram(t, netns.New(t, "host"), fmt.Sprintf("[ignore]\nfiles = [%q]", file))
	if r := p.command("selftest"); r.code != 0 || r.stderr != "" {
		t.Errorf("exit status %d: %s%s", r.code, r.stdout, r.stderr)
	}
	must(t, os.Remove(file))
	if r := p.command("selftest"); r.code != 2 || r.stdout != "" || !strings.Contains(r.stderr, file+": ") {
		t.Errorf("exit status %d, want 2: %s%s", r.code, r.stdout, r.stderr)
	}
}

// TestSelftestPipe reads the configuration from a pipe, and writes to one that
// nobody reads.
func TestSelftestPipe(t *testing.T) {
	host := netns.New(t, "host")
	cmd := host.Command(os.Getenv(programEnv), "selftest", "-c", "/dev/stdin")
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = strings.NewReader("mode = \"observe\"\n"), &stderr
	host.Start(t, cmd)
	if err := cmd.Wait(); err == nil || !strings.Contains(stderr.String(), "/dev/stdin: not a regular file") {
		t.Errorf("%v: %s", err, stderr.String())
	}
	read, write, err := os.Pipe()
	must(t, err, read.Close())
	temp := t.TempDir()
	stderr.Reset()
	cmd = host.Command(os.Getenv(programEnv), "selftest", "-c", newProgram(t, host, "[tcp]\nwatch = \"\"\ndecoy = \"\"").conf)
	cmd.Env = append(os.Environ(), "TMPDIR="+temp)
	cmd.Stdout, cmd.Stderr = write, &stderr
	host.Start(t, cmd)
	must(t, write.Close())
	if err := cmd.Wait(); err == nil || stderr.Len() > 0 {
		t.Errorf("%v: %s", err, stderr.String())
	}
	wantEmpty(t, temp)
}

// TestSelftestInterrupted ends it in the middle, and looks for what is left.
func TestSelftestInterrupted(t *testing.T) {
	for _, sig := range []unix.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP} {
		t.Run(unix.SignalName(sig), func(t *testing.T) { testInterrupted(t, sig) })
	}
}

// testInterrupted signals the process group, as a terminal does.
func testInterrupted(t *testing.T, sig unix.Signal) {
	host := netns.New(t, "host")
	p := newProgram(t, host, "[trigger]\nports = 1000\n[tcp]\nwatch = \"1-65535\"")
	temp := t.TempDir()
	cmd := host.Command(os.Getenv(programEnv), "selftest", "-c", p.conf)
	cmd.Env = append(os.Environ(), "TMPDIR="+temp)
	cmd.SysProcAttr.Setpgid = true
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	host.Start(t, cmd)
	var children []string
	eventually(t, "the daemon of the test runs", patience, func() bool {
		children = processesBelow(cmd.Process.Pid)
		return len(children) >= 2 // selftest again, and the daemon
	})
	if err := syscall.Kill(-cmd.Process.Pid, sig); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("exit status %d, want 1\n%s%s", cmd.ProcessState.ExitCode(), stdout.String(), stderr.String())
	}
	if got := stderr.String(); !strings.HasSuffix(got, " signal received\n") || strings.Count(got, "\n") != 1 {
		t.Errorf("besides the signal it tells: %q", got)
	}
	wantEmpty(t, temp)
	eventually(t, "all of its processes have ended", patience, func() bool {
		return !slices.ContainsFunc(children, func(pid string) bool {
			_, err := os.Stat(filepath.Join("/proc", pid))
			return err == nil
		})
	})
}

// processesBelow lists the processes that a process has started, and those that
// they have.
func processesBelow(pid int) []string {
	entries, _ := os.ReadDir("/proc")
	children := make(map[string][]string)
	for _, e := range entries {
		stat, err := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(stat), ") ")
		if f := strings.Fields(rest); len(f) > 1 {
			children[f[1]] = append(children[f[1]], e.Name())
		}
	}
	out := slices.Clone(children[fmt.Sprint(pid)])
	for i := 0; i < len(out); i++ {
		out = append(out, children[out[i]]...)
	}
	return out
}

// TestSelftestUsers runs it as an ordinary user, in a user namespace, and as
// root, without one.
func TestSelftestUsers(t *testing.T) {
	requireOutside(t)
	p := newProgram(t, netns.New(t, "host"), "[udp]\nwatch = \"1-1024\"")
	passable(t, os.Getenv(programEnv))
	passable(t, p.conf)
	if err := os.Chmod(p.conf, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, uid := range map[string]uint32{"nobody": 65534, "root": 0} {
		t.Run(name, func(t *testing.T) {
			r := askOutside(t, outsider{[]string{os.Getenv(programEnv), "selftest", "--json", "-c", p.conf}, uid, uid, nil})
			var report selftestReport
			if err := json.Unmarshal([]byte(r.Stdout), &report); err != nil || r.Code != 0 || !report.Passed {
				t.Errorf("exit status %d: %s%s", r.Code, r.Stdout, r.Stderr)
			}
		})
	}
}
