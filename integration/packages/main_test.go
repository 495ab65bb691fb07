package packages

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sync/errgroup"

	"nftsentry/integration/netns"
)

// builtEnv names the folder with the packages, built once for all tests: "old",
// "new", and "again", which is "new" built in another copy of the tree.
const builtEnv = "NFTSENTRY_TEST_PACKAGES"

// The versions of old and new.
const oldVersion, newVersion = "0.1.0", "0.2.0"

var update = flag.Bool("update", false, "write the lists in testdata anew")

func TestMain(m *testing.M) {
	flag.Parse()
	listing := flag.Lookup("test.list").Value.String() != ""
	if listing || os.Getenv(builtEnv) != "" || os.Geteuid() != 0 {
		netns.MainAsRoot(m)
	}
	os.Exit(buildAndRun(m))
}

// buildAndRun builds before the tests have namespaces, as modules may have to
// be fetched.
func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "nftsentry-packages-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := errors.Join(build(dir), os.Setenv(builtEnv, dir)); err != nil {
		fmt.Fprintln(os.Stderr, "build the packages:", err)
		return 1
	}
	// What netns.MainAsRoot does, but for the end of the process.
	if err := os.Setenv("NFTSENTRY_TEST_AS_ROOT", "1"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return netns.Run(m)
}

// build fills the folder. The tree is first built as it is and then copied, with
// other rights and times, to a path of another length.
func build(dir string) error {
	top, err := filepath.Abs("../..")
	if err != nil {
		return err
	}
	if err := pack(top, filepath.Join(dir, "new"), newVersion, "deb", "rpm", "apk"); err != nil {
		return err
	}
	var g errgroup.Group
	g.Go(func() error { return pack(top, filepath.Join(dir, "old"), oldVersion, "deb", "rpm", "apk") })
	g.Go(func() error {
		tree := filepath.Join(dir, "another place", "tree")
		if err := copyTree(top, tree); err != nil {
			return err
		}
		return pack(tree, filepath.Join(dir, "again"), newVersion, "deb", "rpm", "apk")
	})
	return g.Wait()
}

// pack builds packages for this architecture.
func pack(tree, dist, version string, kinds ...string) error {
	cmd := exec.Command(filepath.Join(tree, "contrib/packages/build"), kinds...)
	cmd.Env = append(os.Environ(), "ARCHES="+runtime.GOARCH, "DIST="+dist, "VERSION="+version,
		"COMMIT=0123456789ab", "SOURCE_DATE_EPOCH=1795000000", "CGO_ENABLED=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	return nil
}

// copyTree copies the files of a tree, but for those that git does not have,
// and for tests. Nobody else may read the copy.
func copyTree(from, to string) error {
	defer syscall.Umask(syscall.Umask(0o077))
	return filepath.WalkDir(from, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		switch {
		case d.IsDir() && (name == ".git" || name == "bin" || name == "dist"):
			return filepath.SkipDir
		case d.IsDir():
			return os.MkdirAll(filepath.Join(to, name), 0o777)
		case !d.Type().IsRegular() || name == ".git" || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		return copyFile(path, filepath.Join(to, name), d)
	})
}

func copyFile(from, to string, d os.DirEntry) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, info.Mode().Perm()|0o200)
}

// built is the path of a package.
func built(t *testing.T, folder, kind string) string {
	t.Helper()
	netns.Require(t)
	all, err := filepath.Glob(filepath.Join(os.Getenv(builtEnv), folder, "*."+kind))
	if err != nil || len(all) != 1 {
		t.Fatalf("packages of %s in %s: %q, %v", kind, folder, all, err)
	}
	return all[0]
}
