package separate

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"nftsentry/integration/netns"
)

// mails is a mail server on the loopback of the server, and counts what it takes.
func mails(t testing.TB, host *netns.Host, address string) (subjects func() []string) {
	t.Helper()
	l, err := host.Listen("tcp", address)
	must(t, err)
	var mu sync.Mutex
	var got []string
	var g errgroup.Group
	g.Go(func() error {
		for {
			conn, err := l.Accept()
			if err != nil {
				return nil
			}
			for _, s := range takeMail(conn) {
				mu.Lock()
				got = append(got, s)
				mu.Unlock()
			}
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		_ = g.Wait()
	})
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(got)
	}
}

// takeMail speaks SMTP with a client, and returns the subjects of what it sends.
func takeMail(conn net.Conn) (subjects []string) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	_, _ = io.WriteString(conn, "220 fake\r\n")
	data := false
	for in := bufio.NewScanner(conn); in.Scan(); {
		line := in.Text()
		subject, found := strings.CutPrefix(line, "Subject: ")
		answer := "250 ok\r\n"
		switch {
		case data && found:
			subjects = append(subjects, subject)
			continue
		case data && line != ".":
			continue
		case strings.HasPrefix(line, "DATA"):
			data, answer = true, "354 go on\r\n"
		case strings.HasPrefix(line, "QUIT"):
			_, _ = io.WriteString(conn, "221 bye\r\n")
			return subjects
		default:
			data = false
		}
		_, _ = io.WriteString(conn, answer)
	}
	return subjects
}

// posts is a web server there, and counts what it is sent.
func posts(t testing.TB, host *netns.Host, address string) (n func() int) {
	t.Helper()
	l, err := host.Listen("tcp", address)
	must(t, err)
	var mu sync.Mutex
	got := 0
	web := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		got++
	})}
	var g errgroup.Group
	g.Go(func() error {
		_ = web.Serve(l)
		return nil
	})
	t.Cleanup(func() {
		_ = web.Close()
		_ = g.Wait()
	})
	return func() int {
		mu.Lock()
		defer mu.Unlock()
		return got
	}
}

// tell has a program write who it is run as, with which capabilities, and of whom it is told.
const tell = `echo "$(id -u):$(id -G) $(sed -n 's/^CapEff:.0*//p;s/^CapBnd:.0*//p' /proc/self/status | tr -d '\n')- $NFTSENTRY_EVENT $1" >>` + home + `/lib/told`

// toldOf are the lines of tell for some clients.
func toldOf(event string, clients ...int) (out []string) {
	for _, n := range clients {
		out = append(out, fmt.Sprintf("%d:%d - %s %s", hookUser, hookUser, event, source(n)))
	}
	slices.Sort(out)
	return out
}

const allHooks = `
[[hook.exec]]
command = ["` + home + `/bin/tell", "$TARGET$"]
limit = "100000/m"
[[hook.mail]]
from = "a@example.org"
to = ["b@example.org"]
server = "127.0.0.1:2525"
tls = "none"
digest = "0s"
subject = "{{range .Events}}{{.Target}} {{end}}"
limit = "1000/m"
[[hook.webhook]]
url = "http://127.0.0.1:8080/x"
limit = "1000/m"
[hook.hosts_deny]
file = "` + home + `/lib/hosts"
line = "$TARGET$"
`

// patterns is a file of patterns with some clients.
func patterns(clients ...int) []string {
	out := []string{"#nftsentry-begin:$TARGET$", "#nftsentry-end"}
	for _, n := range clients {
		out = append(out, source(n))
	}
	slices.Sort(out)
	return out
}

// TestSeparate has a daemon without any right but its capabilities block, and a service without any run the hooks. When the service
// is killed, blocks go on and the status says so; when it is back, it is told of all.
func TestSeparate(t *testing.T) {
	w := newWorld(t)
	w.script("tell", tell)
	w.configure(allHooks)
	mail, web := mails(t, w.server, "127.0.0.1:2525"), posts(t, w.server, "127.0.0.1:8080")
	service := w.service()
	d := w.daemon()
	told := func(want []string) {
		t.Helper()
		until(t, fmt.Sprintf("the program is told %q", want), func() bool { return cmp.Equal(want, lines("lib/told")) })
	}

	with := w.scan(0)
	told(toldOf("block", 0))
	until(t, "a mail is sent", func() bool { return len(mail()) == 1 })
	until(t, "a request is sent", func() bool { return web() == 1 })
	until(t, "the pattern is there", func() bool { return cmp.Equal(patterns(0), lines("lib/hosts")) })
	if got := mail(); strings.TrimSpace(got[0]) != source(0) {
		t.Errorf("a mail of %q", got)
	}
	w.wrapped(t)
	until(t, "the status has what the service counts", func() bool {
		s := w.status()
		return s.Service != nil && s.Service.Problem == "" && s.Service.Socket == hookSocket() && len(s.Hooks) == 4 && s.Hooks[0].Done == 1
	})

	service.end(unix.SIGKILL)
	without := w.scan(1)
	for n := 2; n < 5; n++ {
		without = max(without, w.scan(n))
	}
	t.Logf("from the probe to the block: %v with the service, %v at most without", with, without)
	if s := w.status(); s.Service == nil || s.Service.Problem == "" || s.Service.Waiting < 4 || len(s.Problems) != 1 || s.Blocks.Live != 5 {
		t.Errorf("without a service: %+v, problems %q, %d blocks", s.Service, s.Problems, s.Blocks.Live)
	}
	if got := w.must("status"); !regexp.MustCompile(`(?m)^hooks +/run/separate/hook/hook.sock does not answer since .*; \d+ events in the queue$`).MatchString(got) ||
		!strings.Contains(got, "systemctl status nftsentry-hook.service") {
		t.Errorf("status says nothing of it:\n%s", got)
	}
	w.configure("trigger.connects = 1\n" + strings.Replace(allHooks, `limit = "100000/m"`, `limit = "99999/m"`, 1))
	if out, messages, code := w.command("reload"); code != 0 || !strings.HasPrefix(out, "reloaded") || !strings.Contains(messages, "hooks keep their old configuration for now") {
		t.Errorf("reload: %q, %q, exit status %d", out, messages, code)
	}

	service = w.service()
	told(toldOf("block", 0, 1, 2, 3, 4))
	until(t, "all patterns are there", func() bool { return cmp.Equal(patterns(0, 1, 2, 3, 4), lines("lib/hosts")) })
	until(t, "mails of all are sent", func() bool { return len(strings.Fields(strings.Join(mail(), " "))) == 5 })
	until(t, "the status is well", func() bool { s := w.status(); return s.Service.Problem == "" && len(s.Problems) == 0 })
	until(t, "the reload is made up for", func() bool { return strings.Contains(d.log.String(), "hooks have read their configuration") })
	w.must("unblock", source(0))
	until(t, "one pattern is gone", func() bool { return cmp.Equal(patterns(1, 2, 3, 4), lines("lib/hosts")) })

	if log := d.log.String(); strings.Count(log, "hooks are not told") != 1 || strings.Count(log, "hooks are told again") != 1 {
		t.Errorf("the log does not have one line each")
	}
	if code := d.end(unix.SIGTERM); code != 0 {
		t.Errorf("the daemon: exit status %d", code)
	}
	if code := service.end(unix.SIGTERM); code != 0 {
		t.Errorf("the service: exit status %d", code)
	}
}

// wrapped asks libwrap itself, by tcpdmatch(8), whom it denies by a file of patterns.
func (w *world) wrapped(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "hosts.allow"), nil, 0o644))
	must(t, os.WriteFile(filepath.Join(dir, "hosts.deny"), []byte("ALL: "+home+"/lib/hosts : DENY\n"), 0o644))
	for address, want := range map[string]string{source(0): "denied", source(9): "granted"} {
		cmd := w.server.Command(netns.Tool(t, "tcpdmatch"), "-d", "sshd", address)
		cmd.Dir = dir
		var out locked
		cmd.Stdout, cmd.Stderr = &out, &out
		w.server.Start(t, cmd)
		_ = cmd.Wait() // the output tells
		if !regexp.MustCompile(`(?m)^access: +` + want + `$`).MatchString(out.String()) {
			t.Errorf("libwrap on %s, want %s:\n%s", address, want, out.String())
		}
	}
}

// TestSeparateReload takes a configuration over in both, or in neither.
func TestSeparateReload(t *testing.T) {
	w := newWorld(t)
	path := w.script("tell", tell)
	w.configure("block.timeout = \"1h\"\n" + allHooks)
	service, d := w.service(), w.daemon()
	bad := w.script("bad", "true")
	must(t, os.Chmod(bad, 0o777))
	w.configure("block.timeout = \"2h\"\n" + strings.Replace(allHooks, path, bad, 1))
	if _, messages, code := w.command("reload"); code == 0 || !strings.Contains(messages, "hook.exec[0]: "+bad+": others than root may write") {
		t.Errorf("reload: %q, exit status %d", messages, code)
	}
	w.scan(0)
	until(t, "the old hooks are told", func() bool { return cmp.Equal(toldOf("block", 0), lines("lib/told")) })
	until(t, "the block is as long as before", func() bool { return strings.Contains(d.log.String(), `"timeout":"1h"`) })
	must(t, os.Chmod(bad, 0o755))
	w.must("reload")
	if s := w.status(); len(s.Hooks) != 4 || s.Hooks[0].What != bad {
		t.Errorf("hooks %+v, want %s", s.Hooks, bad)
	}
	must(t, service.cmd.Process.Signal(unix.SIGHUP))
	until(t, "it has reloaded by a signal", func() bool { return strings.Count(service.log.String(), `"reload"`) == 2 })
	if code := d.end(unix.SIGTERM); code != 0 {
		t.Errorf("the daemon: exit status %d", code)
	}
}

// TestSeparateTraced shows by strace(1) that the daemon executes nothing, speaks with no name server and no mail server, and
// asks no resolver of the C library; the service, which has all to do, runs untraced.
func TestSeparateTraced(t *testing.T) {
	w := newWorld(t)
	w.script("tell", tell)
	w.configure(strings.Replace(allHooks, "127.0.0.1:8080", "localhost:8080", 1)) // a name, which somebody has to look up
	mail, web := mails(t, w.server, "127.0.0.1:2525"), posts(t, w.server, "127.0.0.1:8080")
	w.service()
	trace := filepath.Join(home, "trace")
	d := w.daemon(netns.Tool(t, "strace"), "-D", "-f", "-qq", "-s", "200", "-e", "trace=execve,execveat,connect,sendto,sendmsg,openat,open", "-o", trace)
	w.scan(0)
	until(t, "all are told", func() bool { return len(lines("lib/told")) == 1 && len(mail()) == 1 && web() == 1 })
	until(t, "the pattern is there", func() bool { return cmp.Equal(patterns(0), lines("lib/hosts")) })
	w.must("reload")
	w.must("unblock", source(0))
	until(t, "the pattern is gone", func() bool { return cmp.Equal([]string{""}, lines("lib/hosts")) })
	if code := d.end(unix.SIGTERM); code != 0 {
		t.Errorf("exit status %d", code)
	}
	text, err := os.ReadFile(trace)
	must(t, err)
	_, ours, found := strings.Cut(string(text), "execve(\""+os.Getenv(programEnv)) // before it there is setpriv(1)
	if !found {
		t.Fatalf("the daemon was not traced:\n%s", text)
	}
	connects := 0
	spoken := regexp.MustCompile(`sa_family=AF_INET6?\b`)
	resolver := regexp.MustCompile(`"(/etc/(nsswitch\.conf|hosts|gai\.conf|services)|[^"]*/libnss_[^"]*)"`)
	for line := range strings.Lines(ours) {
		switch {
		case strings.Contains(line, "execve"):
			t.Errorf("executed: %s", line)
		case spoken.MatchString(line):
			t.Errorf("spoken with: %s", line)
		case resolver.MatchString(line):
			t.Errorf("looked up: %s", line)
		case strings.Contains(line, "connect(") && strings.Contains(line, hookSocket()):
			connects++
		}
	}
	if connects == 0 {
		t.Errorf("no connection to the service was traced")
	}
}

// TestSeparateRefused has a service say what its user lacks, and what to do.
func TestSeparateRefused(t *testing.T) {
	w := newWorld(t)
	password := filepath.Join(home, "etc", "password")
	must(t, os.WriteFile(password, []byte("secret\n"), 0o600))
	private := w.script("private", "true")
	must(t, os.Chmod(private, 0o700))
	mail := fmt.Sprintf("[[hook.mail]]\nfrom = \"a@example.org\"\nto = [\"b@example.org\"]\nserver = \"127.0.0.1:2525\"\nuser = \"u\"\npassword_file = %q\n", password)
	deny := "[hook.hosts_deny]\nfile = \"" + home + "/etc/hosts.deny\"\n"
	for _, tt := range []struct {
		name, conf string
		mode       os.FileMode // of the configuration
		want       []string
	}{
		{"password", mail, 0o644, []string{password, "let user 61002 read it", "chgrp 61002 " + password + " && chmod 0640 " + password}},
		{"program", fmt.Sprintf("[[hook.exec]]\ncommand = [%q]\n", private), 0o644, []string{private, "let user 61002 run it: chmod o+rx"}},
		{"hosts.deny", deny, 0o644, []string{"user 61002 cannot write in this folder", `file = "/var/lib/nftsentry-hook/hosts" and line = "$TARGET$"`,
			`"ALL: /var/lib/nftsentry-hook/hosts : DENY"`}},
		{"configuration", "", 0o600, []string{w.conf, "permission denied", "uid 61002", "SupplementaryGroups="}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w.configure(tt.conf)
			must(t, os.Chmod(w.conf, tt.mode))
			_, messages, code := w.exec(append(as(t, hookUser), os.Getenv(programEnv), "hook", "-c", w.conf, "--socket", hookSocket()))
			if code == 0 || code == -1 {
				t.Errorf("exit status %d", code)
			}
			for _, want := range tt.want {
				if !strings.Contains(messages, want) {
					t.Errorf("%q does not say %q", messages, want)
				}
			}
		})
	}
	w.configure(mail)
	must(t, os.Chmod(w.conf, 0o644))
	must(t, os.Chown(password, 0, hookUser))
	must(t, os.Chmod(password, 0o640))
	if code := w.service().end(unix.SIGTERM); code != 0 { // what it was told to do does
		t.Errorf("exit status %d", code)
	}
}

// TestSeparateNamespace runs the service as systemd does with PrivateUsers=yes: in a user namespace that knows its own user and root
// only, with a socket of the service manager that nobody but the daemon may use.
func TestSeparateNamespace(t *testing.T) {
	w := newWorld(t)
	w.script("tell", tell)
	w.configure(allHooks)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: hookSocket(), Net: "unix"})
	must(t, err)
	defer l.Close()
	must(t, os.Chown(hookSocket(), daemonUser, daemonUser))
	must(t, os.Chmod(hookSocket(), 0o600))
	file, err := l.File()
	must(t, err)
	defer file.Close()
	service := w.startCommand(w.inNamespace(file))
	d := w.daemon()
	w.scan(0)
	until(t, "the pattern is there", func() bool { return cmp.Equal(patterns(0), lines("lib/hosts")) })
	until(t, "the program is told", func() bool { return len(lines("lib/told")) == 1 })
	if got := lines("lib/told")[0]; !strings.HasPrefix(got, fmt.Sprint(hookUser)) || !strings.HasSuffix(got, "- block "+source(0)) {
		t.Errorf("told %q", got)
	}
	if code := d.end(unix.SIGTERM); code != 0 {
		t.Errorf("the daemon: exit status %d", code)
	}
	if code := service.end(unix.SIGTERM); code != 0 {
		t.Errorf("the service: exit status %d", code)
	}
	if _, err := os.Stat(hookSocket()); err != nil {
		t.Errorf("the socket of the service manager is gone: %v", err)
	}
	must(t, os.Chmod(hookSocket(), 0o666))
	_, messages, code := w.execCommand(w.inNamespace(file))
	if code == 0 || !strings.Contains(messages, "everybody may use this socket") {
		t.Errorf("a socket for everybody: %q, exit status %d", messages, code)
	}
}
