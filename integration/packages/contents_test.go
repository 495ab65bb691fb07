package packages

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nftsentry/integration/netns"
)

// TestPackagesReproducible holds that two copies of the tree, in other places
// and with other rights, make the same bytes.
func TestPackagesReproducible(t *testing.T) {
	for _, kind := range []string{"deb", "rpm", "apk"} {
		once, again := read(t, built(t, "new", kind)), read(t, built(t, "again", kind))
		if !bytes.Equal(once, again) {
			t.Errorf("the %s is another when it is built again: %d and %d bytes", kind, len(once), len(again))
		}
	}
	if bytes.Equal(read(t, built(t, "new", "deb")), read(t, built(t, "old", "deb"))) {
		t.Error("two versions are the same") // else equality would tell nothing
	}
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestPackagesContents compares the lists of what the packages have: mode, owner
// and path. Manual pages and documents are those of the tree.
func TestPackagesContents(t *testing.T) {
	for kind, list := range map[string]func(*testing.T, string) []string{"deb": listDeb, "rpm": listRPM, "apk": listAPK} {
		t.Run(kind, func(t *testing.T) {
			got := list(t, built(t, "new", kind))
			for _, file := range inTree(t) {
				at := slices.IndexFunc(got, func(line string) bool { return line == "-rw-r--r-- root/root "+file })
				if at < 0 {
					t.Errorf("%s is not in the package", file)
					continue
				}
				got = slices.Delete(got, at, at+1)
			}
			file := filepath.Join("testdata", kind+".txt")
			text := strings.Join(got, "\n") + "\n"
			if *update {
				if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(string(read(t, file)), text); diff != "" {
				t.Errorf("%s is another, write it anew by \"go test ./integration/packages -update\" (-want +got):\n%s", file, diff)
			}
		})
	}
}

// inTree are the files that packages have of folders where there will be more.
func inTree(t *testing.T) []string {
	t.Helper()
	var all []string
	for pattern, to := range map[string]string{
		"docs/*.md":       "/usr/share/doc/nftsentry/%s",
		"contrib/man/*.5": "/usr/share/man/man5/%s.gz",
		"contrib/man/*.8": "/usr/share/man/man8/%s.gz",
	} {
		files, err := filepath.Glob(filepath.Join("../..", pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v, %v", pattern, files, err)
		}
		for _, file := range files {
			all = append(all, fmt.Sprintf(to, filepath.Base(file)))
		}
	}
	return all
}

func listDeb(t *testing.T, file string) []string {
	return listTar(t, bytes.NewReader(run(t, netns.Tool(t, "dpkg-deb"), "--fsys-tarfile", file)))
}

func listRPM(t *testing.T, file string) []string {
	out := run(t, netns.Tool(t, "rpm"), "-qp", "--queryformat", "[%{FILEMODES:perms} %{FILEUSERNAME}/%{FILEGROUPNAME} %{FILENAMES}\n]", file)
	return sorted(strings.Split(strings.TrimSpace(string(out)), "\n"))
}

// listAPK lists a package of Alpine, which is tar files one after another, each
// compressed.
func listAPK(t *testing.T, file string) []string {
	r, err := gzip.NewReader(bytes.NewReader(read(t, file)))
	if err != nil {
		t.Fatal(err)
	}
	return listTar(t, r)
}

// listTar lists what is in tar files one after another, but for the folders
// that every system has.
func listTar(t *testing.T, r io.Reader) []string {
	t.Helper()
	var all []string
	for archive := tar.NewReader(r); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return sorted(all)
		}
		if err != nil {
			t.Fatal(err)
		}
		name := path.Join("/", h.Name)
		if h.Typeflag == tar.TypeDir && !strings.Contains(name, "nftsentry") {
			continue
		}
		all = append(all, fmt.Sprintf("%s %s/%s %s", h.FileInfo().Mode(), owner(h.Uname, h.Uid), owner(h.Gname, h.Gid), name))
	}
}

// owner is a name, which may be left out for root.
func owner(name string, number int) string {
	if name == "" && number == 0 {
		return "root"
	}
	return name
}

// sorted sorts lines by path.
func sorted(lines []string) []string {
	slices.SortFunc(lines, func(a, b string) int {
		return strings.Compare(a[strings.LastIndexByte(a, ' '):], b[strings.LastIndexByte(b, ' '):])
	})
	return lines
}

// TestPackagesConfig holds that the packaged configuration is the defaults, but
// for the file of ignored sources, and that all keys of the reference are in it.
func TestPackagesConfig(t *testing.T) {
	dir := t.TempDir()
	run(t, netns.Tool(t, "dpkg-deb"), "-x", built(t, "new", "deb"), dir)
	packed := string(read(t, filepath.Join(dir, "etc/nftsentry/nftsentry.toml")))
	var keys []string
	for line := range strings.Lines(packed) {
		if !strings.HasPrefix(line, "#") && strings.Contains(line, " = ") {
			keys = append(keys, strings.TrimSpace(line))
		}
	}
	if diff := cmp.Diff([]string{`files = ["/etc/nftsentry/ignore"]`}, keys); diff != "" {
		t.Errorf("keys that are set (-want +got):\n%s", diff)
	}
	for line := range strings.Lines(string(read(t, "../../conf/reference.toml"))) {
		if key, _, isKey := strings.Cut(line, " = "); isKey && !strings.HasPrefix(line, "#") && key != "files" && !strings.Contains(packed, "\n#"+line) {
			t.Errorf("not in the packaged configuration: %s", line)
		}
	}
}

// TestPackagesLint has no errors and no warnings, but for those that are
// explained in contrib/packages.
func TestPackagesLint(t *testing.T) {
	lintian := netns.Tool(t, "lintian")
	rpmlint := netns.Tool(t, "rpmlint")
	run(t, lintian, "--allow-root", "--fail-on", "error,warning", "--tag-display-limit", "0", built(t, "new", "deb"))
	// In a root of its own: rpmlint unpacks by names that begin at the root, and so over this host's files.
	r := newRoot(t, netns.New(t, "lint"), false)
	out := r.must(rpmlint, "-c", r.bring("../../contrib/packages/rpmlint.toml"), r.bring(built(t, "new", "rpm")))
	if !strings.Contains(out, " 0 errors, 0 warnings,") {
		t.Errorf("rpmlint says:\n%s", out)
	}
}
