package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"nftsentry/integration/netns"
)

// TestMessages has wrong input answered in one clear line each.
func TestMessages(t *testing.T) {
	p := newProgram(t, netns.New(t, "host"), "")
	missing := filepath.Join(p.dir, "missing.toml")
	for _, tt := range []struct {
		args []string
		code int
		want string // all of standard error, as a regular expression
	}{
		{[]string{}, 2, `no command: see "nftsentry --help"`},
		{[]string{"guard"}, 2, `unknown command "guard": see "nftsentry --help"`},
		{[]string{"run", "now"}, 2, `run takes no arguments: see "nftsentry run --help"`},
		{[]string{"blok", "192.0.2.7"}, 2, `unknown command "blok": did you mean block\?`},
		{[]string{"unblok", "--all"}, 2, `unknown command "unblok": did you mean unblock\?`},
		{[]string{"sta"}, 2, `unknown command "sta": see "nftsentry --help"`},
		{[]string{"help", "blok"}, 2, `no help on "blok": did you mean block\?`},
		{[]string{"list", "--jsn"}, 2, `unknown flag: --jsn: did you mean --json\?`},
		{[]string{"list", "--nope"}, 2, `unknown flag: --nope: see "nftsentry list --help"`},
		{[]string{"block", "--file", missing}, 2, `.*missing.toml: no such file or directory: name a file with one address or prefix a line, or - for standard input`},
		{[]string{"block", "--file", p.dir}, 2, `.*: is a directory: name a file with one address or prefix a line, or - for standard input`},
		{[]string{"check", "-c", p.dir}, 2, `read the configuration: .*: is a directory: name another file with -c`},
		{[]string{"block"}, 2, `block takes one address or prefix or more: see "nftsentry block --help"`},
		{[]string{"block", "localhost"}, 2, `"localhost" is not a source: write an address such as 192.0.2.7 or a prefix such as 192.0.2.0/24`},
		{[]string{"block", "10.0.0.1/8"}, 2, `"10.0.0.1/8" is not a source: write the network 10.0.0.0/8 or the address 10.0.0.1`},
		{[]string{"block", "0.0.0.0/0"}, 2, `0.0.0.0/0 is everybody, you too: name narrower prefixes`},
		{[]string{"block", "fe80::1%eth0"}, 2, `"fe80::1%eth0" is not a source: write an address without a zone, such as fe80::1`},
		{[]string{"block", "--timeout", "10", "192.0.2.7"}, 2, `--timeout 10: a duration needs a unit, such as "10s"`},
		{[]string{"block", "--timeout", "0s", "192.0.2.7"}, 2, `--timeout 0s: from 1s to 3650d`},
		{[]string{"block", "--timeout", "3651d", "192.0.2.7", "192.0.2.8"}, 2, `--timeout 3651d: from 1s to 3650d`},
		{[]string{"block", "--timeout", "999999999999d", "192.0.2.7"}, 2, `--timeout 999999999999d: from 1s to 3650d`},
		{[]string{"block", "--comment", strings.Repeat("x", 101), "192.0.2.7", "192.0.2.8"}, 2, `--comment: too long with 101 bytes: at most 100`},
		{[]string{"block", "--comment", "two\nlines", "192.0.2.7", "192.0.2.8"}, 2, `--comment: '\\n' is not allowed: printable characters only, and no double quotes`},
		{[]string{"block", "--comment", `say "no"`, "192.0.2.7", "192.0.2.8"}, 2, `--comment: '"' is not allowed: printable characters only, and no double quotes`},
		{[]string{"block", "--comment", "caf\xe9", "192.0.2.7"}, 2, `--comment: not UTF-8: write it in UTF-8`},
		{[]string{"block", "--comment", "  ", "192.0.2.7"}, 2, `--comment: nothing but blanks: say why, or leave it out`},
		{[]string{"block", "192.0.2.7", "192.0.2.8", "-c", p.conf}, 1, `nftsentry is not running .*`},
		{[]string{"unblock"}, 2, `unblock takes either addresses and prefixes or --all: see "nftsentry unblock --help"`},
		{[]string{"unblock", "--all", "192.0.2.7"}, 2, `unblock takes either addresses and prefixes or --all: see "nftsentry unblock --help"`},
		{[]string{"unblock", "\x1b[2J"}, 2, `"\\x1b\[2J" is not a source: write .*`},
		{[]string{"check", "-c", missing}, 2, `.*missing.toml: file does not exist: name another file with -c, or leave -c out for the built-in defaults`},
		{[]string{"list", "--socket", "/nowhere/sock"}, 1, `nftsentry is not running \(nobody answers on /nowhere/sock\): start it with "nftsentry run"`},
		{[]string{"list", "--socket", "/" + strings.Repeat("x", 107)}, 2, `/x+: too long for a socket: at most 107 bytes`},
		{[]string{"list", "--socket", p.conf}, 2, `.*nftsentry.toml: not a socket: name the control socket of the daemon, such as /run/nftsentry/control.sock`},
		{[]string{"completion", "nope"}, 2, `no completion for "nope": there are bash, fish, powershell and zsh`},
		{[]string{"completion"}, 2, `completion takes a shell: there are bash, fish, powershell and zsh`},
		{[]string{"completion", "bash", "x"}, 2, `bash takes no arguments: see "nftsentry completion bash --help"`},
		{[]string{"help", "nope"}, 2, `no help on "nope": there are block, check, .* and watch`},
		{[]string{"help", "block", "nope"}, 2, `no help on "block nope": there are block, check, .* and watch`},
		{[]string{"status", "-c", p.conf}, 1, `nftsentry is not running \(nobody answers on .*/sock\): start it with "nftsentry run"`},
		{[]string{"unblock", "192.0.2.7", "-c", p.conf}, 1, `nftsentry is not running .*`},
		{[]string{"explain"}, 2, `explain takes one address: see "nftsentry explain --help"`},
		{[]string{"explain", "192.0.2.7", "192.0.2.8"}, 2, `explain takes one address: see "nftsentry explain --help"`},
		{[]string{"explain", "192.0.2.0/24"}, 2, `"192.0.2.0/24" is not an address: write one address in it, such as 192.0.2.1`},
		{[]string{"explain", "localhost"}, 2, `"localhost" is not an address: write one address, such as 192.0.2.7`},
		{[]string{"explain", "fe80::1%eth0"}, 2, `"fe80::1%eth0" is not an address: write one address without a zone, such as fe80::1`},
		{[]string{"explain", "192.0.2.7", "-c", p.conf}, 1, `nftsentry is not running .*`},
		{[]string{"watch", "-c", p.conf}, 1, `nftsentry is not running .*`},
		{[]string{"top", "-c", p.conf}, 2, `top needs a terminal: "nftsentry watch" and "nftsentry list" are for pipes`},
		{[]string{"watch", "now"}, 2, `watch takes no arguments: see "nftsentry watch --help"`},
		{[]string{"watch", "--event", "probes"}, 2, `--event "probes": must be one of probe, .*, lost`},
		{[]string{"watch", "--kind", "connect,tcp"}, 2, `--kind "tcp": must be one of connect, .*`},
		{[]string{"watch", "--source", "10.0.0.1/8"}, 2, `--source: "10.0.0.1/8" is not a source: write the network 10.0.0.0/8 or the address 10.0.0.1`},
		{[]string{"watch", "--port", "70000"}, 2, `--port "70000": must be from 1 to 65535`},
	} {
		r := p.exec(tt.args...)
		want := regexp.MustCompile(`\Anftsentry: ` + tt.want + `\n\z`)
		if r.code != tt.code || !want.MatchString(r.stderr) || r.stdout != "" {
			t.Errorf("nftsentry %q: exit status %d, stdout %q, stderr %q, want %d and %q", tt.args, r.code, r.stdout, r.stderr, tt.code, tt.want)
		}
	}
}

// TestHelp shows that each command says how it is used, with an example.
func TestHelp(t *testing.T) {
	p := newProgram(t, netns.New(t, "host"), "")
	for _, command := range []string{"run", "check", "status", "list", "watch", "top", "explain", "report", "doctor", "selftest", "import", "block", "unblock", "reload", "panic", "resume", "teardown", "version", "completion", "help"} {
		r := p.exec(command, "--help")
		if r.code != 0 || !strings.Contains(r.stdout, "Examples:\n") || !strings.Contains(r.stdout, "--config") || r.stderr != "" {
			t.Errorf("nftsentry %s --help: %+v", command, r)
		}
	}
	for _, args := range [][]string{{"help"}, {"help", "block"}, {"completion", "bash"}} {
		if r := p.exec(args...); r.code != 0 || r.stdout == "" || r.stderr != "" {
			t.Errorf("nftsentry %q: %+v", args, r)
		}
	}
	if r, want := p.exec("help", "block"), p.exec("block", "--help"); r != want {
		t.Errorf("nftsentry help block: %+v, want %+v", r, want)
	}
	if r := p.exec("version"); r.code != 0 || !strings.HasPrefix(r.stdout, "nftsentry 0.1.0-dev (go1.") {
		t.Errorf("nftsentry version: %+v", r)
	}
}

// TestCheck shows that a wrong configuration stops everything, with all its
// mistakes, and that a right one is tried on the host without a trace.
func TestCheck(t *testing.T) {
	host := netns.New(t, "host")
	p := newProgram(t, host, "")
	if got, want := p.must("check"), "configuration  "+p.conf+": correct\nrights         ok\nkernel         ok\n"; got != want {
		t.Errorf("check prints %q, want %q", got, want)
	}
	if got := host.Output(t, netns.Tool(t, "nft"), "list", "ruleset"); got != "" {
		t.Errorf("check leaves in the kernel: %s", got)
	}
	p.configure("mode = \"off\"\n[block]\ntimeout = 600\n")
	want := "nftsentry: " + p.conf + ":1:8: mode = \"off\": allowed is \"enforce\" or \"observe\"\n" +
		"nftsentry: " + p.conf + ":3:11: block.timeout = 600: a duration needs a unit, such as \"600s\"\n"
	for _, command := range []string{"check", "run", "teardown"} {
		if r := p.command(command); r.code != 2 || r.stderr != want || r.stdout != "" {
			t.Errorf("%s: %+v, want exit status 2 and %q", command, r, want)
		}
	}
	// A daemon may run on with what it has read before: it is asked where it is by default.
	aside := "nftsentry: " + p.conf + " has mistakes (see \"nftsentry check\"): "
	for _, command := range []string{"list", "status"} {
		if r := p.command(command); r.code != 1 || !strings.HasPrefix(r.stderr, aside) || r.stdout != "" {
			t.Errorf("%s: %+v, want exit status 1 and %q", command, r, aside)
		}
	}
	r := p.command("check", "--json")
	var report struct {
		Correct bool
		Errors  []string
		Host    []any
	}
	if err := json.Unmarshal([]byte(r.stdout), &report); err != nil || r.code != 2 || report.Correct || len(report.Errors) != 2 || report.Host == nil {
		t.Errorf("check --json: %+v, %v", r, err)
	}
}

// TestSecondDaemon shows that there is one daemon for a network namespace.
func TestSecondDaemon(t *testing.T) {
	host := netns.New(t, "host")
	first := guard(t, host, "")
	elsewhere := program{t: t, host: netns.New(t, "elsewhere"), dir: first.dir, conf: first.conf}
	if r := elsewhere.command("run"); r.code != 1 || r.stderr != "nftsentry: control socket: another nftsentry is running: it holds "+first.dir+"/sock.lock; stop it first\n" {
		t.Errorf("with the same configuration in another network namespace: %+v", r)
	}
	second := newProgram(t, host, "tcp.port = 777")
	want := regexp.MustCompile(`\Anftsentry: another nftsentry is running in this network namespace: stop it first( \(.*\))?\n\z`)
	for _, command := range []string{"run", "teardown"} {
		if r := second.command(command); r.code != 1 || !want.MatchString(r.stderr) {
			t.Errorf("%s with another configuration: %+v", command, r)
		}
	}
	if got := first.status().Blocks.Live; got != 0 {
		t.Errorf("the first daemon has %d blocks", got)
	}
	if code := first.end(unix.SIGTERM); code != 0 {
		t.Errorf("the first daemon ends with %d", code)
	}
	second.run()
}

// TestSignals ends commands while they wait for a configuration: only a
// daemon that runs catches signals.
func TestSignals(t *testing.T) {
	p := newProgram(t, netns.New(t, "host"), "")
	fifo := filepath.Join(p.dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for command, signal := range map[string]unix.Signal{"check": unix.SIGTERM, "list": unix.SIGINT, "teardown": unix.SIGHUP, "run": unix.SIGTERM} {
		cmd := p.host.Command(os.Getenv(programEnv), command, "-c", fifo)
		p.host.Start(t, cmd)
		var pipe int
		eventually(t, command+" waits for its configuration", patience, func() (open bool) {
			var err error
			pipe, err = unix.Open(fifo, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
			return err == nil
		})
		if err := cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		kill := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait() // the status tells
		kill.Stop()
		if status := cmd.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != signal {
			t.Errorf("%s by %v: %v", command, signal, cmd.ProcessState)
		}
		if err := unix.Close(pipe); err != nil {
			t.Fatal(err)
		}
	}
}

// TestListObserving shows that blocks from before the mode was observe are
// listed as what they are.
func TestListObserving(t *testing.T) {
	d := guard(t, netns.New(t, "host"), "")
	d.must("block", "198.51.100.7")
	if r := d.command("list"); r.stderr != "" {
		t.Errorf("list in force: %+v", r)
	}
	d.end(unix.SIGTERM)
	d.configure(`mode = "observe"`)
	p := d.program.run()
	if r := p.command("list"); r.code != 0 || !strings.HasPrefix(r.stdout, "198.51.100.7\t") || strings.Count(r.stdout, "\n") != 1 ||
		r.stderr != "nftsentry: mode is observe: none of these blocks is in force\n" {
		t.Errorf("list: %+v", r)
	}
	if r := p.command("list", "--json"); r.code != 0 || r.stderr != "" {
		t.Errorf("list --json: %+v", r)
	}
	p.must("unblock", "--all")
	if r := p.command("list"); r.code != 0 || r.stdout != "" || r.stderr != "" {
		t.Errorf("list of nobody: %+v", r)
	}
}

// TestWithoutRights takes a capability away.
func TestWithoutRights(t *testing.T) {
	p := newProgram(t, netns.New(t, "host"), "")
	for capability, name := range map[uintptr]string{unix.CAP_NET_ADMIN: "CAP_NET_ADMIN", unix.CAP_NET_BIND_SERVICE: "CAP_NET_BIND_SERVICE"} {
		for _, command := range []string{"run", "teardown", "check"} {
			r := p.without(capability, command, "-c", p.conf)
			want := "no right to guard this host (" + name + "): run it as root, such as with sudo"
			if r.code != 1 || !strings.Contains(r.stderr, want) || strings.Count(r.stderr, "\n") != 1 {
				t.Errorf("%s without %s: %+v, want %q", command, name, r, want)
			}
		}
	}
}

// without runs a command that can never have a capability.
func (p *program) without(capability uintptr, args ...string) result {
	p.t.Helper()
	cmd := exec.Command(os.Getenv(programEnv), args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	var g errgroup.Group
	g.Go(func() error {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if err := unix.Setns(p.host.FD(), unix.CLONE_NEWNET); err != nil {
			return err
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, capability, 0, 0, 0); err != nil {
			return err
		}
		return cmd.Run()
	})
	err := g.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		p.t.Fatal(err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// TestPlainLines shows what list prints in a pipe.
func TestPlainLines(t *testing.T) {
	d := guard(t, netns.New(t, "host"), "")
	if got := d.must("list"); got != "" {
		t.Errorf("list of nobody prints %q", got)
	}
	if got := d.must("list", "--json"); got != "[]\n" {
		t.Errorf("list --json of nobody prints %q", got)
	}
	d.must("block", "198.51.100.7", "--timeout", "1h", "--comment", "abuse desk")
	line := regexp.MustCompile(`\A198\.51\.100\.7\t\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\toperator: abuse desk\t-\toperator\t0\n\z`)
	if got := d.must("list"); !line.MatchString(got) {
		t.Errorf("list prints %q", got)
	}
	var blocks []map[string]any
	if err := json.Unmarshal([]byte(d.must("list", "--json")), &blocks); err != nil {
		t.Fatal(err)
	}
	for _, field := range []string{"source", "since", "until", "port", "protocol", "kind", "evidence", "strikes", "origin", "comment"} {
		if _, ok := blocks[0][field]; !ok {
			t.Errorf("list --json has no %s: %v", field, blocks[0])
		}
	}
	if r := d.command("unblock", "198.51.100.7", "198.51.100.8"); r.code != 1 ||
		r.stdout != "unblocked 198.51.100.7\n" || r.stderr != "nftsentry: 198.51.100.8 is not blocked: \"nftsentry list\" shows who is\n" {
		t.Errorf("unblock of two, one of them not blocked: %+v", r)
	}
}
