package hook

import (
	"io/fs"
	"strings"
	"testing"
)

// TestToExecute shows that nobody is told to give rights that a program has.
func TestToExecute(t *testing.T) {
	for mode, want := range map[fs.FileMode]string{
		0o755: "NoExecPaths=",
		0o711: "chmod o+rx /usr/local/bin/tell",
		0o754: "chmod o+rx /usr/local/bin/tell",
		0o750: "chmod o+rx /usr/local/bin/tell",
	} {
		if got := toExecute(mode, "/usr/local/bin/tell"); !strings.Contains(got, want) {
			t.Errorf("%04o: %q is without %q", mode, got, want)
		}
	}
}
