package integration

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
)

// executors are the packages that may run other programs, tests aside: the
// hooks, and what puts the tests into namespaces of their own.
var executors = []string{"controller/hook", "integration/netns"}

// TestExec holds that nothing but the hooks runs other programs, and that
// nothing names a shell.
func TestExec(t *testing.T) {
	used := make(map[string]bool)
	for file, imports := range sourceImports(t) {
		pkg := filepath.ToSlash(filepath.Dir(file))
		allowed := slices.Contains(executors, pkg)
		if slices.Contains(imports, "os/exec") {
			used[pkg] = true
			if !allowed {
				t.Errorf("%s imports os/exec", file)
			}
		}
		for _, what := range executions(t, file) {
			t.Errorf("%s has %s", file, what)
		}
	}
	for _, pkg := range executors {
		if !used[pkg] {
			t.Errorf("package %s does not run programs: take it out of the list", pkg)
		}
	}
}

// executions are ways to run a program without os/exec, and names of shells,
// in a source file.
func executions(t *testing.T, file string) (found []string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), filepath.Join("..", file), nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	calls := []string{"StartProcess", "ForkExec", "Exec", "Execve", "Execveat"}
	shells := []string{"sh", "bash", "dash", "/bin/sh", "/bin/bash", "/bin/dash", "-c"}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SelectorExpr:
			from, ok := n.X.(*ast.Ident)
			if ok && slices.Contains([]string{"os", "syscall", "unix"}, from.Name) && slices.Contains(calls, n.Sel.Name) {
				found = append(found, from.Name+"."+n.Sel.Name)
			}
		case *ast.BasicLit:
			s, err := strconv.Unquote(n.Value)
			if n.Kind == token.STRING && err == nil && slices.Contains(shells, s) {
				found = append(found, "the string "+n.Value)
			}
		}
		return true
	})
	return found
}
