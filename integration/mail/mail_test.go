// Package mail tests the mails of the hooks with a real mail server, Postfix, in namespaces of its own.
package mail

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"mime/quotedprintable"
	"net"
	netmail "net/mail"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"nftsentry/controller/hook"
	"nftsentry/integration/netns"
)

func TestMain(m *testing.M) { netns.MainAsRoot(m) }

const (
	// patience is how long a mail may take on a slow machine.
	patience = time.Minute
	// home is below the /run that only the tests see, where nobody but root may write.
	home = "/run/mta"
	// reader is the user that the mailbox belongs to, "nobody".
	reader = 65534
)

const mainCF = `compatibility_level = 3.6
queue_directory = ` + home + `/spool
data_directory = ` + home + `/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
myhostname = mta.example.org
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
mydestination =
alias_maps =
alias_database =
local_recipient_maps =
virtual_mailbox_domains = example.org
virtual_mailbox_maps = static:box/
virtual_mailbox_base = %s
virtual_uid_maps = static:65534
virtual_gid_maps = static:65534
maillog_file = /dev/stdout
`

const masterCF = `127.0.0.1:25 inet n - n - - smtpd
pickup unix n - n 1 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
local unix - n n - - local
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
`

// postfix runs a Postfix that is the test's own, and returns the folder of the mails that it delivers.
func postfix(t *testing.T) (box string) {
	t.Helper()
	netns.Require(t)
	if _, err := exec.LookPath("postfix"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("there is no postfix: make deps installs it")
		}
		t.Skip("there is no postfix: make deps installs it")
	}
	dir := t.TempDir()
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		must(t, os.Chmod(d, 0o755))
	}
	must(t, os.Chown(dir, reader, reader))
	must(t, os.RemoveAll(home))
	for _, d := range []string{home + "/conf", home + "/spool", home + "/data"} {
		must(t, os.MkdirAll(d, 0o755))
	}
	out, err := exec.Command("chown", "postfix", home+"/data").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	must(t, os.WriteFile(home+"/conf/main.cf", fmt.Appendf(nil, mainCF, dir), 0o644))
	must(t, os.WriteFile(home+"/conf/master.cf", []byte(masterCF), 0o644))
	run(t)
	return filepath.Join(dir, "box", "new")
}

// run starts the server in the foreground, in a session of its own, and stops it when the test ends.
func run(t *testing.T) {
	t.Helper()
	cmd := exec.Command("postfix", "-c", home+"/conf", "start-fg")
	var log locked
	cmd.Stdout, cmd.Stderr, cmd.Dir = &log, &log, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.WaitDelay = time.Second
	must(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		if out, err := exec.Command("postfix", "-c", home+"/conf", "abort").CombinedOutput(); err != nil {
			t.Logf("abort: %v: %s", err, out)
		}
		select {
		case <-ended:
		case <-time.After(patience):
			_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
			<-ended
		}
		if t.Failed() {
			t.Logf("the server's log:\n%s", log.String())
		}
	})
	until(t, "the server listens", func() bool {
		conn, err := net.Dial("tcp", "127.0.0.1:25")
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}

// A locked buffer may be written to and read at once.
type locked struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// TestMail has blocks told by mail, by SMTP and by sendmail, and reads what arrives.
func TestMail(t *testing.T) {
	box := postfix(t)
	// The program is root's, in a folder that is. It names the configuration, as that of a host would need not.
	must(t, os.WriteFile(home+"/sendmail", []byte("#!/bin/sh\nexec /usr/sbin/sendmail -C "+home+"/conf \"$@\"\n"), 0o755))
	common := hook.Common{On: []hook.On{hook.Block}, Timeout: patience, Limit: hook.Rate{Count: 10, Per: time.Hour}}
	for _, tt := range []struct {
		name string
		mail hook.Mail
	}{
		{"SMTP", hook.Mail{Server: "127.0.0.1:25", TLS: "none"}},
		{"sendmail", hook.Mail{Sendmail: home + "/sendmail"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.mail.Common, tt.mail.From, tt.mail.To = common, "nftsentry@example.org", []string{"admin@example.org"}
			tt.mail.Digest = time.Second
			tt.mail.Body = "{{range .Events}}{{.Target}} {{.Comment}}\n.\n{{end}}"
			r, err := hook.New(hook.Config{Mail: []hook.Mail{tt.mail}}, zap.NewNop())
			must(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- r.Run(ctx) }()
			for n := range 3 {
				a := netip.AddrFrom4([4]byte{192, 0, 2, byte(n)})
				r.Tell(hook.Event{
					On: hook.Block, Source: netip.PrefixFrom(a, 32), Address: a, Port: 23, Protocol: "tcp", Kind: "connect",
					Comment: "ä\r\nBcc: other@example.org\r\n\r\n.\r\nQUIT",
				})
			}
			until(t, "a mail is handed over", func() bool { s := r.Stats()[0]; return s.Done+s.Failed == 1 })
			cancel()
			must(t, <-ended)
			if s := r.Stats()[0]; s.Done != 1 {
				t.Fatalf("%+v", s)
			}
			checkMail(t, only(t, box))
		})
	}
}

// only waits for a mail in a mailbox, takes it out and returns it.
func only(t *testing.T, box string) []byte {
	t.Helper()
	var files []string
	until(t, "a mail arrives", func() bool {
		files, _ = filepath.Glob(box + "/*")
		return len(files) > 0
	})
	if len(files) > 1 {
		t.Errorf("%d mails arrive, want one", len(files))
	}
	raw, err := os.ReadFile(files[0])
	must(t, err)
	must(t, os.Remove(files[0]))
	return raw
}

func checkMail(t *testing.T, raw []byte) {
	t.Helper()
	msg, err := netmail.ReadMessage(bytes.NewReader(raw))
	must(t, err)
	host, err := os.Hostname()
	must(t, err)
	for name, want := range map[string]string{
		"From": "<nftsentry@example.org>", "To": "<admin@example.org>", "Bcc": "", "Auto-Submitted": "auto-generated",
		"Return-Path": "<nftsentry@example.org>", "Delivered-To": "admin@example.org",
		"Subject": "nftsentry on " + host + ": block 192.0.2.0 and 2 more",
	} {
		if got := msg.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	body, err := io.ReadAll(quotedprintable.NewReader(msg.Body))
	must(t, err)
	const comment = " ä  Bcc: other@example.org    .  QUIT\n.\n"
	want := "192.0.2.0" + comment + "192.0.2.1" + comment + "192.0.2.2" + comment
	if got := strings.ReplaceAll(string(body), "\r\n", "\n"); strings.TrimRight(got, "\n") != strings.TrimRight(want, "\n") {
		t.Errorf("text %q, want %q", got, want)
	}
}
