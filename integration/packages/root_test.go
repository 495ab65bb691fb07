package packages

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nftsentry/integration/netns"
)

// rootEnv names a folder with an unpacked Debian that the tests install into;
// without it that is this host itself. Neither is written to.
const rootEnv = "NFTSENTRY_TEST_ROOT"

// A root is a Debian to install packages into: a layer over another one, with
// processes and a network of its own.
type root struct {
	t    *testing.T
	host *netns.Host
	dir  string
	init int // process, which is the first of those in the root
}

// newRoot makes a root whose network is a host's. With a service manager,
// systemctl starts and stops the daemon.
func newRoot(t *testing.T, host *netns.Host, manager bool) *root {
	t.Helper()
	netns.Require(t)
	layers := t.TempDir()
	mount(t, "tmpfs", layers, "tmpfs", 0, "mode=755")
	r := &root{t: t, host: host, dir: filepath.Join(layers, "root")}
	for _, name := range []string{"upper", "work", "root"} {
		if err := os.Mkdir(filepath.Join(layers, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	lower := os.Getenv(rootEnv)
	if lower == "" {
		lower = "/"
	}
	mount(t, "overlay", r.dir, "overlay", 0, fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work", lower, layers, layers))
	mount(t, "/dev", r.path("dev"), "", unix.MS_BIND|unix.MS_REC, "")
	mount(t, "tmpfs", r.path("run"), "tmpfs", 0, "mode=755")
	mount(t, "tmpfs", r.path("tmp"), "tmpfs", 0, "mode=1777")
	// What others install on this host meanwhile changes these files, which a layer does not bear.
	mount(t, "tmpfs", r.path("var/lib/dpkg"), "tmpfs", 0, "mode=755")
	run(t, "cp", "-a", filepath.Join(lower, "var/lib/dpkg")+"/.", r.path("var/lib/dpkg"))
	r.clean()
	if manager {
		r.write("usr/bin/systemctl", string(read(t, "testdata/systemctl")), 0o755)
		r.write("run/systemd/system/.keep", "", 0o644)
	}
	r.start()
	return r
}

func mount(t *testing.T, what, where, kind string, flags uintptr, data string) {
	t.Helper()
	if err := unix.Mount(what, where, kind, flags, data); err != nil {
		t.Fatalf("mount %s at %s: %v", what, where, err)
	}
	t.Cleanup(func() { _ = unix.Unmount(where, unix.MNT_DETACH) })
}

// clean takes away what this host may have of ours or of others that matter.
func (r *root) clean() {
	r.t.Helper()
	for _, name := range []string{
		"usr/sbin/policy-rc.d",       // forbids services to start
		"var/lib/man-db/auto-update", // looks at all manual pages, for seconds
		"etc/nftsentry", "var/lib/nftsentry", "etc/portsentry", "etc/portsentry.conf", "usr/local/etc/portsentry.conf",
	} {
		if err := os.RemoveAll(r.path(name)); err != nil {
			r.t.Fatal(err)
		}
	}
}

// start starts the first process, which takes in the children of others and
// ends with the test, and all others in the root with it.
func (r *root) start() {
	r.t.Helper()
	cmd := r.host.Command(netns.Tool(r.t, "unshare"), "--mount", "--pid", "--fork", "--kill-child", "chroot", r.dir,
		"/bin/sh", "-c", "mount -t proc proc /proc && echo ready && while :; do sleep 1; done")
	out, err := cmd.StdoutPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	r.host.Start(r.t, cmd)
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		r.t.Fatalf("the root does not start: %q, %v", line, err)
	}
	r.init = child(r.t, cmd.Process.Pid)
}

// child is the one child of a process.
func child(t *testing.T, pid int) int {
	t.Helper()
	list := strings.Fields(string(read(t, fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))))
	if len(list) != 1 {
		t.Fatalf("process %d has children %q, want one", pid, list)
	}
	n, err := strconv.Atoi(list[0])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// path is that of a file as the test sees it.
func (r *root) path(name string) string { return filepath.Join(r.dir, name) }

func (r *root) write(name, text string, mode os.FileMode) {
	r.t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(r.path(name)), 0o755), os.RemoveAll(r.path(name))); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(r.path(name), []byte(text), mode); err != nil {
		r.t.Fatal(err)
	}
}

// exists tells whether there is a file.
func (r *root) exists(name string) bool {
	_, err := os.Lstat(r.path(name))
	return err == nil
}

// command is one to run in the root, with no other environment than what is named.
func (r *root) command(env []string, args ...string) *exec.Cmd {
	r.t.Helper()
	cmd := r.host.Command(netns.Tool(r.t, "nsenter"), append([]string{"--target", strconv.Itoa(r.init), "--mount", "--pid", "--root", "--wd"}, args...)...)
	cmd.Env = append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C"}, env...)
	return cmd
}

// try runs a command in the root, and returns all that it says.
func (r *root) try(env []string, args ...string) (string, error) {
	r.t.Helper()
	cmd := r.command(env, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = time.Second // what it has started goes on
	r.host.Start(r.t, cmd)
	err := cmd.Wait()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil
	}
	return out.String(), err
}

// must is try for what has to succeed.
func (r *root) must(args ...string) string {
	r.t.Helper()
	return r.mustAs(nil, args...)
}

// mustAs is must with an environment.
func (r *root) mustAs(env []string, args ...string) string {
	r.t.Helper()
	out, err := r.try(env, args...)
	if err != nil {
		r.t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// bring copies a package into the root, and returns its path there.
func (r *root) bring(file string) string {
	r.t.Helper()
	name := filepath.Join("tmp", filepath.Base(file))
	r.write(name, string(read(r.t, file)), 0o644)
	return "/" + name
}

// tables are those of the kernel in the network of the root.
func (r *root) tables() string {
	r.t.Helper()
	return r.host.Output(r.t, netns.Tool(r.t, "nft"), "list", "tables")
}

// run runs a program outside, and returns its standard output.
func run(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(name, args...)
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s%s", cmd, err, &out, &problems)
	}
	return out.Bytes()
}
