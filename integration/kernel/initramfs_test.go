//go:build kernel

package kernel

import (
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A root is the folder that becomes the root of the machine.
type root struct {
	t   *testing.T
	dir string
}

// put copies a file of this host, links followed, to a path of the root.
func (r root) put(from, to string) {
	r.t.Helper()
	info, err := os.Stat(from)
	if err != nil {
		r.t.Fatal(err)
	}
	data, err := os.ReadFile(from)
	if err != nil {
		r.t.Fatal(err)
	}
	r.write(to, data, info.Mode().Perm())
}

func (r root) write(to string, data []byte, mode fs.FileMode) {
	r.t.Helper()
	path := filepath.Join(r.dir, to)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(path, data, mode); err != nil {
		r.t.Fatal(err)
	}
}

// program copies a program of this host and the libraries that it is linked
// with, to where its loader looks for them.
func (r root) program(path, to string) {
	r.t.Helper()
	r.put(path, to)
	out, err := exec.Command("ldd", path).CombinedOutput()
	if err != nil {
		if strings.Contains(string(out), "not a dynamic executable") {
			return
		}
		r.t.Fatalf("ldd %s: %v\n%s", path, err, out)
	}
	for _, library := range regexp.MustCompile(`/\S+`).FindAllString(string(out), -1) {
		if library = strings.TrimSuffix(library, ":"); library != path {
			r.put(library, library)
		}
	}
}

// tree copies a folder.
func (r root) tree(from, to string) {
	r.t.Helper()
	if err := os.MkdirAll(filepath.Join(r.dir, filepath.Dir(to)), 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(r.dir, to), os.DirFS(from)); err != nil {
		r.t.Fatal(err)
	}
}

// pack makes the root an initramfs: a cpio archive that the kernel unpacks.
func (r root) pack(file string) {
	r.t.Helper()
	out, err := os.Create(file)
	if err != nil {
		r.t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command("sh", "-c", "find . | busybox cpio -o -H newc")
	cmd.Dir, cmd.Stdout = r.dir, out
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		r.t.Fatalf("cpio: %v\n%s", err, stderr.String())
	}
}

// static fails unless a program needs no libraries.
func static(t *testing.T, path string) {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if libraries, err := f.ImportedLibraries(); err != nil || len(libraries) > 0 {
		t.Fatal(fmt.Errorf("%s needs %q (%w), and the guest has none", path, libraries, err))
	}
}
