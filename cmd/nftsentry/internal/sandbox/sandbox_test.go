package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// folderEnv has this program enter a sandbox around a folder, do what the test cannot do itself any more afterwards, and
// print what came of it.
const folderEnv = "NFTSENTRY_TEST_FOLDER"

func TestMain(m *testing.M) {
	dir := os.Getenv(folderEnv)
	if dir == "" {
		os.Exit(m.Run())
	}
	if err := json.NewEncoder(os.Stdout).Encode(inside(dir)); err != nil {
		os.Exit(1)
	}
}

// An outcome is what came of something: "" if it was done.
type outcome map[string]string

func (o outcome) add(what string, err error) {
	o[what] = ""
	var errno unix.Errno
	if errors.As(err, &errno) {
		o[what] = unix.ErrnoName(errno)
	} else if err != nil {
		o[what] = err.Error()
	}
}

// inside works in a sandbox. Another process, which is in none, changes files meanwhile: see outside.
func inside(dir string) outcome {
	in := func(names ...string) string { return filepath.Join(append([]string{dir}, names...)...) }
	out := make(outcome)
	s, err := Enter(Rules{
		Follow: []string{in("etc", "conf"), in("links", "link"), in("soon", "later", "deep", "list")},
		Await:  []string{in("etc", "resolv")},
		Read:   []string{in("kernel"), in("folder"), in("missing"), "/proc/self"},
		Write:  []string{in("state")},
		Remove: []string{in("run")},
	})
	out.add("enter", err)
	if err != nil {
		return out
	}
	read := func(path string) error { _, err := os.ReadFile(path); return err }
	list := func(path string) error { _, err := os.ReadDir(path); return err }
	out.add("read the configuration", read(in("etc", "conf")))
	out.add("read what a link leads to", read(in("links", "link")))
	out.add("list a folder to read from", list(in("etc")))
	out.add("read a file", read(in("kernel")))
	out.add("list a folder", list(in("folder")))
	out.add("read in a folder", read(in("folder", "file")))
	out.add("read of the own process", read("/proc/self/stat"))
	out.add("list of the own process", list("/proc/self/fd"))
	out.add("read of the system", read("/proc/uptime"))
	out.add("write", os.WriteFile(in("state", "new"), []byte("text"), 0o600))
	out.add("write again", os.WriteFile(in("state", "new"), []byte("x"), 0o600))
	out.add("rename", os.Rename(in("state", "new"), in("state", "db")))
	out.add("list what is written", list(in("state")))
	out.add("make a folder", os.Mkdir(in("state", "sub"), 0o700))
	out.add("make a link", os.Symlink("x", in("state", "link")))
	out.add("remove a file", os.Remove(in("run", "sock")))
	out.add("make a file there", os.WriteFile(in("run", "sock"), nil, 0o600))
	out.add("write to the configuration", os.WriteFile(in("etc", "conf"), nil, 0o600))
	out.add("read elsewhere", read(in("elsewhere", "secret")))
	out.add("execute", exec.Command("/proc/self/exe").Run())
	out.add("execute what is written", exec.Command(in("state", "program")).Run())
	out.add("changes", outside())
	out.add("read the new configuration", read(in("etc", "conf")))
	out.add("read what has come", read(in("soon", "later", "deep", "list")))
	out.add("read what came for a link", read(in("links", "link")))
	out.add("read a link's new target", read(in("etc", "resolv")))
	for name, path := range map[string]string{
		"configuration": in("etc", "conf"), "link": in("links", "link"), "later": in("soon", "later", "deep", "list"), "new target": in("etc", "resolv"),
		"elsewhere": in("elsewhere", "secret"), "nowhere": in("elsewhere", "no", "such"), "relative target": in("etc", "relative"),
	} {
		if got := s.Reads(path); got {
			out["reads "+name] = "yes"
		} else {
			out["reads "+name] = "no"
		}
	}
	return out
}

// outside has the test change files, and waits until it has: it then closes our standard input.
func outside() error {
	fmt.Println("{}")
	_, err := io.ReadAll(os.Stdin)
	return err
}

func TestEnter(t *testing.T) {
	if _, err := ABI(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	dir := t.TempDir()
	in := func(names ...string) string { return filepath.Join(append([]string{dir}, names...)...) }
	put := func(names ...string) {
		path := in(names...)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, []byte("text"), 0o600))
	}
	must(t, os.Mkdir(in("soon"), 0o755))
	must(t, os.Mkdir(in("links"), 0o755))
	put("etc", "conf")
	put("kernel")
	put("folder", "file")
	put("state", "x")
	put("run", "sock")
	put("elsewhere", "secret")
	put("target", "file")
	put("other", "file")
	must(t, os.Symlink(in("target", "file"), in("links", "link")))
	must(t, os.Symlink("../target/file", in("etc", "resolv")))
	must(t, os.Symlink("../other/file", in("etc", "relative")))
	program, err := os.ReadFile("/bin/true")
	must(t, err)
	must(t, os.WriteFile(in("state", "program"), program, 0o755))

	got := visit(t, dir, func() {
		must(t, os.WriteFile(in("etc", ".new"), []byte("new"), 0o600))
		must(t, os.Rename(in("etc", ".new"), in("etc", "conf")))
		put("soon", "later", "deep", "list")
		must(t, os.Remove(in("links", "link")))
		put("links", "link")
		must(t, os.Remove(in("etc", "resolv")))
		must(t, os.Symlink(in("elsewhere", "secret"), in("etc", "resolv")))
	})
	const no = "EACCES"
	want := outcome{
		"enter": "", "read the configuration": "", "read what a link leads to": "", "list a folder to read from": no, "read a file": "",
		"list a folder": "", "read in a folder": "", "read of the own process": "", "list of the own process": "", "read of the system": no,
		"write": "", "write again": "", "rename": "", "list what is written": "", "make a folder": no, "make a link": no,
		"remove a file": "", "make a file there": no, "write to the configuration": no, "read elsewhere": no,
		"execute": no, "execute what is written": no, "changes": "",
		"read the new configuration": "", "read what has come": "", "read what came for a link": "", "read a link's new target": no,
		"reads configuration": "yes", "reads link": "yes", "reads later": "yes", "reads new target": "no", "reads elsewhere": "no",
		"reads nowhere": "yes", "reads relative target": "no",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("inside (-want +got):\n%s", diff)
	}
}

// visit runs this program around a folder, and makes changes when it asks for them.
func visit(t *testing.T, dir string, changes func()) (got outcome) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), folderEnv+"="+dir)
	stdin, err := cmd.StdinPipe()
	must(t, err)
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	answers := json.NewDecoder(stdout)
	must(t, answers.Decode(&struct{}{}))
	changes()
	must(t, stdin.Close())
	must(t, answers.Decode(&got))
	must(t, cmd.Wait())
	return got
}

func TestFolderOf(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	in := func(names ...string) string { return filepath.Join(append([]string{dir}, names...)...) }
	must(t, os.Mkdir(in("a"), 0o755))
	must(t, os.Symlink("a", in("b")))
	must(t, os.Symlink("../a/file", in("a", "up")))
	must(t, os.Symlink(in("none", "file"), in("dangling")))
	must(t, os.Symlink("round", in("round")))
	for _, tt := range []struct {
		path, want string
		there      bool
	}{
		{in("a", "file"), in("a"), true},
		{in("b", "file"), in("a"), true},
		{in("a", "up"), in("a"), true},
		{in("b", "up"), in("a"), true},
		{in("dangling"), dir, false},
		{in("none", "deeper", "file"), dir, false},
		{in("round"), dir, true},
		{"/file", "/", true},
	} {
		if got, there := folderOf(tt.path); got != tt.want || there != tt.there {
			t.Errorf("%s: %s, %t, want %s, %t", tt.path, got, there, tt.want, tt.there)
		}
	}
}

func TestMakeFolder(t *testing.T) {
	requireRoot(t)
	const uid, gid = 64124, 64125
	owner := func(path string) (int, int) {
		var st unix.Stat_t
		must(t, unix.Lstat(path, &st))
		return int(st.Uid), int(st.Gid)
	}
	dir := filepath.Join(t.TempDir(), "above", "state")
	must(t, MakeFolder(dir, 0o700, uid, gid))
	if u, g := owner(dir); u != uid || g != gid {
		t.Errorf("a new folder belongs to %d:%d", u, g)
	}

	old := t.TempDir()
	secret := filepath.Join(t.TempDir(), "secret")
	must(t, os.WriteFile(secret, nil, 0o600))
	must(t, os.WriteFile(filepath.Join(old, "file"), nil, 0o600))
	must(t, os.Symlink(secret, filepath.Join(old, "link")))
	must(t, os.Link(secret, filepath.Join(old, "hard")))
	must(t, os.Chmod(old, 0o755))
	must(t, MakeFolder(old, 0o700, uid, gid))
	for name, want := range map[string]int{"": uid, "file": uid, "hard": 0} {
		if u, _ := owner(filepath.Join(old, name)); u != want {
			t.Errorf("%q belongs to %d, want %d", name, u, want)
		}
	}
	if u, _ := owner(secret); u != 0 {
		t.Errorf("what a link leads to belongs to %d", u)
	}

	// The folder is the user's by now: what he puts there stays as it is.
	must(t, os.WriteFile(filepath.Join(old, "late"), nil, 0o600))
	must(t, MakeFolder(old, 0o700, uid, gid))
	if u, _ := owner(filepath.Join(old, "late")); u != 0 {
		t.Errorf("what came later belongs to %d", u)
	}
	must(t, Adopt(old))
	if u, _ := owner(filepath.Join(old, "late")); u != uid {
		t.Errorf("what root has made for the user belongs to %d", u)
	}
}

func TestMakeFolderRefuses(t *testing.T) {
	requireRoot(t)
	for name, prepare := range map[string]func(path string) error{
		"a folder of many": func(path string) error { return os.MkdirAll(filepath.Join(path, "sub"), 0o755) },
		"open to others":   func(path string) error { return errors.Join(os.Mkdir(path, 0o755), os.Chmod(path, 0o777)) },
		"a link":           func(path string) error { return os.Symlink(filepath.Dir(path), path) },
		"a file":           func(path string) error { return os.WriteFile(path, nil, 0o600) },
	} {
		path := filepath.Join(t.TempDir(), "x")
		must(t, prepare(path))
		before, err := os.Lstat(path)
		must(t, err)
		if err := MakeFolder(path, 0o700, 64124, 64124); err == nil {
			t.Errorf("%s: no error", name)
		}
		if after, err := os.Lstat(path); err != nil || after.Mode() != before.Mode() {
			t.Errorf("%s: %v, %v", name, after, err)
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil || st.Uid != 0 {
			t.Errorf("%s belongs to %d, %v", name, st.Uid, err)
		}
	}
}

func requireRoot(t *testing.T) {
	t.Helper()
	switch {
	case os.Geteuid() == 0:
	case os.Getenv("CI") == "true":
		t.Fatal("only root can give files away")
	default:
		t.Skip("only root can give files away")
	}
}

func TestFindUser(t *testing.T) {
	if u, err := FindUser("nobody"); err != nil || u.UID != 65534 || u.Name != "nobody" {
		t.Errorf("nobody: %+v, %v", u, err)
	}
	if _, err := FindUser("no-such-user"); !errors.Is(err, ErrNoUser) {
		t.Errorf("unknown: %v", err)
	}
	if _, err := FindUser("root"); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("root: %v", err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
