package service

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"nftsentry/integration/netns"
)

// worst is how exposed the unit may be, in tenths, by systemd-analyze(1) of systemd 252.
const worst = "16"

func TestUnitScore(t *testing.T) {
	out, err := exec.Command(netns.Tool(t, "systemd-analyze"), "--no-pager", "security", "--offline=true", "--threshold="+worst, unitFile).CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if at := bytes.LastIndex(out, []byte("Overall")); at >= 0 {
		t.Logf("%s", out[at:])
	}
}

// TestUnitVerified has systemd read the unit, with the program under test in the place of the one that is installed.
func TestUnitVerified(t *testing.T) {
	data, err := os.ReadFile(unitFile)
	must(t, err)
	here := bytes.ReplaceAll(data, []byte("=/usr/sbin/nftsentry "), []byte("="+os.Getenv(programEnv)+" "))
	path := filepath.Join(t.TempDir(), "nftsentry.service")
	must(t, os.WriteFile(path, here, 0o644))
	out, err := exec.Command(netns.Tool(t, "systemd-analyze"), "--no-pager", "--man=no", "--generators=no", "verify", path).CombinedOutput()
	if err != nil || strings.Contains(string(out), filepath.Base(path)) {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestUnitPaths has the unit start on a host without some of the folders that it names: not every processor has /lib64.
func TestUnitPaths(t *testing.T) {
	paths := strings.Fields(strings.Join(unit(t)["ExecPaths"], " "))
	if !slices.Contains(paths, "/usr/sbin/nftsentry") {
		t.Errorf("ExecPaths=%q: the program is not among them", paths)
	}
	for _, path := range paths {
		if path != "/usr/sbin/nftsentry" && !strings.HasPrefix(path, "-/") {
			t.Errorf("ExecPaths= has %s, without which the unit would not start: put a - before it", path)
		}
	}
}

// TestUnitStarts holds what the unit is for: that it starts before the network, and is started again.
func TestUnitStarts(t *testing.T) {
	u := unit(t)
	for key, want := range map[string]string{
		"Type": "notify", "Before": "network.target", "After": "network-pre.target nftables.service firewalld.service nftsentry-hook.socket",
		"Restart": "on-failure", "RestartPreventExitStatus": "2 3", "StartLimitIntervalSec": "0", "User": "nftsentry", "Wants": "nftsentry-hook.service nftsentry-hook.socket",
		"CapabilityBoundingSet": "CAP_NET_ADMIN CAP_NET_BIND_SERVICE", "ExecReload": "/usr/sbin/nftsentry reload",
	} {
		if !slices.Equal(u[key], []string{want}) {
			t.Errorf("%s=%q, want %q", key, u[key], want)
		}
	}
	if u["PartOf"] != nil || u["Requires"] != nil {
		t.Error("the guard goes when another service does")
	}
}

// TestUsersAndFolders has systemd make what the files in contrib ask for, below another root.
func TestUsersAndFolders(t *testing.T) {
	root := t.TempDir()
	must(t, os.Mkdir(filepath.Join(root, "etc"), 0o755))
	for _, tool := range [][]string{
		{"systemd-sysusers", "../../contrib/sysusers.d/nftsentry.conf"},
		{"systemd-tmpfiles", "--create", "../../contrib/tmpfiles.d/nftsentry.conf"},
	} {
		path, err := filepath.Abs(tool[len(tool)-1])
		must(t, err)
		args := append([]string{"--root=" + root}, tool[1:len(tool)-1]...)
		out, err := exec.Command(netns.Tool(t, tool[0]), append(args, path)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", tool, err, out)
		}
	}
	passwd, err := os.ReadFile(filepath.Join(root, "etc/passwd"))
	must(t, err)
	for _, want := range []string{
		`(?m)^nftsentry:[^:]*:[1-9]\d*:[1-9]\d*:nftsentry, the guard:/var/lib/nftsentry:.*nologin$`,
		`(?m)^nftsentry-hook:[^:]*:[1-9]\d*:[1-9]\d*:nftsentry, its hooks:/:.*nologin$`,
	} {
		if !regexp.MustCompile(want).Match(passwd) {
			t.Errorf("no %s in\n%s", want, passwd)
		}
	}
	for dir, mode := range map[string]os.FileMode{"etc/nftsentry": 0o755, "var/lib/nftsentry": 0o755, "run/nftsentry": 0o750} {
		info, err := os.Stat(filepath.Join(root, dir))
		if err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v, want mode %v", dir, info, err, mode)
		}
	}
}

// TestModules has the names of the modules that the doctor asks for, but those that newer kernels have built in.
func TestModules(t *testing.T) {
	data, err := os.ReadFile("../../contrib/modules-load.d/nftsentry.conf")
	must(t, err)
	source, err := os.ReadFile("../../nft/feature.go")
	must(t, err)
	for _, m := range regexp.MustCompile(`module: "(\w+)"`).FindAllStringSubmatch(string(source), -1) {
		if m[1] != "nft_objref" && !regexp.MustCompile(`(?m)^`+m[1]+`$`).Match(data) {
			t.Errorf("%s is not loaded", m[1])
		}
	}
}
