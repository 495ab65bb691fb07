package release

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"debug/buildinfo"
	"debug/elf"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// What the test's release is called, and when its commit was made.
const (
	version, commit = "1.2.3", "0123456789ab"
	epoch           = 1700000000
)

// name is that of the archive without its ending, and of the folder in it.
var name = "nftsentry-" + version + "-linux-" + runtime.GOARCH

// TestRelease builds a release for this architecture, but for the packages, and
// looks at all of it. Then it builds it once more elsewhere.
func TestRelease(t *testing.T) {
	dist := t.TempDir()
	parts := []string{"archives", "sbom", "checksums"}
	if !fetched(t) {
		parts = []string{"archives", "checksums"}
	}
	build(t, "../..", dist, parts...)
	program := testArchive(t, dist)
	t.Run("program", func(t *testing.T) { testProgram(t, program) })
	t.Run("sbom", func(t *testing.T) {
		if !slices.Contains(parts, "sbom") {
			t.Skip("cyclonedx-gomod cannot be fetched")
		}
		testSBOM(t, dist, program)
	})
	t.Run("reproducible", func(t *testing.T) { testReproducible(t, dist, parts) })
	t.Run("checksums", func(t *testing.T) { testChecksums(t, dist) })
}

// fetched tells whether there is the tool that makes the SBOM. In CI there has to be.
func fetched(t *testing.T) bool {
	t.Helper()
	script, err := os.ReadFile("../../contrib/release/build")
	if err != nil {
		t.Fatal(err)
	}
	tool := regexp.MustCompile(`(?m)^cyclonedx=(\S+)/cmd/cyclonedx-gomod@(\S+)$`).FindSubmatch(script)
	if tool == nil {
		t.Fatal("contrib/release/build does not say which cyclonedx-gomod it wants")
	}
	out, err := exec.Command("go", "mod", "download", fmt.Sprintf("%s@%s", tool[1], tool[2])).CombinedOutput()
	if err != nil && os.Getenv("CI") == "true" {
		t.Fatalf("go mod download: %v\n%s", err, out)
	}
	return err == nil
}

// build runs the script of a tree.
func build(t *testing.T, root, dist string, parts ...string) {
	t.Helper()
	cmd := exec.Command(filepath.Join(root, "contrib/release/build"), parts...)
	cmd.Env = append(os.Environ(), "DIST="+dist, "ARCHES="+runtime.GOARCH,
		"VERSION=v"+version, "COMMIT="+commit, fmt.Sprintf("SOURCE_DATE_EPOCH=%d", epoch))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
}

// testArchive looks at names, owners, times, modes and contents, and returns the
// program.
func testArchive(t *testing.T, dist string) (program []byte) {
	t.Helper()
	f, err := os.Open(filepath.Join(dist, name+".tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zip, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	if zip.Name != "" || !zip.ModTime.IsZero() {
		t.Errorf("gzip has a name or a time: %q, %v", zip.Name, zip.ModTime)
	}
	var names []string
	for archive := tar.NewReader(zip); ; {
		h, err := archive.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
		expectHeader(t, h)
		content, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		file := strings.TrimPrefix(h.Name, name+"/")
		expectContent(t, file, content)
		if file == "nftsentry" {
			program = content
		}
	}
	if !slices.IsSorted(names) {
		t.Errorf("the names are not sorted: %q", names)
	}
	for _, want := range []string{
		"nftsentry", "LICENSE", "LICENSES.modules", "README.md", "CHANGELOG.md", "reference.toml", "docs/container.md",
		"man/nftsentry.8", "man/nftsentry-run.8", "man/nftsentry.toml.5", "contrib/container/Containerfile",
		"completions/nftsentry.bash", "completions/_nftsentry", "completions/nftsentry.fish",
	} {
		if !slices.Contains(names, name+"/"+want) {
			t.Errorf("there is no %s in the archive", want)
		}
	}
	return program
}

// expectHeader fails unless a file of the archive looks the same whoever has
// packed it, wherever.
func expectHeader(t *testing.T, h *tar.Header) {
	t.Helper()
	mode := int64(0o644)
	switch {
	case h.Typeflag == tar.TypeDir, h.Name == name+"/nftsentry", h.Name == name+"/contrib/openrc/nftsentry":
		mode = 0o755
	}
	want := fmt.Sprintf("%o of %d:%d, named \"\" and \"\", of %v", mode, 0, 0, time.Unix(epoch, 0))
	got := fmt.Sprintf("%o of %d:%d, named %q and %q, of %v", h.Mode, h.Uid, h.Gid, h.Uname, h.Gname, h.ModTime)
	if got != want {
		t.Errorf("%s is %s, want %s", h.Name, got, want)
	}
	if !strings.HasPrefix(h.Name, name+"/") {
		t.Errorf("%s is not below %s", h.Name, name)
	}
}

// expectContent fails unless a file of the archive has what it should.
func expectContent(t *testing.T, file string, content []byte) {
	t.Helper()
	wants := map[string]string{
		"LICENSES.modules":           "\ngo.etcd.io/bbolt\n\n",
		"completions/nftsentry.bash": "# bash completion V2 for nftsentry",
		"completions/_nftsentry":     "#compdef nftsentry",
		"completions/nftsentry.fish": "# fish completion for nftsentry",
	}
	if want := wants[file]; !bytes.Contains(content, []byte(want)) {
		t.Errorf("%s does not have %q", file, want)
	}
	if file == "reference.toml" {
		want, err := os.ReadFile("../../conf/reference.toml")
		if err != nil || !bytes.Equal(content, want) {
			t.Errorf("reference.toml is another one than that of the tree: %v", err)
		}
	}
}

// testProgram runs the program of the archive, and looks what it is made of.
func testProgram(t *testing.T, program []byte) {
	file := filepath.Join(t.TempDir(), "nftsentry")
	if err := os.WriteFile(file, program, 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(file, "version").CombinedOutput()
	want := fmt.Sprintf("nftsentry %s (%s, linux/%s, commit %s)\n", version, runtime.Version(), runtime.GOARCH, commit)
	if err != nil || string(out) != want {
		t.Errorf("nftsentry version says %q, %v, want %q", out, err, want)
	}
	e, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range e.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("the program wants libraries: it has %v", p.Type)
		}
	}
	if root, err := filepath.Abs("../.."); err != nil || bytes.Contains(program, []byte(root+"/cmd")) {
		t.Errorf("the program has the path of the tree it was built in: %s, %v", root, err)
	}
}

// sbom is what the test reads of a CycloneDX document.
type sbom struct {
	Format   string `json:"bomFormat"`
	Serial   string `json:"serialNumber"`
	Metadata struct {
		Timestamp  string
		Component  struct{ Name, Version string }
		Properties []struct{ Name, Value string }
	}
	Components []struct {
		Name, Version string
		Evidence      struct{ Licenses []json.RawMessage }
	}
}

// testSBOM compares the document with what the linker has left in the program.
func testSBOM(t *testing.T, dist string, program []byte) {
	data, err := os.ReadFile(filepath.Join(dist, name+".cdx.json"))
	if err != nil {
		t.Fatal(err)
	}
	var s sbom
	if err := json.Unmarshal(data, &s); err != nil {
		t.Fatal(err)
	}
	if s.Format != "CycloneDX" || s.Serial != "" || s.Metadata.Timestamp != "" {
		t.Errorf("format %q, serial number %q, timestamp %q", s.Format, s.Serial, s.Metadata.Timestamp)
	}
	if c := s.Metadata.Component; c.Name != "nftsentry" || c.Version != "v"+version {
		t.Errorf("it is about %s %s, want nftsentry v%s", c.Name, c.Version, version)
	}
	sum := fmt.Sprintf("%x", sha256.Sum256(program))
	if !slices.Contains(s.Metadata.Properties, struct{ Name, Value string }{"cdx:gomod:binary:hash:SHA-256", sum}) {
		t.Errorf("it is not about the program with the checksum %s", sum)
	}
	info, err := buildinfo.Read(bytes.NewReader(program))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"std " + runtime.Version()}
	for _, module := range info.Deps {
		want = append(want, module.Path+" "+module.Version)
	}
	var got []string
	for _, c := range s.Components {
		got = append(got, c.Name+" "+c.Version)
		if len(c.Evidence.Licenses) == 0 && c.Name != "std" {
			t.Errorf("%s has no licence", c.Name)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("modules (-program +document):\n%s", diff)
	}
}

// testReproducible builds the same once more, of a copy of the tree in another
// folder, with other times, modes and no git.
func testReproducible(t *testing.T, dist string, parts []string) {
	copied, again := t.TempDir(), t.TempDir()
	out, err := exec.Command("cp", "-R", "../../README.md", "../../CHANGELOG.md", "../../LICENSE", "../../go.mod", "../../go.sum", "../../cmd",
		"../../conf", "../../contrib", "../../controller", "../../docs", "../../integration", "../../listener", "../../nft", "../../state", copied).CombinedOutput()
	if err != nil {
		t.Fatalf("copy the tree: %v\n%s", err, out)
	}
	if err := os.Chmod(filepath.Join(copied, "README.md"), 0o600); err != nil {
		t.Fatal(err)
	}
	build(t, copied, again, parts...)
	if diff := cmp.Diff(sums(t, dist), sums(t, again)); diff != "" {
		t.Errorf("checksums (-here +elsewhere):\n%s", diff)
	}
}

// sums are the lines of SHA256SUMS.
func sums(t *testing.T, dist string) []string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dist, "SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
}

// testChecksums adds a file, as a package would be, and looks that all are
// there, in order, and that a changed one is found.
func testChecksums(t *testing.T, dist string) {
	added := filepath.Join(dist, "nftsentry_1.2.3-1_amd64.deb")
	if err := os.WriteFile(added, []byte("a package"), 0o644); err != nil {
		t.Fatal(err)
	}
	build(t, "../..", dist, "checksums")
	var names []string
	for _, line := range sums(t, dist) {
		_, file, _ := strings.Cut(line, "  ")
		names = append(names, file)
	}
	want := []string{name + ".tar.gz", filepath.Base(added)}
	if _, err := os.Stat(filepath.Join(dist, name+".cdx.json")); err == nil {
		want = slices.Insert(want, 0, name+".cdx.json")
	}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("files with a checksum (-want +got):\n%s", diff)
	}
	check := func() ([]byte, error) {
		cmd := exec.Command("sha256sum", "--strict", "-c", "SHA256SUMS")
		cmd.Dir = dist
		return cmd.CombinedOutput()
	}
	if out, err := check(); err != nil {
		t.Errorf("sha256sum -c: %v\n%s", err, out)
	}
	if err := os.WriteFile(added, []byte("another"), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := check(); err == nil || !strings.Contains(string(out), filepath.Base(added)+": FAILED") {
		t.Errorf("sha256sum -c lets a changed file pass: %v\n%s", err, out)
	}
}
