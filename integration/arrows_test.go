package integration

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// arrows are the packages of ours that each may import, tests aside: the
// arrows point down only.
var arrows = map[string][]string{
	"cmd/nftsentry": {
		"cmd/nftsentry/internal/doctor", "cmd/nftsentry/internal/sandbox", "cmd/nftsentry/internal/selftest", "cmd/nftsentry/internal/top", "conf", "conf/ignore",
		"conf/portsentry", "controller", "controller/api", "controller/compat", "controller/hook", "controller/hook/remote", "controller/host",
		"controller/metrics", "controller/tally", "controller/trace", "integration/namespace", "listener", "nft", "state",
	},
	"cmd/nftsentry/internal/doctor":   {"cmd/nftsentry/internal/sandbox", "conf", "controller/api", "controller/host", "nft", "nft/survey", "state", "integration/namespace"},
	"cmd/nftsentry/internal/sandbox":  {},
	"cmd/nftsentry/internal/selftest": {"conf", "controller/api", "nft", "integration/namespace", "integration/packet"},
	"cmd/nftsentry/internal/top":      {"conf", "controller/api"},
	"conf":                            {},
	"conf/ignore":                     {},
	"conf/portsentry":                 {},
	"controller":                      {"listener", "nft", "state"},
	"controller/api":                  {"state"},
	"controller/compat":               {},
	"controller/hook":                 {},
	"controller/hook/remote":          {"controller/hook"},
	"controller/host":                 {},
	"controller/metrics":              {},
	"controller/tally":                {},
	"controller/trace":                {},
	"integration":                     {},
	"integration/bench":               {},
	"integration/bench/figure":        {},
	"integration/bench/report":        {"integration/bench/figure"},
	"integration/kernel":              {},
	"integration/namespace":           {},
	"integration/netns":               {"integration/namespace"},
	"integration/packages":            {},
	"integration/packet":              {},
	"integration/release":             {},
	"listener":                        {},
	"nft":                             {},
	"nft/survey":                      {},
	"state":                           {},
}

// forbidden are imports that no part of the program may have, besides the
// packages named here: it has no C, and runs no other programs than itself, to
// test itself, and hooks.
var forbidden = map[string][]string{
	"os/exec":        {"cmd/nftsentry/internal/selftest", "controller/hook", "integration/namespace", "integration/netns"},
	"testing":        {"integration/netns"},
	"C":              nil,
	"plugin":         nil,
	"net/http/pprof": nil,
}

func TestArrows(t *testing.T) {
	seen := make(map[string]bool)
	for file, imports := range sourceImports(t) {
		pkg := filepath.ToSlash(filepath.Dir(file))
		seen[pkg] = true
		allowed, known := arrows[pkg]
		if !known {
			t.Errorf("%s: package %s is not in the layout", file, pkg)
		}
		for _, path := range imports {
			if ours, ok := strings.CutPrefix(path, "nftsentry/"); ok && !slices.Contains(allowed, ours) {
				t.Errorf("%s imports %s, which its layer may not", file, path)
			}
			if allowed, found := forbidden[path]; found && !slices.Contains(allowed, pkg) {
				t.Errorf("%s imports %s", file, path)
			}
		}
	}
	for pkg := range arrows {
		if !seen[pkg] {
			t.Errorf("package %s of the layout has no source", pkg)
		}
	}
}

// sourceImports are the imports of all source files, tests aside, by their
// paths from the top of the tree.
func sourceImports(t *testing.T) map[string][]string {
	t.Helper()
	out := make(map[string][]string)
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != ".." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata") {
			return fs.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		file, err := filepath.Rel("..", path)
		if err != nil {
			return err
		}
		out[file] = []string{}
		for _, spec := range f.Imports {
			name, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			out[file] = append(out[file], name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
