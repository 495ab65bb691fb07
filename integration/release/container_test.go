package release

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestContainerfile holds that the image is built by the version of Go that
// go.mod names, and of all packages that the program has.
func TestContainerfile(t *testing.T) {
	text, err := os.ReadFile("../../contrib/container/Containerfile")
	if err != nil {
		t.Fatal(err)
	}
	mod, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	want := regexp.MustCompile(`(?m)^go (\S+)$`).FindSubmatch(mod)
	got := regexp.MustCompile(`golang:(\S+) AS build`).FindSubmatch(text)
	if want == nil || got == nil || string(want[1]) != string(got[1]) {
		t.Errorf("go.mod has %q, and the Containerfile %q", want, got)
	}
	list := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{if .Main}}{{$.ImportPath}}{{end}}{{end}}", "nftsentry/cmd/nftsentry")
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	copied := copies(string(text))
	for pkg := range strings.FieldsSeq(string(out)) {
		if dir := strings.TrimPrefix(pkg, "nftsentry/"); !below(dir, copied) {
			t.Errorf("the Containerfile does not copy %s, which the program needs", dir)
		}
	}
	for dir := range copied {
		if _, err := os.Stat(filepath.Join("../..", dir)); err != nil {
			t.Errorf("the Containerfile copies %v", err)
		}
	}
}

// copies are the folders that lines such as "COPY cmd cmd" bring to where they
// were.
func copies(text string) map[string]bool {
	found := make(map[string]bool)
	for _, line := range regexp.MustCompile(`(?m)^COPY (\S+) (\S+)$`).FindAllStringSubmatch(text, -1) {
		if line[1] == line[2] {
			found[line[1]] = true
		}
	}
	return found
}

// below tells whether one of the folders is dir or above it.
func below(dir string, folders map[string]bool) bool {
	for ; dir != "."; dir = filepath.Dir(dir) {
		if folders[dir] {
			return true
		}
	}
	return false
}

// TestContainerRights holds that the three ways to run the image, and what is
// written of them, give it the same two capabilities and no more.
func TestContainerRights(t *testing.T) {
	for file, wants := range map[string][]string{
		"contrib/container/nftsentry.container": {"Network=host", "DropCapability=all", "AddCapability=CAP_NET_ADMIN CAP_NET_BIND_SERVICE", "NoNewPrivileges=true", "ReadOnly=true"},
		"contrib/container/compose.yaml":        {"network_mode: host", "cap_drop: [ALL]", "cap_add: [NET_ADMIN, NET_BIND_SERVICE]", "no-new-privileges:true", "read_only: true"},
		"docs/container.md":                     {"--network host", "--cap-drop all", "--cap-add NET_ADMIN,NET_BIND_SERVICE ", "--security-opt no-new-privileges", "--read-only"},
	} {
		text, err := os.ReadFile(filepath.Join("../..", file))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range append(wants, "/var/lib/nftsentry", "/run/nftsentry:mode=0750") {
			if !strings.Contains(string(text), want) {
				t.Errorf("%s does not have %q", file, want)
			}
		}
	}
}
