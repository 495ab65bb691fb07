package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"nftsentry/integration/netns"
)

// These tell the test binary that it is to become the program in a root folder
// as a container without anything else has it, and what that root has.
const (
	scratchEnv     = "NFTSENTRY_TEST_SCRATCH_PROGRAM" // file, without libraries
	scratchDirEnv  = "NFTSENTRY_TEST_SCRATCH_DIR"     // writable folder of the same name inside
	scratchProcEnv = "NFTSENTRY_TEST_SCRATCH_PROC"    // "yes" for a /proc, where nothing can be written
)

func init() {
	if os.Getenv(scratchEnv) != "" {
		fmt.Fprintln(os.Stderr, "the root of a container:", becomeScratch())
		os.Exit(1)
	}
}

// becomeScratch makes the root, gives up all capabilities but two, and becomes
// the program. It wants a mount namespace of its own, and returns only an error.
func becomeScratch() error {
	runtime.LockOSThread() // which has the capabilities that count
	dir := os.Getenv(scratchDirEnv)
	root := filepath.Join(dir, "root")
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	if err := fillScratch(root, dir); err != nil {
		return err
	}
	if err := unix.Chroot(root); err != nil {
		return err
	}
	if err := unix.Chdir("/"); err != nil {
		return err
	}
	if err := dropCapabilities(unix.CAP_NET_ADMIN, unix.CAP_NET_BIND_SERVICE); err != nil {
		return err
	}
	env := []string{"NOTIFY_SOCKET=" + os.Getenv("NOTIFY_SOCKET")}
	return unix.Exec("/nftsentry", os.Args[1:], env)
}

// fillScratch mounts an empty file system on a folder, which takes no more than
// the program, the folder that may be written, and /proc where that is wanted.
func fillScratch(root, dir string) error {
	if err := unix.Mount("none", root, "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("mount a tmpfs: %w", err)
	}
	program := filepath.Join(root, "nftsentry")
	if err := os.WriteFile(program, nil, 0o755); err != nil {
		return err
	}
	if err := bind(os.Getenv(scratchEnv), program, unix.MS_RDONLY); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
		return err
	}
	if err := bind(dir, filepath.Join(root, dir), 0); err != nil {
		return err
	}
	if os.Getenv(scratchProcEnv) != "" {
		proc := filepath.Join(root, "proc")
		if err := os.Mkdir(proc, 0o555); err != nil {
			return err
		}
		if err := bind("/proc", proc, unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC); err != nil {
			return err
		}
	}
	return unix.Mount("", root, "", unix.MS_REMOUNT|unix.MS_RDONLY, "")
}

// bind mounts a file or folder at another place.
func bind(from, to string, flags uintptr) error {
	how := uintptr(unix.MS_BIND)
	if from == "/proc" {
		how |= unix.MS_REC // a user namespace must not see what is below other mounts
	}
	if err := unix.Mount(from, to, "", how, ""); err != nil {
		return fmt.Errorf("mount %s on %s: %w", from, to, err)
	}
	if flags == 0 {
		return nil
	}
	var st unix.Statfs_t
	if err := unix.Statfs(to, &st); err != nil {
		return err
	}
	// A user namespace must keep the flags that the mount has already.
	kept := uintptr(st.Flags) & (unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME | unix.MS_RELATIME)
	if err := unix.Mount("", to, "", unix.MS_REMOUNT|unix.MS_BIND|kept|flags, ""); err != nil {
		return fmt.Errorf("protect %s: %w", to, err)
	}
	return nil
}

// dropCapabilities leaves to the program that this thread becomes no more
// capabilities than these, and no way to more.
func dropCapabilities(kept ...uintptr) error {
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		if slices.Contains(kept, c) {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil && err != unix.EINVAL { // a kernel may know fewer
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
}

// static builds the program as it is published: without libraries, and without
// the race detector, which needs some.
func static(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "nftsentry")
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", file, "nftsentry/cmd/nftsentry")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the program without libraries: %v\n%s", err, out)
	}
	return file
}

// wrapScratch makes the program one that runs in the root of a container.
func (p *program) wrapScratch(file, proc string) {
	p.wrap = []string{netns.Tool(p.t, "unshare"), "-m", netns.Tool(p.t, "env"),
		scratchEnv + "=" + file, scratchDirEnv + "=" + p.dir, scratchProcEnv + "=" + proc, os.Args[0]}
}

// TestScratchRoot guards from within a root folder that has the program and
// nothing else: no /etc, no /dev, no /tmp, nothing of /proc/sys that could be
// written, and of all capabilities only two.
func TestScratchRoot(t *testing.T) {
	netns.Require(t)
	file := static(t)
	for name, proc := range map[string]string{"without proc": "", "with a proc that cannot be written": "yes"} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			serve(t, w.server, ":8080", "welcome")
			p := newProgram(t, w.server, "log.compat = true\n")
			p.wrapScratch(file, proc)
			d := p.run()
			d.expectScratch(proc)
			_, _ = touch(w.client, "", server4, 23)
			if got := d.listed().Source; got != client4 {
				t.Errorf("blocked %s, want %s", got, client4)
			}
			expectSilence(t, w.client, "", server4, 8080)
			expectRead(t, w.router, "", server4, 8080, "welcome")
			if problems := d.status().Problems; len(problems) != 0 {
				t.Errorf("there are problems: %v", problems)
			}
			if code := d.end(unix.SIGTERM); code != 0 {
				t.Errorf("exit status %d, want 0", code)
			}
			expectSilence(t, w.client, "", server4, 8080) // while it is stopped

			d = p.run()
			if got := d.listed().Source; got != client4 {
				t.Errorf("blocked after a restart: %s, want %s", got, client4)
			}
		})
	}
}

// expectScratch fails unless the daemon has just the root and the rights that
// it is meant to have, and answers its own command in there.
func (d *daemon) expectScratch(proc string) {
	d.t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/root", d.cmd.Process.Pid))
	if err != nil {
		d.t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	want := []string{"nftsentry", regexp.MustCompile(`^/([^/]*)`).FindStringSubmatch(d.dir)[1]}
	if proc != "" {
		want = append(want, "proc")
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		d.t.Errorf("the root (-want +got):\n%s", diff)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	if err != nil {
		d.t.Fatal(err)
	}
	rights := fmt.Sprintf("%016x", 1<<unix.CAP_NET_ADMIN|1<<unix.CAP_NET_BIND_SERVICE)
	for _, set := range []string{"CapPrm", "CapEff", "CapBnd"} {
		if !regexp.MustCompile(`(?m)^` + set + `:\s+` + rights + `$`).Match(status) {
			d.t.Errorf("%s is not %s:\n%s", set, rights, status)
		}
	}
	inside := append(slices.Clone(d.wrap[1:]), "nftsentry", "version")
	if out := d.host.Output(d.t, d.wrap[0], inside...); !regexp.MustCompile(`^nftsentry \S+ \(`).MatchString(out) {
		d.t.Errorf("the program inside says %q", out)
	}
}
