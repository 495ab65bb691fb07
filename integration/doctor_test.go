package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"nftsentry/integration/netns"
	"nftsentry/listener"
)

// A diagnosis is what doctor --json prints, as scripts read it.
type diagnosis struct {
	Status, Config string
	Findings       []struct{ Check, Status, Text, Advice string }
	code           int
}

// doctor runs the command, with further variables in its environment.
func (p *program) doctor(env ...string) diagnosis {
	p.t.Helper()
	cmd := p.host.Command(os.Getenv(programEnv), "doctor", "--json", "-c", p.conf)
	cmd.Env = append(os.Environ(), "SSH_CONNECTION=")
	cmd.Env = append(cmd.Env, env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	p.host.Start(p.t, cmd)
	_ = cmd.Wait() // the exit status tells
	d := diagnosis{code: cmd.ProcessState.ExitCode()}
	if err := json.Unmarshal(stdout.Bytes(), &d); err != nil {
		p.t.Fatalf("%v: %s%s", err, stdout.String(), stderr.String())
	}
	return d
}

// want fails unless a check has a finding that begins with a text.
func (d diagnosis) want(t *testing.T, check, status, text string) {
	t.Helper()
	var found []string
	for _, f := range d.Findings {
		if f.Check != check {
			continue
		}
		if f.Status == status && strings.HasPrefix(f.Text, text) && (f.Advice != "") == (status != "ok") {
			return
		}
		found = append(found, fmt.Sprintf("%s: %s; %s", f.Status, f.Text, f.Advice))
	}
	t.Errorf("%s: want %s: %s, found %q", check, status, text, found)
}

// statuses are those of a check.
func (d diagnosis) statuses(check string) []string {
	var out []string
	for _, f := range d.Findings {
		if f.Check == check && !slices.Contains(out, f.Status) {
			out = append(out, f.Status)
		}
	}
	return out
}

func TestDoctorHealthy(t *testing.T) {
	w := newWorld(t)
	p := guard(t, w.server, "[udp]\nwatch = \"1-1024\"")
	d := p.doctor()
	for _, check := range []string{
		"configuration", "rights", "feature", "table", "chain", "iptables", "ipv6", "conntrack", "nflog", "lock", "daemon", "guard", "ssh", "decoys",
	} {
		if got := d.statuses(check); !slices.Equal(got, []string{"ok"}) {
			t.Errorf("%s: %q in %+v", check, got, d.Findings)
		}
	}
	d.want(t, "table", "ok", "table inet nftsentry is there and intact")
	d.want(t, "nflog", "ok", fmt.Sprintf("NFLOG group 61999 is held by our daemon (process %d)", p.cmd.Process.Pid))
	d.want(t, "lock", "ok", "NFLOG group 65535 is held by our daemon")
	d.want(t, "ipv6", "ok", "in use (2001:db8:9::2)")
	if d.code != 0 || d.Status == "failure" {
		t.Errorf("exit status %d, %s", d.code, d.Status)
	}
}

// TestDoctorChangesNothing compares all of the host's rules before and after,
// also with rules of others.
func TestDoctorChangesNothing(t *testing.T) {
	host := netns.New(t, "host")
	p := guard(t, host, "")
	nft := netns.Tool(t, "nft")
	host.Output(t, nft, "-f", "../nft/survey/testdata/firewalld.nft")
	look := func() string { return host.Output(t, nft, "-s", "list", "ruleset") }
	before := look()
	p.doctor()
	if after := look(); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	if s := p.status(); s.Mended != 0 {
		t.Errorf("the daemon has mended its table %d times", s.Mended)
	}
}

// TestDoctorLines has a line for each finding in a pipe, in three columns.
func TestDoctorLines(t *testing.T) {
	p := newProgram(t, netns.New(t, "host"), "")
	r := p.command("doctor")
	lines := strings.Split(strings.TrimSuffix(r.stdout, "\n"), "\n")
	for _, line := range lines {
		f := strings.Split(line, "\t")
		if len(f) != 3 || !slices.Contains([]string{"ok", "warning", "failure"}, f[0]) {
			t.Errorf("line %q", line)
		}
	}
	if r.code != 0 || r.stderr != "" || len(lines) < 20 {
		t.Errorf("exit status %d, %d lines, standard error %q", r.code, len(lines), r.stderr)
	}
}

func TestDoctorMistakes(t *testing.T) {
	p := newProgram(t, netns.New(t, "host"), "mood = 1")
	d := p.doctor()
	d.want(t, "configuration", "failure", p.conf+" has 1 mistake, first: ")
	d.want(t, "feature", "ok", "the whole table")
	if d.code != 1 || d.Status != "failure" {
		t.Errorf("exit status %d, %s", d.code, d.Status)
	}
}

// TestDoctorFiles names a hook and a file that are not there, and ports that
// leave none for the decoy listener.
func TestDoctorFiles(t *testing.T) {
	dir := t.TempDir()
	d := newProgram(t, netns.New(t, "host"), fmt.Sprintf("[[hook.exec]]\ncommand = [%q]\n[ignore]\nfiles = [%q]\n[tcp]\nexclude = \"1-65535\"\nwatch = \"\"\ndecoy = \"\"",
		dir+"/nothing", dir+"/list")).doctor()
	d.want(t, "hooks", "failure", "hook.exec[0]: ")
	d.want(t, "ignore", "failure", "ignore.files has 1 mistake, first: "+dir+"/list")
	d.want(t, "decoys", "warning", "no decoys, and no watched ports either")
	d.want(t, "decoys", "failure", "all ports from 512 to 1023")

	must(t, os.WriteFile(dir+"/list", []byte("192.0.2.0/24\n"), 0o600))
	d = newProgram(t, netns.New(t, "host"), fmt.Sprintf("[[hook.exec]]\ncommand = [%q]\n[ignore]\nfiles = [%q]", "/bin/true", dir+"/list")).doctor()
	d.want(t, "ignore", "ok", "1 file of ignore.files can be read")
	d.want(t, "hooks", "ok", "1 hook with all that it takes")
}

// TestDoctorWithoutRights runs it as a user who may look at nothing.
func TestDoctorWithoutRights(t *testing.T) {
	requireOutside(t)
	p := guard(t, netns.New(t, "host"), "").program
	passable(t, os.Getenv(programEnv))
	passable(t, p.conf)
	must(t, os.Chmod(p.conf, 0o644))
	r := askOutside(t, outsider{[]string{os.Getenv(programEnv), "doctor", "--json", "-c", p.conf}, 65534, 65534, nil})
	var d diagnosis
	if err := json.Unmarshal([]byte(r.Stdout), &d); err != nil {
		t.Fatalf("%v: %s%s", err, r.Stdout, r.Stderr)
	}
	d.want(t, "rights", "failure", "user 65534 without CAP_NET_ADMIN")
	d.want(t, "daemon", "warning", "no right to ask on "+p.socket())
	if got := d.statuses("feature"); got != nil || r.Code != 1 {
		t.Errorf("features %q, exit status %d", got, r.Code)
	}

	must(t, os.Chmod(p.conf, 0o600))
	r = askOutside(t, outsider{[]string{os.Getenv(programEnv), "doctor", "-c", p.conf}, 65534, 65534, nil})
	want := "failure\tconfiguration\tread the configuration: open " + p.conf + ": permission denied: run it as root; "
	if !strings.HasPrefix(r.Stdout, want) {
		t.Errorf("%q, want %q", r.Stdout, want)
	}
}

// TestDoctorUnreadable runs it where the caller may look at all but the state
// folder, which is taken for no panic.
func TestDoctorUnreadable(t *testing.T) {
	requireOutside(t)
	p := newProgram(t, netns.New(t, "host"), "")
	passable(t, os.Getenv(programEnv))
	passable(t, p.conf)
	must(t, os.Chmod(p.conf, 0o644), os.Mkdir(p.state(""), 0o700))
	r := askOutside(t, outsider{[]string{netns.Tool(t, "unshare"), "-Urn", os.Getenv(programEnv), "doctor", "--json", "-c", p.conf}, 65534, 65534, nil})
	var d diagnosis
	if err := json.Unmarshal([]byte(r.Stdout), &d); err != nil {
		t.Fatalf("%v: %s%s", err, r.Stdout, r.Stderr)
	}
	d.want(t, "table", "warning", "no table inet nftsentry: nothing is noticed")
	d.want(t, "state", "failure", strings.TrimSuffix(p.state(""), "/")+" cannot be written to")
}

// TestDoctorTable looks at what is left of the table when the daemon is gone,
// and at what others do to it.
func TestDoctorTable(t *testing.T) {
	host := netns.New(t, "host")
	nft := netns.Tool(t, "nft")
	p := guard(t, host, "")
	must(t, p.cmd.Process.Kill())
	_ = p.ended.Wait()
	p.doctor().want(t, "table", "ok", "table inet nftsentry is there and intact") // with the lure chain

	again := p.run()
	again.end(unix.SIGTERM)
	d := p.doctor()
	d.want(t, "table", "ok", "table inet nftsentry is there and intact") // without
	d.want(t, "daemon", "warning", "not running")
	d.want(t, "lock", "ok", "NFLOG group 65535 is free")

	host.Output(t, nft, "flush chain inet nftsentry refuse_new")
	host.Output(t, nft, "add chain inet nftsentry mine")
	p.doctor().want(t, "table", "warning", "table inet nftsentry is not what this configuration makes: chain mine is not ours, chain refuse_new has other rules")
	host.Output(t, nft, "add table inet nftsentry { flags dormant; }")
	if d := p.doctor(); d.code != 1 {
		t.Errorf("dormant: exit status %d", d.code)
	} else {
		d.want(t, "table", "failure", "table inet nftsentry is dormant")
	}
	host.Output(t, nft, "delete table inet nftsentry")
	p.doctor().want(t, "table", "warning", "no table inet nftsentry")
}

// TestDoctorOthers loads the rules of other firewalls.
func TestDoctorOthers(t *testing.T) {
	for name, tt := range map[string]struct{ check, status, text string }{
		"firewalld": {"chain", "ok", "input 10 inet firewalld filter_INPUT (closed at its end): after ours"},
		"docker":    {"firewall", "ok", "Docker: 2 published ports"},
		"ufw":       {"chain", "warning", "input 0 ip filter INPUT (policy drop): it may keep connections from the decoy listener"},
		"map":       {"chain", "ok", "prerouting -320 inet own first (can drop): before all of ours"},
	} {
		t.Run(name, func(t *testing.T) {
			host := netns.New(t, "host")
			host.Output(t, netns.Tool(t, "nft"), "-f", filepath.Join("../nft/survey/testdata", name+".nft"))
			netns.Link(t, host, netns.New(t, "other"), "eth0", "eth0", []string{"2001:db8::1/64"}, nil)
			d := newProgram(t, host, "").doctor()
			d.want(t, tt.check, tt.status, tt.text)
			if name == "ufw" {
				d.want(t, "ipv6", "warning", "in use (2001:db8::1), and another firewall closes this host for IPv4 only")
				d.want(t, "firewall", "ok", "ufw: ")
			}
		})
	}
}

// TestDoctorGroup has the NFLOG group read by another program: this one.
func TestDoctorGroup(t *testing.T) {
	host := netns.New(t, "host")
	p := newProgram(t, host, "[trigger]\nnflog_group = 42")
	var reader io.Closer
	host.Do(t, func() {
		var err error
		if reader, err = listener.OpenNFLOG(42, zap.NewNop()); err != nil {
			t.Fatal(err)
		}
	})
	defer reader.Close()
	d := p.doctor()
	d.want(t, "nflog", "failure", "NFLOG group 42 is taken by ")
	if i := slices.IndexFunc(d.Findings, func(f struct{ Check, Status, Text, Advice string }) bool { return f.Check == "nflog" }); !strings.HasSuffix(d.Findings[i].Text, "(process "+strconv.Itoa(os.Getpid())+")") {
		t.Errorf("%q does not name process %d", d.Findings[i].Text, os.Getpid())
	}
	if d.code != 1 {
		t.Errorf("exit status %d", d.code)
	}
}

func TestDoctorDisk(t *testing.T) {
	for name, tt := range map[string]struct {
		prepare      func(t *testing.T, p *program)
		status, text string
	}{
		"full":      {func(t *testing.T, p *program) { tmpfs(t, p, "size=64k", 0); stuff(t, p) }, "failure", "%s is full: 0 KiB"},
		"read-only": {func(t *testing.T, p *program) { tmpfs(t, p, "size=1m", unix.MS_RDONLY) }, "failure", "%s is on a file system that is read-only"},
		"memory":    {func(t *testing.T, p *program) { tmpfs(t, p, "size=100m", 0) }, "warning", "%s is in memory"},
		"inodes":    {func(t *testing.T, p *program) { tmpfs(t, p, "size=100m,nr_inodes=5", 0) }, "failure", "%s is full: "},
		"a file":    {func(t *testing.T, p *program) { must(t, os.WriteFile(p.state(""), nil, 0o600)) }, "failure", "%s is not a folder"},
		"for all": {func(t *testing.T, p *program) {
			must(t, os.Mkdir(p.state(""), 0o700), os.Chmod(p.state(""), 0o777))
		}, "warning", "%s (mode 0777)"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProgram(t, netns.New(t, "host"), "")
			tt.prepare(t, p)
			dir := strings.TrimSuffix(p.state(""), "/")
			p.doctor().want(t, "state", tt.status, fmt.Sprintf(tt.text, dir))
		})
	}
}

// TestDoctorGuards starts programs with the names of other guards, on the host
// and elsewhere.
func TestDoctorGuards(t *testing.T) {
	host, elsewhere := netns.New(t, "host"), netns.New(t, "elsewhere")
	for name, where := range map[string]*netns.Host{"portsentry": host, "fail2ban-server": host, "psad": elsewhere} {
		program := filepath.Join(t.TempDir(), name)
		data, err := os.ReadFile(netns.Tool(t, "sleep"))
		must(t, err, os.WriteFile(program, data, 0o755))
		where.Start(t, where.Command(program, "120"))
	}
	d := newProgram(t, host, "").doctor()
	d.want(t, "guard", "warning", "portsentry is running (process ")
	d.want(t, "guard", "ok", "fail2ban-server is running (process ")
	for _, f := range d.Findings {
		if strings.Contains(f.Text, "psad") {
			t.Errorf("what runs elsewhere is found: %s", f.Text)
		}
	}
}

// TestDoctorSSH calls this process sshd, and has it listen.
func TestDoctorSSH(t *testing.T) {
	w := newWorld(t)
	p := guard(t, w.server, "")
	const comm = "/proc/self/comm"
	before, err := os.ReadFile(comm)
	must(t, err, os.WriteFile(comm, []byte("sshd"), 0))
	t.Cleanup(func() { must(t, os.WriteFile(comm, before, 0)) })
	serve(t, w.server, ":99", "SSH-2.0-test\r\n")

	d := p.doctor()
	d.want(t, "ssh", "warning", "sshd serves port 99, whose sessions do not protect their source")
	d.want(t, "ssh", "warning", "port 99 of sshd would be a tripwire")

	session := func(from string) diagnosis { return p.doctor("SSH_CONNECTION=" + from + " 50000 " + server4 + " 22") }
	session(router4).want(t, "session", "ok", "you come from "+router4+", which is never blocked (gateway)")
	session(client4).want(t, "session", "warning", "you come from "+client4+", which is neither")
	p.must("block", client4)
	session(client4).want(t, "session", "warning", "you come from "+client4+", which is blocked")
	p.must("block", "198.51.100.0/24")
	session("198.51.100.7").want(t, "session", "warning", "you come from 198.51.100.7, which is blocked")
	w.server.Output(t, netns.Tool(t, "nft"), "add element inet nftsentry peers6 { 2001:db8:8:: timeout 1h }")
	session(client6).want(t, "session", "ok", "you come from "+client6+", a peer")
}

// TestDoctorClock has a block on record that begins tomorrow.
func TestDoctorClock(t *testing.T) {
	p := newProgram(t, netns.New(t, "host"), "")
	must(t, os.MkdirAll(p.state(""), 0o700))
	line := "4102444800 - 01/01/2100 00:00:00 Host: 192.0.2.7/192.0.2.7 Port: 23 TCP Blocked\n"
	must(t, os.WriteFile(p.state("portsentry.history"), []byte(line), 0o600))
	d := p.doctor()
	d.want(t, "clock", "warning", "it is ")
}
