package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"nftsentry/integration/netns"
)

// soon is when a change of a file must have taken effect, on the busiest machine.
const soon = 10 * time.Second

// An ignoreFile is a file that lists ignored sources.
type ignoreFile struct {
	t    testing.TB
	path string
}

func newIgnoreFile(t testing.TB, name string) ignoreFile {
	t.Helper()
	return ignoreFile{t, filepath.Join(t.TempDir(), name)}
}

// ignoring is a configuration that names files.
func ignoring(files ...ignoreFile) string {
	var names []string
	for _, f := range files {
		names = append(names, fmt.Sprintf("%q", f.path))
	}
	return "tcp.banner = \"caught\"\nignore.files = [" + strings.Join(names, ", ") + "]"
}

// write has it say something else, as an editor does: another file is moved over it.
func (f ignoreFile) write(text string) {
	f.t.Helper()
	if err := os.WriteFile(f.path+".new", []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
	if err := os.Rename(f.path+".new", f.path); err != nil {
		f.t.Fatal(err)
	}
}

// touchMany touches decoys and watched ports.
func touchMany(host *netns.Host, to string) {
	for _, port := range []int{23, 79, 200, 201, 202, 203, 204, 2323} {
		_, _ = touchQuickly(host, "", to, port)
	}
}

// TestIgnoreFiles follows a source that is listed, then is not, and then is
// again while it is blocked.
func TestIgnoreFiles(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			w := newWorld(t)
			serve(t, w.server, ":80", "welcome")
			file, other := newIgnoreFile(t, "portsentry.ignore"), newIgnoreFile(t, "portsentry.ignore.static")
			listed := "127.0.0.1/32\r\n0.0.0.0\r\n\t10.8.0.77/24 # office\r\n2001:DB8:8::77/64"
			file.write(listed)
			other.write("192.0.2.0/24")
			d := guard(t, w.server, ignoring(file, other))

			touchMany(w.client, f.server)
			expectRead(t, w.client, "", f.server, 80, "welcome")
			if got := d.sources(); len(got) != 0 {
				t.Fatalf("%v are blocked, want nobody", got)
			}
			if s := d.status(); s.Ignored.Files != 2 || s.Ignored.Listed != 5 || len(s.Problems) != 0 {
				t.Errorf("status %+v, %q, want 5 lines of 2 files", s.Ignored, s.Problems)
			}
			if r := d.command("block", f.client); r.code == 0 || !strings.Contains(r.stderr, "(portsentry.ignore:") {
				t.Errorf("to block it by hand: %+v, want the line of the file", r)
			}

			file.write("127.0.0.1\n")
			eventually(t, "it is not listed any more", soon, func() bool { return d.status().Ignored.Listed == 2 })
			expectRead(t, w.client, "", f.server, 23, "caught")
			if got := d.listed().Source; got != f.source {
				t.Errorf("%s is blocked, want %s", got, f.source)
			}
			expectSilence(t, w.client, "", f.server, 80)

			file.write(listed)
			eventually(t, "it is unblocked", soon, func() bool { return len(d.list()) == 0 })
			expectRead(t, w.client, "", f.server, 80, "welcome")
			touchMany(w.client, f.server)
			expectRead(t, w.client, "", f.server, 80, "welcome")

			d.end(unix.SIGKILL) // the kernel knows it without anybody to pardon it
			touchMany(w.client, f.server)
			expectRead(t, w.client, "", f.server, 80, "welcome")
		})
	}
}

// TestIgnoreFilesBroken keeps the old list while a file has a bad line, and
// tells which.
func TestIgnoreFilesBroken(t *testing.T) {
	w := newWorld(t)
	serve(t, w.server, ":80", "welcome")
	file := newIgnoreFile(t, "portsentry.ignore")
	file.write("10.8.0.0/24\n")
	d := guard(t, w.server, ignoring(file))
	file.write("# moved\nclient.example.net\n192.0.2.0/33\n")
	where := file.path + ":2: \"client.example.net\": a name, and names are not looked up: write its address"
	eventually(t, "the status names the line", soon, func() bool { return strings.Contains(strings.Join(d.status().Problems, "\n"), where) })
	touchMany(w.client, server4)
	expectRead(t, w.client, "", server4, 80, "welcome")
	log := d.log.String()
	for _, line := range []string{file.path + `:2: \"client.example.net\": `, file.path + `:3: \"192.0.2.0/33\": `} {
		if !strings.Contains(log, strings.ReplaceAll(line, `\"`, `\\\"`)) && !strings.Contains(log, line) {
			t.Errorf("the log does not name %s", line)
		}
	}
	if n := strings.Count(log, "the old list stays in force"); n != 1 {
		t.Errorf("said %d times, want once", n)
	}

	r := d.command("check")
	if r.code != 2 || !strings.Contains(r.stderr, "nftsentry: "+where+"\n") || !strings.Contains(r.stderr, file.path+":3: ") {
		t.Errorf("check: %+v", r)
	}
	if r := d.command("check", "--json"); r.code != 2 || !strings.Contains(r.stdout, `"correct": false`) || strings.Count(r.stdout, file.path) != 2 {
		t.Errorf("check --json: %+v", r)
	}
	d.configure(ignoring(file) + "\nmode = \"observe\"")
	if r := d.command("reload"); r.code != 2 || !strings.Contains(r.stderr, "nftsentry: "+where+"\n") || d.status().Mode != "enforce" {
		t.Errorf("reload: %+v, mode %s", r, d.status().Mode)
	}

	file.write("# moved\n")
	eventually(t, "the file is taken", soon, func() bool { s := d.status(); return s.Ignored.Listed == 0 && len(s.Problems) == 0 })
	expectRead(t, w.client, "", server4, 23, "caught")
	d.listed()
	expectSilence(t, w.client, "", server4, 80)
}

// TestIgnoreFilesMissing starts without the file: nothing is blocked until it
// is there, whatever else is done, and then everything is that is on record.
func TestIgnoreFilesMissing(t *testing.T) {
	w := newWorld(t)
	serve(t, w.server, ":80", "welcome")
	file := newIgnoreFile(t, "portsentry.ignore")
	p := newProgram(t, w.server, "")
	d := p.run()
	d.must("block", client4, "--timeout", "1h")
	d.end(unix.SIGTERM)
	expectSilence(t, w.client, "", server4, 80)

	p.configure(ignoring(file))
	if r := p.command("check"); r.code != 2 || !strings.Contains(r.stderr, "nftsentry: "+file.path+": there is no such file: create it") {
		t.Errorf("check: %+v", r)
	}
	d = p.run()
	off := func(when string) {
		t.Helper()
		expectRead(t, w.client, "", server4, 80, "welcome")
		touchMany(w.client, server6)
		expectRead(t, w.client, "", server6, 80, "welcome")
		if _, err := touch(w.client, "", server6, 23); err == nil {
			t.Errorf("%s: a decoy answers", when)
		}
	}
	off("at the start")
	s := d.status()
	if s.Mode != "suspended" || len(s.Problems) != 1 || !strings.Contains(s.Problems[0], "nothing is noticed or blocked until ignore.files can be read: "+file.path+": there is no such file") {
		t.Errorf("mode %s, problems %q", s.Mode, s.Problems)
	}
	if n := strings.Count(d.log.String(), "nothing is noticed or blocked until they can be"); n != 1 {
		t.Errorf("said %d times, want once", n)
	}
	if r := d.command("block", "198.51.100.7"); r.code != 1 || !strings.Contains(r.stderr, "ignore.files cannot be read") {
		t.Errorf("block: %+v", r)
	}
	if r := d.command("resume"); r.code != 0 || !strings.Contains(r.stderr, file.path) || r.stdout != "there was no panic to resume from: 1 block on record\n" {
		t.Errorf("resume: %+v", r)
	}
	off("after resume")
	file.write("x.example\n")
	eventually(t, "it is noticed", soon, func() bool { return strings.Contains(strings.Join(d.status().Problems, ""), file.path+":1: ") })
	off("with a bad line")
	d.must("panic")
	file.write("192.0.2.1\n")
	eventually(t, "the file is taken", soon, func() bool { return d.status().Ignored.Listed == 1 })
	off("in a panic")
	d.must("resume")
	expectSilence(t, w.client, "", server4, 80)
	expectRead(t, w.client, "", server6, 23, "caught")
	eventually(t, "both are listed", soon, func() bool { return len(d.list()) == 2 })
	expectSilence(t, w.client, "", server6, 80)
	if s := d.status(); s.Mode != "enforce" || len(s.Problems) != 0 {
		t.Errorf("mode %s, problems %q", s.Mode, s.Problems)
	}
}

// TestIgnoreFilesAppear ends the wait by the file alone.
func TestIgnoreFilesAppear(t *testing.T) {
	w := newWorld(t)
	file := newIgnoreFile(t, "later/portsentry.ignore")
	d := guard(t, w.server, ignoring(file))
	if _, err := touch(w.client, "", server4, 23); err == nil {
		t.Error("a decoy answers before the file is there")
	}
	if err := os.Mkdir(filepath.Dir(file.path), 0o700); err != nil {
		t.Fatal(err)
	}
	file.write("")
	eventually(t, "all is in force", soon, func() bool { return d.status().Mode == "enforce" })
	expectRead(t, w.client, "", server4, 23, "caught")
}

// TestIgnoreFilesReload turns to other files while the daemon runs.
func TestIgnoreFilesReload(t *testing.T) {
	w := newWorld(t)
	serve(t, w.server, ":80", "welcome")
	one := newIgnoreFile(t, "one")
	two := ignoreFile{t, filepath.Join(filepath.Dir(one.path), "two")}
	one.write("192.0.2.1\n")
	two.write("10.8.0.0/24\n")
	d := guard(t, w.server, ignoring(one))
	d.must("block", client4)
	d.configure(ignoring(two))
	d.must("reload")
	if got := d.sources(); len(got) != 0 {
		t.Errorf("%v are blocked after the reload, want nobody", got)
	}
	touchMany(w.client, server4)
	expectRead(t, w.client, "", server4, 80, "welcome")
	two.write("\n") // it is followed
	eventually(t, "the other file is read again", soon, func() bool { return d.status().Ignored.Listed == 0 })
	expectRead(t, w.client, "", server4, 23, "caught")
	eventually(t, "it is blocked", soon, func() bool { return len(d.list()) == 1 })
	d.configure("")
	d.must("reload")
	if s := d.status(); s.Ignored.Files != 0 || s.Ignored.Listed != 0 {
		t.Errorf("without files: %+v", s.Ignored)
	}
}

// TestIgnoreFilesLarge changes a file of 100,000 lines again and again while
// one who is always in it scans: there is no moment in which it is not ignored.
// Another is unblocked when it comes into it.
func TestIgnoreFilesLarge(t *testing.T) {
	w := newWorld(t)
	serve(t, w.server, ":80", "welcome")
	file := newIgnoreFile(t, "portsentry.ignore")
	lines := func(n int, more string) string {
		var b strings.Builder
		for i := range n {
			if i%4 == 0 {
				fmt.Fprintf(&b, "2001:db8:%x:%x::/64\n", 0x1000+i>>16, i&0xffff)
				continue
			}
			fmt.Fprintf(&b, "11.%d.%d.%d/%d\n", i>>16, i>>8&0xff, i&0xff, 32-i%3)
		}
		return b.String() + more
	}
	const many = 100000
	always := "10.8.0.0/24\n"
	file.write(lines(many, always))
	d := guard(t, w.server, ignoring(file))
	if s := d.status(); s.Ignored.Listed != many+1 {
		t.Fatalf("%d lines, want %d", s.Ignored.Listed, many+1)
	}
	d.must("block", "2001:db8:8::/64")

	stop := make(chan struct{})
	var g errgroup.Group
	scans := 0
	g.Go(func() error {
		for {
			select {
			case <-stop:
				return nil
			default:
				touchMany(w.client, server4)
				scans++
			}
		}
	})
	for i := range 3 {
		n, more := many-i*1000, always
		if i == 2 {
			more += "2001:db8:8::1\n2001:db8:8::/60\n"
		}
		began := time.Now()
		file.write(lines(n, more))
		want := n + strings.Count(more, "\n")
		eventually(t, "the file is taken", 3*soon, func() bool { return d.status().Ignored.Listed == want })
		t.Logf("%d lines in force after %v", want, time.Since(began))
	}
	for _, m := range regexp.MustCompile(`"ignored sources".*"took":"([^"]+)"`).FindAllStringSubmatch(d.log.String(), -1) {
		t.Logf("the controller was busy with a change for %s", m[1])
	}
	close(stop)
	_ = g.Wait()
	if got := d.sources(); len(got) != 0 || scans == 0 {
		t.Errorf("%v are blocked after %d scans, want nobody", got, scans)
	}
	expectRead(t, w.client, "", server4, 80, "welcome")
	expectRead(t, w.client, "", server6, 80, "welcome")
	if s := d.status(); s.Blocks.Made != 1 || s.Ignored.Events != 0 || s.Watched.Probes != 0 {
		t.Errorf("%d blocks made, %d events of ignored sources, %d probes, want the one block by hand", s.Blocks.Made, s.Ignored.Events, s.Watched.Probes)
	}
}
