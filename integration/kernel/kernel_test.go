//go:build kernel

package kernel

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"nftsentry/integration/netns"
)

// bootWithin is how long a kernel may take for all tests, on an emulated
// processor that is some ten times slower than the machine.
const bootWithin = 12 * time.Minute

// What is run: the tests of a package that match run, and not skip.
var plan = []struct{ dir, run, skip string }{
	// The kernel contract: the table, its elements, what the kernel tells of them.
	// Left out is what takes long and asks the kernel nothing new.
	{"nft", ".", "^(TestManyIgnored|TestIgnoredWithoutGap|TestLookFull|TestOwnFloodIsSilent|TestDamage|TestModules|Fuzz.*)$"},
	{"integration", only(
		"TestEverythingStalls", "TestContainer", "TestIgnored", "TestPrefix6", "TestTeardown", // decoys
		"TestNmapStealth", "TestNmapAck", "TestFirstPortBlocks", "TestKernelAlone", // what the kernel notices by itself
		"TestHeals", "TestResilienceReboot", // healed and restored
	), "^$"},
}

// only matches these tests.
func only(tests ...string) string { return "^(" + strings.Join(tests, "|") + ")$" }

// TestKernels boots each kernel and has it run the tests of the plan.
func TestKernels(t *testing.T) {
	kernels, err := filepath.Glob("../../bin/kernels/*")
	if err != nil {
		t.Fatal(err)
	}
	if len(kernels) == 0 {
		netns.Unavailable(t, "bin/kernels has not the kernels that integration/deps puts there")
	}
	base := root{t, t.TempDir()}
	fill(base)
	for _, kernel := range kernels {
		t.Run(filepath.Base(kernel), func(t *testing.T) {
			t.Parallel()
			boot(t, base, kernel)
		})
	}
}

// fill puts into a root all but the kernel's modules.
func fill(r root) {
	r.t.Helper()
	var text strings.Builder
	for _, p := range plan {
		fmt.Fprintln(&text, p.dir, p.dir+".test", p.run, p.skip)
	}
	for _, dir := range []string{"nft", "integration"} {
		build(r.t, "test", "-c", "-o", filepath.Join(r.dir, "test", dir+".test"), "nftsentry/"+dir)
		r.tree(filepath.Join("../..", dir, "testdata"), filepath.Join("test", dir, "testdata"))
	}
	r.write("test/plan", []byte(text.String()), 0o644)
	build(r.t, "build", "-o", filepath.Join(r.dir, "test/nftsentry"), "nftsentry/cmd/nftsentry")
	for _, tool := range []string{"nft", "ip", "nmap"} {
		r.program(netns.Tool(r.t, tool), filepath.Join("usr/sbin", tool))
	}
	for _, names := range []string{"/etc/protocols", "/etc/services"} { // as nft(8) prints them
		r.put(names, names)
	}
	r.tree("/usr/share/nmap", "usr/share/nmap")
	busybox := netns.Tool(r.t, "busybox")
	static(r.t, busybox)
	r.put(busybox, "bin/busybox")
	r.put(busybox, "sbin/modprobe") // the kernel loads modules by it
	r.put("testdata/init", "init")
}

func build(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
}

// boot runs the plan on a kernel, and expects every part to end well and to have
// run something.
func boot(t *testing.T, base root, kernel string) {
	r := root{t, t.TempDir()}
	r.tree(base.dir, ".")
	r.tree(filepath.Join(kernel, "lib"), "lib")
	image := filepath.Join(t.TempDir(), "initramfs")
	r.pack(image)
	console := start(t, filepath.Join(kernel, "vmlinuz"), image)
	if t.Failed() {
		return
	}
	if well := strings.Count(console, ".test ended with 0\n"); well != len(plan) {
		t.Errorf("%d of %d runs have ended well", well, len(plan))
	}
	passed := regexp.MustCompile(`(?m)^--- PASS`).FindAllString(console, -1)
	t.Logf("%s: %d tests passed, the longest in\n%s", filepath.Base(kernel), len(passed), longest(console))
	if t.Failed() || strings.Contains(console, "--- SKIP") || len(passed) < 50 {
		t.Errorf("the console:\n%s", console)
	}
}

// longest are the tests of a console that took more than ten seconds.
func longest(console string) string {
	return strings.Join(regexp.MustCompile(`(?m)^--- PASS: \S+ \(\d{2,}\.\d+s\)`).FindAllString(console, -1), "\n")
}

// start boots a kernel, waits until it has powered off, and returns what it wrote
// to its console.
func start(t *testing.T, kernel, image string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bootWithin)
	defer cancel()
	cmd := exec.CommandContext(ctx, netns.Tool(t, "qemu-system-x86_64"),
		"-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "2048", "-nic", "none", "-nodefaults", "-no-reboot",
		"-display", "none", "-serial", "stdio", "-kernel", kernel, "-initrd", image,
		"-append", "console=ttyS0 quiet panic=-1 rdinit=/init")
	var console bytes.Buffer
	cmd.Stdout, cmd.Stderr = &console, &console
	if err := cmd.Run(); err != nil {
		t.Errorf("qemu: %v\n%s", err, console.String())
	}
	return strings.ReplaceAll(console.String(), "\r\n", "\n")
}
