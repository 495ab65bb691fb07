package hook

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/sys/unix"
)

// slow is how long a test waits for what should happen at once.
const slow = 30 * time.Second

// trusting is a trust for the files of a test, and their folder.
func trusting(t testing.TB) (trust, string) {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return trust{base: dir, owner: uint32(os.Getuid())}, dir
}

// put writes a file of a mode, whatever the umask.
func put(t testing.TB, file, text string, mode os.FileMode) string {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, mode); err != nil {
		t.Fatal(err)
	}
	return file
}

// shell makes a program of a shell script.
func shell(t testing.TB, dir, text string) string {
	t.Helper()
	return put(t, filepath.Join(dir, "hook.sh"), "#!/bin/sh\n"+text, 0o755)
}

func probe() Event {
	return Event{
		On: Block, Source: netip.MustParsePrefix("2001:db8:1:2::/64"), Address: netip.MustParseAddr("2001:db8:1:2::7"), Port: 23,
		Protocol: "tcp", Kind: "connect", Evidence: "proven", Mode: "stcp", Origin: "decoy", Comment: "a $(reboot) 'b' \"c\"",
		Strikes: 2, Since: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Until: time.Date(2026, 1, 2, 4, 4, 5, 0, time.UTC),
	}
}

// TestScript shows what a script gets: arguments, environment, files and folder, and nothing else.
func TestScript(t *testing.T) {
	t.Setenv("NFTSENTRY_SECRET", "inherited")
	tr, dir := trusting(t)
	path := shell(t, dir, `for a; do echo "arg $a"; done; env | grep -vE '^(NFTSENTRY_RUN|PWD|OLDPWD|SHLVL|_)=' | sort; pwd; cat; echo to stderr >&2; exit 3`)
	s := &runs{tr, []string{path, "$TARGET$", "x$PORT$/$PROTOCOL$-$KIND$y", "$MODE$$MODE$", "$(id)", "$TARGET", "a b"}, nil, zap.NewNop()}
	err := s.do(t.Context(), &job{events: []Event{probe()}})
	var program *programError
	if !errors.As(err, &program) || !strings.HasSuffix(err.Error(), "hook.sh: exit status 3") {
		t.Fatalf("error %v, want the exit status", err)
	}
	want := `arg 2001:db8:1:2::7
arg x23/tcp-connecty
arg stcpstcp
arg $(id)
arg $TARGET
arg a b
NFTSENTRY_COMMENT=a $(reboot) 'b' "c"
NFTSENTRY_EVENT=block
NFTSENTRY_EVIDENCE=proven
NFTSENTRY_KIND=connect
NFTSENTRY_MODE=stcp
NFTSENTRY_PORT=23
NFTSENTRY_PROTOCOL=tcp
NFTSENTRY_SINCE=2026-01-02T03:04:05Z
NFTSENTRY_SOURCE=2001:db8:1:2::/64
NFTSENTRY_STRIKES=2
NFTSENTRY_TARGET=2001:db8:1:2::7
NFTSENTRY_UNTIL=2026-01-02T04:04:05Z
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
/
to stderr
`
	if diff := cmp.Diff(want, program.output); diff != "" {
		t.Errorf("output (-want +got):\n%s", diff)
	}
}

// TestOutputLogged shows what is logged of programs that fail and of those that do not.
func TestOutputLogged(t *testing.T) {
	tr, dir := trusting(t)
	path := shell(t, dir, "printf 'a\\033[2Jb\\n'; exit $1")
	core, logs := observer.New(zap.DebugLevel)
	var cfg Config
	for _, status := range []string{"0", "7"} {
		cfg.Exec = append(cfg.Exec, Exec{Common: Common{[]On{Block}, slow, Rate{60, time.Minute}}, Command: []string{path, status}})
	}
	r, err := newRunner(cfg, zap.New(core), tr)
	if err != nil {
		t.Fatal(err)
	}
	stop := running(t, r)
	r.Tell(block(1))
	until(t, "both have run", func() bool { s := r.Stats(); return s[0].Done == 1 && s[1].Failed == 1 })
	stop()
	for message, level := range map[string]string{"hook program has run": "debug", "hook failed": "error"} {
		all := logs.FilterMessage(message).All()
		if len(all) != 1 || all[0].Level.String() != level {
			t.Fatalf("%s: %v", message, all)
		}
		if got := all[0].ContextMap(); got["output"] != `"a\x1b[2Jb\n"` || got["target"] != "10.0.0.1" || got["event"] != "block" {
			t.Errorf("%s: %v", message, got)
		}
	}
}

// TestSucceeds runs a program that is no script, and one that prints without end.
func TestSucceeds(t *testing.T) {
	tr, dir := trusting(t)
	data, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	out, err := tr.run(t.Context(), command{path: put(t, filepath.Join(dir, "true"), string(data), 0o700)})
	if err != nil || len(out) != 0 {
		t.Errorf("%q, %v", out, err)
	}
	out, err = tr.run(t.Context(), command{path: shell(t, dir, "head -c 1000000 /dev/zero | tr '\\0' x")})
	if err != nil || len(out) != maxOutput {
		t.Errorf("%d bytes of output are kept, want %d; %v", len(out), maxOutput, err)
	}
	out, err = tr.run(t.Context(), command{path: shell(t, dir, "cat"), stdin: []byte("a mail")})
	if err != nil || string(out) != "a mail" {
		t.Errorf("%q, %v", out, err)
	}
	if kids := children(t); len(kids) > 0 {
		t.Errorf("zombies: %v", kids)
	}
}

// children are the processes that this one has started and not waited for.
func children(t *testing.T) (out []string) {
	t.Helper()
	files, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		data, _ := os.ReadFile(file) // of a thread that may be gone
		out = append(out, strings.Fields(string(data))...)
	}
	return out
}

// A deadline is a context that ends, as at its deadline, when it is told to.
type deadline struct {
	context.Context
	done chan struct{}
}

func (d *deadline) Done() <-chan struct{} { return d.done }

func (d *deadline) Err() error {
	select {
	case <-d.done:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

// TestTimeout kills programs that hang, in every way, with all that they have started.
func TestTimeout(t *testing.T) {
	for name, text := range map[string]string{
		"hangs":              "sleep 1000",
		"ignores TERM":       "trap '' TERM; sleep 1000; sleep 1000; sleep 1000",
		"forks":              "sleep 1000 & sleep 1001 & (trap '' TERM; sleep 1002; sleep 1003) & wait",
		"leaves its group":   "setsid sleep 1000 & setsid sh -c 'sleep 1001 & sleep 1002' & sleep 1003",
		"leaves a daemon":    "(setsid sleep 1000 &) & sleep 1003",
		"holds its output":   "setsid sleep 1000 & sleep 1001",
		"forks and forks":    "f() { setsid sleep 1000 & }; while :; do f; sleep 0.05; done",
		"starts anew at end": "trap 'setsid sleep 1000 & exit' TERM; sleep 1001 & wait",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tr, dir := trusting(t)
			file := filepath.Join(dir, "pid")
			path := shell(t, dir, "echo $$ >"+file+"; "+text)
			unique := fmt.Sprintf("TEST=%s-%d", t.Name(), time.Now().UnixNano())
			timeout := &deadline{t.Context(), make(chan struct{})}
			ended := make(chan error, 1)
			go func() {
				_, err := tr.run(timeout, command{path: path, env: []string{unique}})
				ended <- err
			}()
			until(t, "the script begins", func() bool { _, err := os.Stat(file); return err == nil })
			time.Sleep(200 * time.Millisecond) // for it to start others
			began := time.Now()
			close(timeout.done)
			if err := <-ended; !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("error %v", err)
			}
			if took := time.Since(began); took > slow {
				t.Errorf("it took %v", took)
			}
			left, _, err := marked(unique)
			if err != nil || len(left) > 0 {
				t.Errorf("processes that are left: %v, %v", left, err)
			}
		})
	}
}

// TestLeftBehind kills what a program that ends well leaves behind.
func TestLeftBehind(t *testing.T) {
	tr, dir := trusting(t)
	path := shell(t, dir, "sleep 1000 & (setsid sleep 1001 &); echo done")
	unique := fmt.Sprintf("TEST=%s-%d", t.Name(), time.Now().UnixNano())
	out, err := tr.run(t.Context(), command{path: path, env: []string{unique}})
	if err != nil || string(out) != "done\n" {
		t.Errorf("%q, %v", out, err)
	}
	if left, _, err := marked(unique); err != nil || len(left) > 0 {
		t.Errorf("processes that are left: %v, %v", left, err)
	}
}

// TestStop gives a running program its second when the Runner ends, and no more.
func TestStop(t *testing.T) {
	tr, dir := trusting(t)
	ready := filepath.Join(dir, "ready")
	path := shell(t, dir, "trap '' TERM; touch "+ready+"; sleep 1000; sleep 1000")
	r, err := newRunner(Config{Exec: []Exec{{Common: Common{[]On{Block}, time.Hour, Rate{60, time.Minute}}, Command: []string{path}}}}, zap.NewNop(), tr)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	r.Tell(block(1))
	until(t, "the program runs", func() bool { _, err := os.Stat(ready); return err == nil })
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(slow):
		t.Fatal("the Runner does not end")
	}
	if s := r.Stats()[0]; s.Failed != 1 || s.Running != 0 {
		t.Errorf("%+v", s)
	}
}

// until waits for something to become true.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(slow); !is(); {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", slow, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// TestRefused shows which programs are refused, at the start and when they run.
func TestRefused(t *testing.T) {
	tr, dir := trusting(t)
	sub := filepath.Join(dir, "a", "b")
	if err := os.MkdirAll(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	path := shell(t, sub, "echo ran")
	link := filepath.Join(dir, "link")
	for _, pair := range [][2]string{{path, link}, {sub, filepath.Join(dir, "folder")}, {"a/b/../b/./hook.sh", filepath.Join(dir, "relative")},
		{"loop", filepath.Join(dir, "loop")}, {"/nonexistent/x", filepath.Join(dir, "dangling")}} {
		if err := os.Symlink(pair[0], pair[1]); err != nil {
			t.Fatal(err)
		}
	}
	world := filepath.Join(dir, "world")
	if err := os.Mkdir(world, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(path, filepath.Join(world, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(world, 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, path string
		mode, up   os.FileMode // of the file and of the folder above it
		owner      uint32
		want       string // "" runs
	}{
		{"plain", path, 0o755, 0o755, tr.owner, ""},
		{"for the owner only", path, 0o700, 0o700, tr.owner, ""},
		{"by a link", link, 0o755, 0o755, tr.owner, ""},
		{"by a link of a folder", filepath.Join(dir, "folder", "hook.sh"), 0o755, 0o755, tr.owner, ""},
		{"by a relative link", filepath.Join(dir, "relative"), 0o755, 0o755, tr.owner, ""},
		{"all may write", path, 0o777, 0o755, tr.owner, "others than root may write to this file (mode 0777): chmod go-w"},
		{"the group may write", path, 0o775, 0o755, tr.owner, "others than root may write to this file (mode 0775)"},
		{"all may write to the folder", path, 0o755, 0o777, tr.owner, "others than root may write to this folder (mode 0777)"},
		{"the same by a link", link, 0o755, 0o777, tr.owner, "others than root may write to this folder (mode 0777)"},
		{"in a sticky folder", path, 0o755, 0o777 | os.ModeSticky, tr.owner, "others than root may write to this folder (mode 1777)"},
		{"by a link that others can put elsewhere", filepath.Join(world, "link"), 0o755, 0o755, tr.owner, "world: others than root may write"},
		{"of somebody else", path, 0o755, 0o755, tr.owner + 1, "is not root's but that of uid"},
		{"not executable", path, 0o644, 0o755, tr.owner, "is no program: nobody may execute it"},
		{"a folder", sub, 0o755, 0o755, tr.owner, "is a folder"},
		{"a file as a folder", path + "/x", 0o755, 0o755, tr.owner, "is no folder"},
		{"missing", path + "x", 0o755, 0o755, tr.owner, "no such file"},
		{"a loop", filepath.Join(dir, "loop"), 0o755, 0o755, tr.owner, "too many symbolic links"},
		{"dangling", filepath.Join(dir, "dangling"), 0o755, 0o755, tr.owner, "no such file"},
		{"a device", "/dev/null", 0o755, 0o755, tr.owner, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := errors.Join(os.Chmod(path, tt.mode), os.Chmod(sub, tt.up)); err != nil {
				t.Fatal(err)
			}
			own := tr
			own.owner = tt.owner
			out, err := own.run(t.Context(), command{path: tt.path})
			if tt.path == "/dev/null" {
				if err == nil {
					t.Error("a device was run")
				}
				return
			}
			if tt.want == "" && (err != nil || string(out) != "ran\n") {
				t.Errorf("%q, %v, want it to run", out, err)
			}
			if tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || len(out) > 0) {
				t.Errorf("%q, %v, want %s", out, err, tt.want)
			}
			cfg := Config{Exec: []Exec{{Common: Common{[]On{Block}, time.Second, Rate{1, time.Second}}, Command: []string{tt.path}}}}
			if _, err := newRunner(cfg, zap.NewNop(), own); (err == nil) != (tt.want == "") {
				t.Errorf("at the start: %v", err)
			}
		})
	}
}

// TestRefusedByDefault shows that the rules hold from the root of the file system on.
func TestRefusedByDefault(t *testing.T) {
	_, dir := trusting(t)
	path := shell(t, dir, "echo ran")
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	_, err := trust{}.program(path)
	if err == nil || !strings.Contains(err.Error(), "others than root may write to this folder") && !strings.Contains(err.Error(), "is not root's") {
		t.Errorf("error %v", err)
	}
}

// TestSwapped runs what was looked at, though its name has come to mean something else.
func TestSwapped(t *testing.T) {
	tr, dir := trusting(t)
	path := shell(t, dir, "echo the first")
	f, err := tr.program(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	shell(t, dir, "echo another")
	p, err := command{path: path}.prepare(f)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	out, err := p.run(t.Context())
	if err != nil || string(out) != "the first\n" {
		t.Errorf("%q, %v", out, err)
	}
}

// TestMarked does not take a prefix, or what stands in a value, for a mark.
func TestMarked(t *testing.T) {
	tr, dir := trusting(t)
	path := shell(t, dir, "grep -c . /proc/self/environ >/dev/null; while [ ! -e "+filepath.Join(dir, "go")+" ]; do sleep 0.02; done")
	ended := make(chan error, 1)
	go func() {
		_, err := tr.run(t.Context(), command{path: path, env: []string{"A=B=c", "X=" + dir}})
		ended <- err
	}()
	until(t, "the program runs", func() bool { found, _, _ := marked("X=" + dir); return len(found) > 0 })
	for _, mark := range []string{"B=c", "X=" + dir[:len(dir)-1], "=" + dir} {
		if found, _, err := marked(mark); err != nil || len(found) > 0 {
			t.Errorf("%s is found in %v, %v", mark, found, err)
		}
	}
	put(t, filepath.Join(dir, "go"), "", 0o600)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestSecret(t *testing.T) {
	tr, dir := trusting(t)
	file := filepath.Join(dir, "password")
	for _, tt := range []struct {
		text string
		mode os.FileMode
		want string
		err  string
	}{
		{"geheim\n", 0o600, "geheim", ""},
		{"geheim", 0o400, "geheim", ""},
		{"ge heim\r\nmore\n", 0o640, "ge heim", ""},
		{"geheim\n", 0o644, "", "everybody may read this password (mode 0644): chmod o= "},
		{"geheim\n", 0o660, "", "others than root may write to this file"},
		{"\n", 0o600, "", "has no password in its first line"},
		{"", 0o600, "", "has no password in its first line"},
	} {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		put(t, file, tt.text, 0o600)
		if err := os.Chmod(file, tt.mode); err != nil {
			t.Fatal(err)
		}
		got, err := tr.secret(file)
		if got != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%q with mode %o: %q, %v, want %q, %s", tt.text, tt.mode, got, err, tt.want, tt.err)
		}
	}
	if err := unix.Mkfifo(file+".fifo", 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := tr.secret(file + ".fifo"); err == nil || !strings.Contains(err.Error(), "is no file") {
		t.Errorf("a pipe: %v", err)
	}
}

// TestWhen tells programs of a block before or after it, never both.
func TestWhen(t *testing.T) {
	tr, dir := trusting(t)
	path := shell(t, dir, "")
	common := Common{[]On{Block, Unblock}, time.Second, Rate{1, time.Second}}
	for before, want := range map[bool][]On{false: {Block, Unblock}, true: {Unblock, Before}} {
		sp, err := execSpec(Exec{Common: common, Command: []string{path}, Before: before}, tr, nil, zap.NewNop())
		if err != nil {
			t.Fatal(err)
		}
		var got []On
		for _, on := range []On{Block, Unblock, Run, Before} {
			if sp.on[on] {
				got = append(got, on)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("before %v (-want +got):\n%s", before, diff)
		}
	}
}
