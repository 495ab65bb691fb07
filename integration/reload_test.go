package integration

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"nftsentry/integration/netns"
)

// TestReload shows that what a file changes takes effect while the daemon
// runs, by command and by signal, and that blocks stay.
func TestReload(t *testing.T) {
	w := newWorld(t)
	serve(t, w.server, ":80", "welcome")
	d := guard(t, w.server, "tcp.banner = \"one\"")
	d.must("block", "198.51.100.7", "203.0.113.0/24")
	expectRead(t, w.client, "", server6, 23, "one")
	d.expectSources("198.51.100.7", "203.0.113.0/24", "2001:db8:8::/64")
	d.must("unblock", "2001:db8:8::/64")

	d.configure("tcp.banner = \"two\"\ntcp.decoy = \"4000\"\ntcp.watch = \"\"\nignore.sources = [\"198.51.100.7\"]\nlog.level = \"debug\"")
	if got, want := d.must("reload"), "reloaded "+d.conf+"\n"; got != want {
		t.Errorf("reload prints %q, want %q", got, want)
	}
	if _, err := touch(w.client, "", server6, 23); err == nil {
		t.Error("port 23 is still a decoy")
	}
	for port := 200; port < 210; port++ {
		_, _ = touch(w.client, "", server6, port)
	}
	if got := strings.Join(d.sources(), " "); got != "203.0.113.0/24" {
		t.Errorf("blocked %s, want only what is not ignored", got)
	}
	expectRead(t, w.client, "", server6, 4000, "two")
	eventually(t, "the new decoy blocks", patience, func() bool { return len(d.list()) == 2 })
	eventually(t, "the level of the log has changed", patience, func() bool { return strings.Contains(d.log.String(), `"level":"debug"`) })

	d.configure("mode = \"observe\"")
	if err := d.cmd.Process.Signal(unix.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the signal takes effect", patience, func() bool { return d.status().Mode == "observe" })
	expectRead(t, w.client, "", server6, 80, "welcome")
	d.configure("")
	d.must("reload")
	expectSilence(t, w.client, "", server6, 80)
}

// TestReloadBroken shows that a file with mistakes changes nothing, and is
// told of.
func TestReloadBroken(t *testing.T) {
	w := newWorld(t)
	d := guard(t, w.server, "tcp.banner = \"one\"")
	table := d.host.Output(t, netns.Tool(t, "nft"), "-s", "list", "table", "inet", "nftsentry")
	d.configure("tcp.banner = \"two\"\ntcp.decoy = 7\nblock.timeout = \"soon\"")
	r := d.exec("reload", "--socket", d.dir+"/sock")
	want := regexp.MustCompile(`^nftsentry: \S+nftsentry\.toml:2:13: tcp\.decoy = 7: .*\nnftsentry: \S+nftsentry\.toml:3:17: block\.timeout = "soon": .*\n$`)
	if r.code != 2 || !want.MatchString(r.stderr) || r.stdout != "" {
		t.Errorf("reload of a broken file: %+v", r)
	}
	if r := d.command("reload"); r.code != 2 || !want.MatchString(r.stderr) {
		t.Errorf("reload of a broken file that has the socket: %+v", r)
	}
	if got := d.host.Output(t, netns.Tool(t, "nft"), "-s", "list", "table", "inet", "nftsentry"); got != table {
		t.Errorf("the table after it:\n%s\nwant\n%s", got, table)
	}
	expectRead(t, w.client, "", server4, 23, "one")
	if err := os.Remove(d.conf); err != nil {
		t.Fatal(err)
	}
	if r := d.exec("reload", "--socket", d.dir+"/sock"); r.code != 2 || !strings.Contains(r.stderr, "nftsentry.toml") {
		t.Errorf("reload without a file: %+v", r)
	}
}

// TestReloadRestart names what cannot change while the daemon runs.
func TestReloadRestart(t *testing.T) {
	w := newWorld(t)
	d := guard(t, w.server, "tcp.banner = \"one\"")
	d.configure("tcp.banner = \"two\"\ntcp.port = 777\ntrigger.nflog_group = 7\nlog.format = \"console\"")
	r := d.command("reload")
	var want strings.Builder
	for _, key := range []string{"tcp.port", "trigger.nflog_group", "log.format"} {
		fmt.Fprintf(&want, "nftsentry: %s has changed: it waits for a restart of the daemon\n", key)
	}
	if r.code != 0 || r.stderr != want.String() {
		t.Errorf("reload: %+v, want exit status 0 and\n%s", r, want.String())
	}
	expectRead(t, w.client, "", server4, 23, "two") // the rest has
}

// TestReloadMax has room for fewer hosts than are blocked, and tells how many
// had to go, once.
func TestReloadMax(t *testing.T) {
	w := newWorld(t)
	d := guard(t, w.server, "")
	var many []string
	for i := range 1030 {
		many = append(many, fmt.Sprintf("198.18.%d.%d", i/256, i%256))
	}
	d.must(append([]string{"block"}, many...)...)
	d.configure("block.max = 1024")
	for _, want := range []string{"nftsentry: block.max = 1024 is less than were blocked: 6 blocks ended\n", ""} {
		if r := d.command("reload"); r.code != 0 || r.stderr != want {
			t.Errorf("reload: %+v, want exit status 0 and %q", r, want)
		}
		if got := d.status().Blocks.Live; got != 1024 {
			t.Errorf("%d are blocked, want 1024", got)
		}
	}
}

// TestReloadWithoutGap reloads many times while a blocked source sends as fast
// as it can: none of it gets through.
func TestReloadWithoutGap(t *testing.T) {
	w := newWorld(t)
	serve(t, w.server, ":80", "welcome")
	d := guard(t, w.server, "")
	d.must("block", client4, "2001:db8:8::/64")
	seen := answersCounted(t, w.client)
	stop := make(chan struct{})
	var g errgroup.Group
	g.Go(func() error {
		for {
			select {
			case <-stop:
				return nil
			default:
				_, _ = touchQuickly(w.client, "", server4, 80)
				_, _ = touchQuickly(w.client, "", server6, 80)
			}
		}
	})
	for i := range 20 {
		d.configure(fmt.Sprintf("tcp.decoy = \"%d\"\ntrigger.window = \"%ds\"", 4000+i, 60+i))
		d.must("reload")
	}
	close(stop)
	_ = g.Wait()
	if got := seen(); got != 0 {
		t.Errorf("%d answers reached a blocked source", got)
	}
	d.must("unblock", "--all")
	expectRead(t, w.client, "", server4, 80, "welcome")
	if got := seen(); got == 0 {
		t.Error("answers are not counted")
	}
}

// answersCounted counts on a host the TCP packets that answer an attempt to
// connect.
func answersCounted(t *testing.T, host *netns.Host) (count func() int) {
	t.Helper()
	nft := netns.Tool(t, "nft")
	host.Output(t, nft, "add table inet watch; add chain inet watch in { type filter hook prerouting priority -400; }; "+
		"add rule inet watch in tcp flags & (syn | ack) == (syn | ack) counter; add rule inet watch in tcp flags & rst == rst counter")
	packets := regexp.MustCompile(`counter packets (\d+)`)
	return func() (n int) {
		for _, m := range packets.FindAllStringSubmatch(host.Output(t, nft, "list table inet watch"), -1) {
			var one int
			_, _ = fmt.Sscan(m[1], &one)
			n += one
		}
		return n
	}
}

// TestPanic takes everything out of the kernel, and keeps it out over restarts
// until it is resumed.
func TestPanic(t *testing.T) {
	suspended := regexp.MustCompile(`^panic: (1 block|2 blocks) suspended, and nothing is noticed, until "nftsentry resume"\n$`)
	for name, alone := range map[string]bool{"with a daemon": false, "without": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // it waits for most of the time
			w := newWorld(t)
			serve(t, w.server, ":80", "welcome")
			d := guard(t, w.server, "")
			d.must("block", client4, "--timeout", "1h")
			d.must("block", "203.0.113.7", "--timeout", "3s") // over before the resume, and perhaps before the panic
			want := d.list()[:1]
			off := func(when string) {
				t.Helper()
				expectRead(t, w.client, "", server4, 80, "welcome")
				if _, err := touch(w.client, "", server6, 23); err == nil {
					t.Errorf("%s: a decoy answers", when)
				}
			}
			if alone {
				d.end(unix.SIGKILL)
				if got := d.must("panic"); got != "panic: the table is gone, and stays so over restarts until \"nftsentry resume\"\n" {
					t.Errorf("panic prints %q", got)
				}
				off("without a daemon")
				d = d.program.run()
			} else if got := d.must("panic"); !suspended.MatchString(got) {
				t.Errorf("panic prints %q", got)
			}
			if got := d.must("panic"); !strings.HasPrefix(got, "panic already: ") {
				t.Errorf("a second panic prints %q", got)
			}
			off("after panic")
			if s := d.status(); s.Mode != "panic" {
				t.Errorf("mode %q, want panic", s.Mode)
			}
			if r := d.command("list"); r.code != 0 || r.stderr != "nftsentry: mode is panic: none of these blocks is in force\n" {
				t.Errorf("list in panic: %+v", r)
			}
			if r := d.command("block", "198.51.100.7"); r.code != 1 || !strings.Contains(r.stderr, "nftsentry resume") {
				t.Errorf("block in panic: %+v", r)
			}
			d.must("reload")
			off("after a reload")
			d.end(unix.SIGTERM)
			off("after the end")
			d = d.program.run()
			off("after a restart")
			eventually(t, "the log of the start says that blocks are suspended", patience, func() bool {
				return strings.Contains(d.log.String(), `"mode":"panic"`)
			})
			eventually(t, "one block is over", patience, func() bool { return len(d.list()) == 1 })
			if alone {
				d.end(unix.SIGTERM)
				d.must("resume")
				d = d.program.run()
			} else if got := d.must("resume"); got != "resumed: 1 block in force\n" {
				t.Errorf("resume prints %q", got)
			}
			if got := d.must("resume"); got != "there was no panic to resume from: 1 block in force\n" {
				t.Errorf("a second resume prints %q", got)
			}
			expectSilence(t, w.client, "", server4, 80)
			if got := d.list(); len(got) != 1 || got[0] != want[0] {
				t.Errorf("listed after resume: %+v, want %+v", got, want)
			}
		})
	}
}

// TestPanicWithoutFile shows that panic works with a configuration that has
// mistakes, and with a state folder that cannot be written.
func TestPanicWithoutFile(t *testing.T) {
	w := newWorld(t)
	serve(t, w.server, ":80", "welcome")
	d := guard(t, w.server, "")
	d.must("block", client4)
	if err := os.WriteFile(d.conf, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := d.command("panic", "--socket", d.dir+"/sock"); r.code != 0 || !strings.Contains(r.stderr, "has mistakes") {
		t.Errorf("panic with a broken file: %+v", r)
	}
	expectRead(t, w.client, "", server4, 80, "welcome")
	if r := d.command("resume", "--socket", d.dir+"/sock"); r.code != 0 {
		t.Errorf("resume with a broken file: %+v", r)
	}
	expectSilence(t, w.client, "", server4, 80)
	d.end(unix.SIGKILL)

	d.configure("")
	if err := os.Rename(d.state(""), d.dir+"/away"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.state(""), nil, 0o600); err != nil { // no folder can be made here
		t.Fatal(err)
	}
	if r := d.command("panic"); r.code != 1 || !strings.Contains(r.stderr, "a restart will not know of it") {
		t.Errorf("panic without a state folder: %+v", r)
	}
	expectRead(t, w.client, "", server4, 80, "welcome")
}

// TestServicesOutlivePanic shows that what was just learnt of a service is not
// lost when the table is emptied, or deleted by somebody.
func TestServicesOutlivePanic(t *testing.T) {
	for name, upset := range map[string]func(d *daemon){
		"panic": func(d *daemon) { d.must("panic"); d.must("resume") },
		"flush ruleset": func(d *daemon) {
			d.host.Output(t, netns.Tool(t, "nft"), "flush ruleset")
			d.must("block", "203.0.113.7")
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			d := guard(t, w.server, "")
			l, err := w.server.Listen("tcp", ":1524")
			if err != nil {
				t.Fatal(err)
			}
			conn, err := w.client.Dial(t.Context(), "tcp", server4+":1524", "")
			if err != nil {
				t.Fatal(err)
			}
			_ = conn.Close()
			upset(d)
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := touch(w.client, "", server4, 1524); err == nil || !strings.Contains(err.Error(), "refused") {
				t.Errorf("a port whose service has just stopped: %v, want it refused", err)
			}
			time.Sleep(200 * time.Millisecond)
			for _, b := range d.list() {
				if b.Origin != "operator" {
					t.Errorf("a client of the service is blocked: %+v", b)
				}
			}
		})
	}
}
