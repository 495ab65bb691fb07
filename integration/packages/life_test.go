package packages

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"nftsentry/controller/api"
	"nftsentry/integration/netns"
)

// Addresses: the server is guarded, the scanner is blocked, and the
// administrator is logged in when the package is installed.
const (
	server  = "10.9.0.2"
	scanner = "10.9.0.3"
	admin   = "10.9.0.4"
)

// A guarded is a root on a network with a client.
type guarded struct {
	*root
	client *netns.Host
}

func newGuarded(t *testing.T, manager bool) *guarded {
	t.Helper()
	host, client := netns.New(t, "server"), netns.New(t, "client")
	netns.Link(t, host, client, "eth0", "eth0", []string{server + "/24"}, []string{scanner + "/24", admin + "/24"})
	l, err := host.Listen("tcp", server+":80")
	if err != nil {
		t.Fatal(err)
	}
	var g errgroup.Group
	g.Go(func() error {
		for {
			conn, err := l.Accept()
			if err != nil {
				return nil
			}
			_ = conn.Close()
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		_ = g.Wait()
	})
	guarded := &guarded{newRoot(t, host, manager), client}
	t.Cleanup(func() {
		if log, err := os.ReadFile(guarded.path("run/guard.log")); t.Failed() && err == nil {
			t.Logf("log of the daemon:\n%s", log)
		}
	})
	return guarded
}

// answered tries to connect to a port of the server for a while, and tells
// whether there was any answer.
func (g *guarded) answered(from string, port uint16, patience time.Duration) bool {
	ctx, cancel := context.WithTimeout(g.t.Context(), patience)
	defer cancel()
	conn, err := g.client.Dial(ctx, "tcp", netip.AddrPortFrom(netip.MustParseAddr(server), port).String(), from)
	if err == nil {
		_ = conn.Close()
	}
	return err == nil || errors.Is(err, unix.ECONNREFUSED)
}

// expectAnswer fails if an address is not answered.
func (g *guarded) expectAnswer(from string) {
	g.t.Helper()
	if !g.answered(from, 80, 10*time.Second) {
		g.t.Errorf("%s is not answered", from)
	}
}

// scan has the scanner blocked by a connection to a decoy.
func (g *guarded) scan() {
	g.t.Helper()
	g.expectAnswer(scanner)
	if !g.answered(scanner, 23, 10*time.Second) {
		g.t.Fatal("the decoy does not answer")
	}
	eventually(g.t, "the scanner is blocked", func() bool { return strings.Contains(strings.Join(g.blocked(), " "), scanner) })
}

// blocked are the sources that the daemon lists.
func (g *guarded) blocked() []string {
	g.t.Helper()
	var all []api.Block
	if err := json.Unmarshal([]byte(g.must("nftsentry", "list", "--json")), &all); err != nil {
		g.t.Fatal(err)
	}
	var out []string
	for _, b := range all {
		out = append(out, b.Source)
	}
	return out
}

// status asks what the daemon is doing.
func (g *guarded) status() api.Status {
	g.t.Helper()
	var s api.Status
	if err := json.Unmarshal([]byte(g.must("nftsentry", "status", "--json")), &s); err != nil {
		g.t.Fatal(err)
	}
	return s
}

// silent does something while the scanner sends SYNs to a port that is served,
// and fails if any is answered. At least one was sent before, and one after.
func (g *guarded) silent(do func()) {
	g.t.Helper()
	var tries, answers atomic.Int64
	ctx, stop := context.WithCancel(g.t.Context())
	defer stop()
	var all errgroup.Group
	for range 3 {
		all.Go(func() error {
			for ctx.Err() == nil {
				if g.answered(scanner, 80, 30*time.Millisecond) {
					answers.Add(1)
				}
				tries.Add(1)
			}
			return nil
		})
	}
	more := func() {
		seen := tries.Load()
		eventually(g.t, "more SYNs were sent", func() bool { return tries.Load() > seen+6 })
	}
	more()
	do()
	more()
	stop()
	_ = all.Wait()
	if answers.Load() > 0 {
		g.t.Errorf("of %d SYNs of a blocked source %d were answered", tries.Load(), answers.Load())
	}
	g.t.Logf("%d SYNs, %d answers", tries.Load(), answers.Load())
}

// expectGone fails if the table is there, or anything that runs.
func (g *guarded) expectGone() {
	g.t.Helper()
	if tables := g.tables(); tables != "" {
		g.t.Errorf("tables are left:\n%s", tables)
	}
	eventually(g.t, "nothing of nftsentry runs", func() bool {
		_, err := g.try(nil, "pidof", "nftsentry") // one that has ended may wait to be taken in
		return err != nil
	})
	g.expectAnswer(scanner)
}

// eventually waits until something is so.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !so(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not after half a minute: %s", what)
		}
	}
}

// expectWords fails unless a text has all words.
func expectWords(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, word := range words {
		if !strings.Contains(text, word) {
			t.Errorf("%q is not in:\n%s", word, text)
		}
	}
}

// A life is how a kind of package is installed, upgraded and removed.
type life struct {
	kind                     string
	install, upgrade, remove []string // commands; the package's file follows the first two
}

var lives = []life{
	{"deb", []string{"dpkg", "-i"}, []string{"dpkg", "-i"}, []string{"dpkg", "-r", "nftsentry"}},
	{"rpm", []string{"rpm", "-i", "--nodeps"}, []string{"rpm", "-U", "--nodeps"}, []string{"rpm", "-e", "nftsentry"}},
	// Debian has no apk(8): what it would do is done here.
	{
		"apk",
		[]string{"sh", "-c", `tar -xzf "$1" -C / && /.post-install && rc-service nftsentry start`, "sh"},
		[]string{"sh", "-c", `tar -xzf "$1" -C / && /.post-upgrade`, "sh"},
		[]string{"sh", "-c", "/.pre-deinstall && rm -r /usr/sbin/nftsentry /usr/libexec/nftsentry"},
	},
}

// rcService stands in for OpenRC's program.
const rcService = `#!/bin/sh
for verb; do :; done
exec systemctl "$verb" nftsentry.service
`

// TestPackagesLife installs an old version, upgrades it and removes it: blocks
// stay in force throughout the upgrade, and nothing stays in the kernel behind
// the removal.
func TestPackagesLife(t *testing.T) {
	for _, l := range lives {
		t.Run(l.kind, func(t *testing.T) {
			g := newGuarded(t, true)
			if os.Getenv(rootEnv) != "" && !g.exists("usr/bin/"+l.install[0]) {
				t.Skipf("there is no %s in the other Debian", l.install[0])
			}
			g.write("usr/sbin/rc-service", rcService, 0o755)
			g.write("etc/portsentry/portsentry.conf", "TCP_PORTS=\"1\"\n", 0o644)
			said := g.mustAs([]string{"SSH_CONNECTION=" + admin + " 50000 " + server + " 22"}, append(l.install, g.bring(built(t, "old", l.kind)))...)
			expectWords(t, said, admin+", from which you are logged in, is never blocked", "nftsentry import /etc/portsentry/portsentry.conf --diff")
			expectWords(t, g.must("nftsentry", "version"), "nftsentry "+oldVersion, "commit 0123456789ab")
			expectOwners(t, g)
			before := g.status()
			if before.Version != oldVersion || before.Mode != "enforce" || len(before.Problems) > 0 {
				t.Errorf("status: %+v", before)
			}
			if out, err := g.try(nil, "nftsentry", "block", admin); err == nil {
				t.Errorf("the administrator is blocked: %s", out)
			}
			g.scan()
			ignored := read(t, g.path("etc/nftsentry/ignore"))

			g.silent(func() { g.must(append(l.upgrade, g.bring(built(t, "new", l.kind)))...) })
			expectWords(t, g.must("nftsentry", "version"), "nftsentry "+newVersion)
			if after := g.status(); after.Version != newVersion {
				t.Errorf("version %s is still running", after.Version)
			}
			if got := g.blocked(); len(got) != 1 || got[0] != scanner {
				t.Errorf("blocked after the upgrade: %q", got)
			}
			if now := read(t, g.path("etc/nftsentry/ignore")); string(now) != string(ignored) {
				t.Errorf("the upgrade changes the file of ignored sources:\n%s", now)
			}

			expectWords(t, g.must(l.remove...), "removed table inet nftsentry; ended 1 block on record")
			g.expectGone()
			for _, name := range []string{"var/lib/nftsentry/nftsentry.db", "etc/nftsentry/ignore"} {
				if !g.exists(name) {
					t.Errorf("a removal takes %s away", name)
				}
			}
			if l.kind == "deb" {
				expectPurge(t, g)
			}
		})
	}
}

// expectOwners looks at what the package makes besides its files.
func expectOwners(t *testing.T, g *guarded) {
	t.Helper()
	got := g.must("stat", "--format", "%a %U %G %n", "/var/lib/nftsentry", "/run/nftsentry", "/etc/nftsentry/ignore")
	want := "755 nftsentry nftsentry /var/lib/nftsentry\n750 nftsentry nftsentry /run/nftsentry\n644 root root /etc/nftsentry/ignore\n"
	if got != want {
		t.Errorf("got:\n%swant:\n%s", got, want)
	}
}

// expectPurge takes all away, but for the users.
func expectPurge(t *testing.T, g *guarded) {
	t.Helper()
	g.must("dpkg", "-P", "nftsentry")
	for _, name := range []string{"var/lib/nftsentry", "etc/nftsentry", "usr/sbin/nftsentry", "usr/libexec/nftsentry"} {
		if g.exists(name) {
			t.Errorf("a purge leaves %s", name)
		}
	}
	left, err := filepath.Glob(g.path("etc/systemd/system/*/nftsentry*"))
	if err != nil || len(left) > 0 {
		t.Errorf("a purge leaves %q, %v", left, err)
	}
	g.must("getent", "passwd", "nftsentry", "nftsentry-hook")
}

// TestPackagesWithoutManager installs where nothing starts services, as in a
// container: a removal ends what runs.
func TestPackagesWithoutManager(t *testing.T) {
	g := newGuarded(t, false)
	said := g.must("dpkg", "-i", g.bring(built(t, "old", "deb")))
	expectWords(t, said, "to guard this host, type: nftsentry run --user nftsentry")
	if tables := g.tables(); tables != "" {
		t.Errorf("an installation makes tables:\n%s", tables)
	}
	g.must("sh", "-c", "setsid nftsentry run </dev/null >>/run/guard.log 2>&1 &")
	eventually(t, "the daemon answers", func() bool {
		_, err := g.try(nil, "nftsentry", "status")
		return err == nil
	})
	g.scan()
	pid := g.status().PID
	g.silent(func() { g.must("dpkg", "-i", g.bring(built(t, "new", "deb"))) })
	if now := g.status().PID; now != pid {
		t.Errorf("process %d became %d", pid, now)
	}
	expectWords(t, g.must("dpkg", "-r", "nftsentry"), "removed table inet nftsentry")
	g.expectGone()
	said = g.must("dpkg", "-i", g.bring(built(t, "new", "deb")))
	if strings.Contains(said, "logged in") {
		t.Errorf("there is no login:\n%s", said)
	}
	g.must("dpkg", "-P", "nftsentry")
	g.expectGone()
}

// TestPackagesAfterRoot installs where a daemon of root's has left its files.
func TestPackagesAfterRoot(t *testing.T) {
	r := newRoot(t, netns.New(t, "server"), false)
	r.write("var/lib/nftsentry/nftsentry.db", "blocks", 0o600)
	r.write("srv/other", "not ours", 0o600)
	r.must("ln", "-s", "/srv/other", "/var/lib/nftsentry/link")
	r.must("dpkg", "-i", r.bring(built(t, "new", "deb")))
	got := r.must("stat", "--format", "%U:%G %n", "/var/lib/nftsentry", "/var/lib/nftsentry/nftsentry.db", "/srv/other")
	want := "nftsentry:nftsentry /var/lib/nftsentry\nnftsentry:nftsentry /var/lib/nftsentry/nftsentry.db\nroot:root /srv/other\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("owners (-want +got):\n%s", diff)
	}
}

// TestPackagesBrokenConfig removes the package although its configuration has a
// mistake.
func TestPackagesBrokenConfig(t *testing.T) {
	g := newGuarded(t, true)
	g.must("dpkg", "-i", g.bring(built(t, "new", "deb")))
	g.scan()
	g.write("etc/nftsentry/nftsentry.toml", "mode = 7\n", 0o644)
	expectWords(t, g.must("dpkg", "-r", "nftsentry"), "removed table inet nftsentry")
	g.expectGone()
}
