package integration

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"nftsentry/integration/netns"
)

// TestPortsentryTools has what people have built around Portsentry read what
// we write: the tools themselves, unchanged.
func TestPortsentryTools(t *testing.T) {
	w := newWorld(t)
	p := newProgram(t, w.server, "udp.watch = \"1-1024\"\nlog.compat = true\n[trigger]\nports = 1\n")
	log := p.syslog()
	d := p.run()
	nmap(t, w.client, server4, "79", "-sN")
	first := d.listed()
	d.must("unblock", client4)
	nmap(t, w.client, server4, "69", "-sU")
	second := d.listed()
	const other4 = "10.8.0.77"
	w.client.Addr(t, "eth0", other4+"/24")
	_, _ = touch(w.client, other4, server4, 111)
	_, _ = touch(w.client, "", server6, 23)
	eventually(t, "all are on record", patience, func() bool { return strings.Count(d.file("portsentry.history"), "\n") == 4 })
	tcp, udp := filepath.Join(d.dir, "state", "portsentry.blocked.tcp"), filepath.Join(d.dir, "state", "portsentry.blocked.udp")

	t.Run("fail2ban", func(t *testing.T) {
		for file, want := range map[string]string{
			tcp: other4 + "\n" + client6 + "\n", udp: client4 + "\n",
			d.state("portsentry.history"): client4 + "\n" + client4 + "\n" + other4 + "\n" + client6 + "\n",
		} {
			got := w.server.Output(t, netns.Tool(t, "fail2ban-regex"), "-o", "ip", file, "portsentry")
			if got != want {
				t.Errorf("fail2ban finds %q in %s, want %q", got, file, want)
			}
		}
	})

	t.Run("logwatch", func(t *testing.T) {
		eventually(t, "all lines are in syslog", patience, func() bool { return strings.Count(log.String(), "has been blocked") == 4 })
		script := "/usr/share/logwatch/scripts/services/portsentry"
		cmd := w.server.Command(netns.Tool(t, "perl"), "-I/usr/share/logwatch/lib", script)
		var out bytes.Buffer
		cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(log.String()), &out, &out
		w.server.Start(t, cmd)
		if err := cmd.Wait(); err != nil {
			t.Fatalf("%v\n%s", err, out.String())
		}
		for _, want := range []string{
			"TCP NULL from:\n      " + client4 + ": ports: 79\n",
			"TCP SYN/Normal from:\n      " + other4 + ": ports: 111\n",
			"UDP from:\n      " + client4 + ": ports: 69\n",
			"Blocked route from/to " + client4 + " 2 times(s).",
			"Blocked route from/to " + client6 + " 1 times(s).",
		} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("logwatch does not say %q:\n%s", want, out.String())
			}
		}
	})

	t.Run("cron script", func(t *testing.T) {
		data, err := os.ReadFile(udp)
		if err == nil {
			err = os.WriteFile(udp+".copy", data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		got := w.server.Output(t, "/bin/sh", "testdata/clean.sh", udp)
		if want := fmt.Sprintf("%d %s\n", second.Since.Unix(), client4); got != want {
			t.Errorf("the script reads %q, want %q", got, want)
		}
		if d.file("portsentry.blocked.udp") != "" {
			t.Errorf("the script deletes nothing")
		}
	})
	line := regexp.MustCompile(`(?m)^` + strconv.FormatInt(first.Since.Unix(), 10) + ` - \d\d/\d\d/\d{4} \d\d:\d\d:\d\d Host: ` + regexp.QuoteMeta(client4+"/"+client4) + ` Port: 79 TCP Blocked$`)
	if history := d.file("portsentry.history"); !line.MatchString(history) {
		t.Errorf("history %q has no %s", history, line)
	}
	if got := log.String(); strings.Contains(got, "already blocked") || !strings.Contains(got, "adminalert: PortSentry is now active and listening.") {
		t.Errorf("syslog has %q", got)
	}
	if code := d.end(unix.SIGTERM); code != 0 || !strings.HasSuffix(log.String(), "securityalert: PortSentry is shutting down\n") {
		t.Errorf("ended with %d, syslog has %q", code, log.String())
	}
}

// TestRespondWords has what is not blocked never called so: Portsentry 1.2
// writes "Blocked" of it.
func TestRespondWords(t *testing.T) {
	for _, respond := range []string{"log", "run"} {
		t.Run(respond, func(t *testing.T) {
			w := newWorld(t)
			p := newProgram(t, w.server, fmt.Sprintf("tcp.respond = %q\nlog.compat = true\n[trigger]\nports = 1\n", respond))
			log := p.syslog()
			d := p.run()
			watch := d.watch()
			eventually(t, "somebody watches", patience, func() bool { return d.status().Readers == 1 })
			want := map[string]string{"log": "would-block", "run": "run"}[respond]
			for source, probe := range map[string]func(){
				client4: func() { nmap(t, w.client, server4, "79", "-sN") },
				client6: func() { _, _ = touch(w.client, "", server6, 23) },
			} {
				probe()
				e := watch.next()
				for e.Event == "probe" {
					e = watch.next()
				}
				if e.Event != want || e.Source != source || e.Block == nil {
					t.Errorf("heard %+v, want %s of %s", e, want, source)
				}
			}
			if got := d.sources(); len(got) != 0 {
				t.Errorf("blocked %v", got)
			}
			for _, file := range []string{"portsentry.blocked.tcp", "portsentry.blocked.udp", "portsentry.history"} {
				if data, _ := os.ReadFile(d.state(file)); len(data) > 0 {
					t.Errorf("%s has %q", file, data)
				}
			}
			eventually(t, "the attacks are in syslog", patience, func() bool { return strings.Count(log.String(), " from host: ") == 2 })
			if got := log.String(); strings.Contains(got, "has been blocked") || respond == "log" != strings.Contains(got, "Ignoring TCP response per configuration file setting.") {
				t.Errorf("syslog has %q", got)
			}
		})
	}
}

// A syslog is what a daemon has written to /dev/log, a line each, each after a
// time and the name of a host, as files of syslog have it.
type syslog struct {
	lockedBuffer
	done errgroup.Group
}

// syslog gives the daemon a /dev of its own, with a syslogd that the test is.
func (p *program) syslog() *syslog {
	p.t.Helper()
	dev := filepath.Join(p.dir, "dev")
	if err := os.Mkdir(dev, 0o755); err != nil {
		p.t.Fatal(err)
	}
	for _, name := range []string{"null", "zero", "urandom"} {
		if err := os.WriteFile(filepath.Join(dev, name), nil, 0o600); err != nil {
			p.t.Fatal(err)
		}
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dev, "log"), Net: "unixgram"})
	if err != nil {
		p.t.Fatal(err)
	}
	s := &syslog{}
	s.done.Go(func() error {
		for buf := make([]byte, 4096); ; {
			n, err := conn.Read(buf)
			if err != nil {
				return nil // closed
			}
			_, text, _ := bytes.Cut(buf[:n], []byte(">"))
			stamp, text := text[:len(time.Stamp)], text[len(time.Stamp):]
			fmt.Fprintf(s, "%s host%s\n", stamp, text)
		}
	})
	p.t.Cleanup(sync.OnceFunc(func() { _ = conn.Close(); _ = s.done.Wait() }))
	p.wrap = []string{netns.Tool(p.t, "unshare"), "-m", "sh", "-c", `set -e
		for device in null zero urandom; do mount --bind "/dev/$device" "$0/$device"; done
		mount --rbind "$0" /dev
		exec "$@"`, dev}
	return s
}
