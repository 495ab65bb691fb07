package integration

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nftsentry/integration/netns"
)

// hookDir is where the daemon sees the folder of a test that only root may
// write to: programs are trusted only in such a place.
const hookDir = "/mnt"

// trusted gives a program a folder at hookDir, in a mount namespace of its own,
// and returns where the test sees it.
func (p *program) trusted() string {
	p.t.Helper()
	dir := filepath.Join(p.dir, "trusted")
	if err := os.Mkdir(dir, 0o755); err != nil {
		p.t.Fatal(err)
	}
	p.wrap = append(p.wrap, netns.Tool(p.t, "unshare"), "-m", "sh", "-c", `mount --bind "$0" `+hookDir+` && exec "$@"`, dir)
	return dir
}

// script writes a program that adds a line to a file beside it: its arguments
// and some of its environment.
func script(t *testing.T, dir, name, more string) {
	t.Helper()
	text := fmt.Sprintf("#!/bin/sh\necho %s \"$@\" \"$NFTSENTRY_EVENT $NFTSENTRY_EVIDENCE $NFTSENTRY_SOURCE\" >>%s/told\n%s\n", name, hookDir, more)
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

// written are the lines that programs have written, sorted.
func written(t *testing.T, dir string, n int) []string {
	t.Helper()
	var lines []string
	eventually(t, fmt.Sprintf("programs have written %d lines", n), patience, func() bool {
		data, _ := os.ReadFile(filepath.Join(dir, "told")) // there is none before the first
		lines = strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
		return len(lines) >= n && bytes.HasSuffix(data, []byte("\n"))
	})
	slices.Sort(lines)
	return lines
}

// TestHooks has real probes run programs and write hosts.deny, as they did
// with Portsentry.
func TestHooks(t *testing.T) {
	w := newWorld(t)
	p := newProgram(t, w.server, "")
	dir := p.trusted()
	for _, name := range []string{"before", "after", "gone"} {
		script(t, dir, name, "")
	}
	deny := filepath.Join(dir, "hosts.deny")
	if err := os.WriteFile(deny, []byte("ALL: 192.0.2.1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	p.configure(`
trigger.ports = 2
[hook]
mode_tcp = "atcp"
[[hook.exec]]
command = ["/mnt/before", "$TARGET$", "$PORT$", "$MODE$"]
when = "before"
[[hook.exec]]
command = ["/mnt/after", "$TARGET$", "$PORT$", "$MODE$"]
[[hook.exec]]
command = ["/mnt/gone", "$TARGET$"]
on = ["unblock"]
[hook.hosts_deny]
file = "/mnt/hosts.deny"
`)
	d := p.run()
	nmap(t, w.client, server4, "200,201", "-sS", "-r", "-T3")
	_, _ = touch(w.client, "", server6, 23)
	eventually(t, "both are blocked", patience, func() bool { return len(d.sources()) == 2 })
	port := d.list()[0].Port
	want := []string{
		fmt.Sprintf("after %s %d atcp block unproven %s/32", client4, port, client4),
		"after " + client6 + " 23 tcp block proven 2001:db8:8::/64",
		fmt.Sprintf("before %s %d atcp before unproven %s/32", client4, port, client4),
		"before " + client6 + " 23 tcp before proven 2001:db8:8::/64",
	}
	if got := written(t, dir, 4); !slices.Equal(got, want) {
		t.Errorf("programs were told\n%q, want\n%q", got, want)
	}
	denied := func(what string, sources ...string) {
		t.Helper()
		eventually(t, what, patience, func() bool {
			data, err := os.ReadFile(deny)
			if err != nil {
				t.Fatal(err)
			}
			var ours []string
			for line := range strings.Lines(string(data)) {
				if strings.HasPrefix(line, "ALL: ") && strings.HasSuffix(line, " : DENY\n") {
					ours = append(ours, strings.TrimSuffix(strings.TrimPrefix(line, "ALL: "), " : DENY\n"))
				}
			}
			slices.Sort(ours)
			return slices.Equal(ours, sources) && strings.Contains(string(data), "ALL: 192.0.2.1\n")
		})
	}
	denied("both are denied", client4, "[2001:db8:8::]/64")
	d.must("panic")
	denied("nobody is denied in panic")
	d.must("resume")
	denied("both are denied again", client4, "[2001:db8:8::]/64")
	d.must("unblock", client4)
	if got := written(t, dir, 5)[4]; got != "gone "+client4+" unblock unproven "+client4+"/32" {
		t.Errorf("the end of a block was told as %q", got)
	}
	denied("one is denied", "[2001:db8:8::]/64")
	done := regexp.MustCompile(`(?m)^hook +exec\[1\] /mnt/after: 2 done$`)
	eventually(t, "status has a line of the hook", patience, func() bool { return done.MatchString(d.must("status")) })
	d.end(unix.SIGKILL)
	cmd := p.host.Command(p.wrap[0], append(slices.Clone(p.wrap[1:]), os.Getenv(programEnv), "teardown", "-c", p.conf)...)
	p.host.Start(t, cmd)
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	denied("nobody is denied after a teardown")
	d = p.run()
	if code := d.end(unix.SIGTERM); code != 0 {
		t.Errorf("exit status %d", code)
	}
}

// TestHookRun has programs run where the response is that alone.
func TestHookRun(t *testing.T) {
	w := newWorld(t)
	p := newProgram(t, w.server, "")
	dir := p.trusted()
	script(t, dir, "notify", "")
	p.configure("tcp.respond = \"run\"\n[[hook.exec]]\ncommand = [\"/mnt/notify\", \"$TARGET$\", \"$PORT$\", \"$MODE$\"]\n")
	d := p.run()
	for range 3 {
		_, _ = touch(w.client, "", server4, 23)
	}
	if got, want := written(t, dir, 1), "notify "+client4+" 23 tcp run proven "+client4+"/32"; got[0] != want {
		t.Errorf("told %q, want %q", got, want)
	}
	if got := d.must("status"); len(d.sources()) > 0 || !strings.Contains(got, "enforce; tcp is left to the hooks, 1 times so far") {
		t.Errorf("blocked %v, status\n%s", d.sources(), got)
	}
}

// TestHookRefused shows that a program which others could change keeps the
// daemon from starting, and a reload from taking effect.
func TestHookRefused(t *testing.T) {
	w := newWorld(t)
	p := newProgram(t, w.server, "")
	dir := p.trusted()
	script(t, dir, "notify", "")
	script(t, dir, "well", "")
	if err := os.Chmod(filepath.Join(dir, "notify"), 0o777); err != nil {
		t.Fatal(err)
	}
	p.configure("[[hook.exec]]\ncommand = [\"/mnt/well\"]\n")
	d := p.run()
	p.configure("[[hook.exec]]\ncommand = [\"/mnt/notify\"]\n")
	if r := d.command("reload"); r.code == 0 || !strings.Contains(r.stderr, "hook.exec[0]") || !strings.Contains(r.stderr, "/mnt/notify") {
		t.Errorf("reload: %+v", r)
	}
	if got := d.status().Hooks; len(got) != 1 || !strings.Contains(got[0].What, "/mnt/well") {
		t.Errorf("hooks %+v", got)
	}
	_, _ = touch(w.client, "", server4, 23)
	d.listed()
	if code := d.end(unix.SIGTERM); code != 0 {
		t.Errorf("exit status %d", code)
	}
	cmd := p.host.Command(p.wrap[0], append(slices.Clone(p.wrap[1:]), os.Getenv(programEnv), "run", "-c", p.conf)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	p.host.Start(t, cmd)
	_ = cmd.Wait() // the exit status tells
	if code := cmd.ProcessState.ExitCode(); code == 0 || !strings.HasPrefix(stderr.String(), "nftsentry: hook.exec[0]: ") || strings.Count(stderr.String(), "\n") != 1 {
		t.Errorf("the start: exit status %d, %q", code, stderr.String())
	}
}

// TestHookHangs has programs that never end, and shows that they hold up no
// block and leave nothing behind.
func TestHookHangs(t *testing.T) {
	w := newWorld(t)
	p := newProgram(t, w.server, "")
	dir := p.trusted()
	script(t, dir, "hang", "sleep 1000 & sleep 1000")
	p.configure("[[hook.exec]]\ncommand = [\"/mnt/hang\", \"$TARGET$\"]\ntimeout = \"2s\"\nlimit = \"100000/m\"\n")
	d := p.run()
	const sources = 60
	for i := range sources {
		began := time.Now()
		w.client.Addr(t, "eth0", fmt.Sprintf("10.8.0.%d/24", 100+i))
		from := fmt.Sprintf("10.8.0.%d", 100+i)
		_, _ = touch(w.client, from, server4, 23)
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%s was held up for %v", from, took)
		}
	}
	eventually(t, "all are blocked", patience, func() bool { return len(d.sources()) == sources })
	if got := d.status().Hooks; len(got) != 1 || got[0].Running > 2 || got[0].Waiting == 0 {
		t.Errorf("hooks %+v, want two at work and others that wait", got)
	}
	eventually(t, "some have run out of time", patience, func() bool { return d.status().Hooks[0].TimedOut >= 2 })
	pid := d.cmd.Process.Pid
	if code := d.end(unix.SIGTERM); code != 0 {
		t.Errorf("exit status %d", code)
	}
	eventually(t, "no sleep is left", patience, func() bool { return sleepers(t, d.host, pid) == 0 })
}

// sleepers are the processes in the namespace of a host that sleep for the
// tests, besides the daemon.
func sleepers(t *testing.T, host *netns.Host, daemon int) (n int) {
	t.Helper()
	var ours unix.Stat_t
	if err := unix.Fstat(host.FD(), &ours); err != nil {
		t.Fatal(err)
	}
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		var ns unix.Stat_t
		if unix.Stat(dir+"/ns/net", &ns) != nil || ns.Ino != ours.Ino || dir == fmt.Sprintf("/proc/%d", daemon) {
			continue
		}
		if command, err := os.ReadFile(dir + "/cmdline"); err == nil && bytes.HasPrefix(command, []byte("sleep\x001000")) {
			n++
		}
	}
	return n
}

// TestExecTraced runs 1,000 blocks under strace(1): nothing but the configured
// program is ever executed, and never a shell.
func TestExecTraced(t *testing.T) {
	w := newWorld(t)
	p := newProgram(t, w.server, "")
	p.trusted()
	trace := filepath.Join(p.dir, "trace")
	p.wrap = append(p.wrap, netns.Tool(t, "strace"), "-D", "-f", "-qq", "-s", "200", "-e", "trace=execve,execveat", "-o", trace)
	p.configure("[[hook.exec]]\ncommand = [\"/usr/bin/true\", \"$TARGET$; id\"]\nlimit = \"100000/m\"\n")
	d := p.run()
	var all []string
	for i := range 1000 {
		all = append(all, fmt.Sprintf("198.51.%d.%d", 100+i/250, 1+i%250))
	}
	d.must(append([]string{"block"}, all...)...)
	eventually(t, "the hook has run for some, and the others were dropped", 2*patience, func() bool {
		h := d.status().Hooks[0]
		return h.Waiting == 0 && h.Running == 0 && h.Done+h.Dropped == 1000
	})
	done := d.status().Hooks[0].Done
	if code := d.end(unix.SIGTERM); code != 0 {
		t.Errorf("exit status %d", code)
	}
	data, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	hooks := uint64(0)
	hook := regexp.MustCompile(`^\d+ +execve(at)?\(.*"/proc/self/fd/\d+", \["/usr/bin/true", "198\.51\.\d+\.\d+; id"\]`)
	own := regexp.MustCompile(`^\d+ +execve\("` + regexp.QuoteMeta(os.Getenv(programEnv)) + `", \[".*", "run", "-c"`)
	for line := range strings.Lines(string(data)) {
		switch {
		case hook.MatchString(line):
			hooks++
		case strings.Contains(line, "exec") && !own.MatchString(line) && !strings.Contains(line, "resumed>"):
			t.Errorf("executed: %s", line)
		}
	}
	if hooks != done || hooks < 100 {
		t.Errorf("the program was executed %d times, %d are done", hooks, done)
	}
}
