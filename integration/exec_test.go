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

// TestExec holds that nothing runs other programs but by os/exec, of which
// TestArrows says who may have it, and that nothing names a shell.
func TestExec(t *testing.T) {
	for file := range sourceImports(t) {
		for _, what := range executions(t, file) {
			t.Errorf("%s has %s", file, what)
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
