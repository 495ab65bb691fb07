package main

import (
	"bytes"
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"nftsentry/conf"
)

// update writes the golden files and the manual pages anew.
var update = flag.Bool("update", false, "write the golden files anew")

// importCases are the folders with a configuration of Portsentry's each, and what becomes of it.
func importCases(t *testing.T) []string {
	t.Helper()
	dirs, err := filepath.Glob("testdata/import/*")
	if err != nil || len(dirs) == 0 {
		t.Fatal("no cases", err)
	}
	return dirs
}

// ran is what a command has said.
type ran struct {
	code           int
	data, messages string
}

// program runs the program with arguments.
func program(terminal bool, args ...string) ran {
	var data, messages bytes.Buffer
	out := &output{data: &data, messages: &messages, terminal: terminal}
	root := newRoot(out)
	root.SetArgs(args)
	code := out.finish(root.Execute())
	return ran{code, data.String(), messages.String()}
}

// argsOf are further arguments of a case.
func argsOf(t *testing.T, dir string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "args"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return strings.Fields(string(text))
}

// golden compares with a file; one that is not there is empty.
func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		err := os.Remove(path)
		if got != "" {
			err = os.WriteFile(path, []byte(got), 0o644)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

func TestImport(t *testing.T) {
	for _, dir := range importCases(t) {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			args := append([]string{"import", dir}, argsOf(t, dir)...)
			got := program(false, args...)
			golden(t, filepath.Join(dir, "want.toml"), got.data)
			golden(t, filepath.Join(dir, "want.err"), got.messages)
			code := exitDone
			if strings.HasPrefix(filepath.Base(dir), "broken") {
				code = exitFailed
			}
			if got.code != code {
				t.Errorf("exit status %d, want %d", got.code, code)
			}
			diff := program(true, append(args, "--diff")...)
			golden(t, filepath.Join(dir, "want.diff"), diff.data)
			if diff.code != code || diff.messages != got.messages {
				t.Errorf("--diff: exit status %d, %s", diff.code, diff.messages)
			}
			for line := range strings.Lines(diff.data) {
				if n := utf8.RuneCountInString(line) - 1; n > 100 {
					t.Errorf("--diff: %d characters wide: %s", n, line)
				}
			}
		})
	}
}

// TestImportParses has conf read what import writes.
func TestImportParses(t *testing.T) {
	read := 0
	for _, dir := range importCases(t) {
		text, err := os.ReadFile(filepath.Join(dir, "want.toml"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conf.Parse(dir, text); err != nil {
			t.Error(err)
		}
		read++
	}
	if read < 7 {
		t.Errorf("%d configurations read, want 7 at least", read)
	}
}

// TestImportDiffInPipe shows that each row is one line of three fields.
func TestImportDiffInPipe(t *testing.T) {
	got := program(false, "import", "testdata/import/recipe", "--diff")
	if got.code != exitDone {
		t.Fatal(got)
	}
	for line := range strings.Lines(got.data) {
		if n := strings.Count(line, "\t"); n != 2 {
			t.Errorf("%d tabs: %q", n, line)
		}
	}
	if want := "SCAN_TRIGGER\t\"2\"\ttrigger.connects = 2\nSCAN_TRIGGER\t\"2\"\ttrigger.ports = 2\n"; !strings.Contains(got.data, want) {
		t.Errorf("no %q in\n%s", want, got.data)
	}
}

// TestImportUsage has each wrong way to ask, with its message.
func TestImportUsage(t *testing.T) {
	for name, tt := range map[string]struct {
		args []string
		want string
	}{
		"no path":         {nil, `import takes one folder or portsentry.conf: see "nftsentry import --help"`},
		"no such folder":  {[]string{"testdata/none"}, "open testdata/none: no such file or directory: name the portsentry.conf, or the folder that it is in"},
		"no conf in it":   {[]string{"testdata"}, "open testdata/portsentry.conf: no such file or directory: name the portsentry.conf, or the folder that it is in"},
		"link alone":      {[]string{"testdata/import/recipe", "--link"}, "--link needs --state: a link would hide what has not been taken over"},
		"no such default": {[]string{"testdata/import/recipe", "--default", "none"}, "--default: stat none: no such file or directory"},
		"default for 2.x": {[]string{"testdata/import/v2", "--default", "testdata/import/recipe/portsentry.default"}, "--default testdata/import/recipe/portsentry.default: this is for Portsentry 1.2, and testdata/import/v2/portsentry.conf is for 2.x, as it has no ADVANCED_ key: see --mode"},
		"no such mode":    {[]string{"testdata/import/recipe", "--mode", "atpc"}, `--mode atpc: "atpc" is no mode: 2.x has stealth and connect, 1.2 one of tcp, stcp and atcp and one of udp, sudp and audp`},
		"two modes":       {[]string{"testdata/import/recipe", "--mode", "atcp,tcp"}, "--mode atcp,tcp: one mode of each protocol, such as atcp,audp"},
		"link for 2.x":    {[]string{"testdata/import/v2", "--state", "--link"}, "--link: the files of Portsentry 2.x have other formats than ours, which what reads them does not know: leave it out"},
		"no such config":  {[]string{"testdata/import/recipe", "--state", "-c", "none"}, "none: file does not exist: name another file with -c, or leave -c out for the built-in defaults"},
	} {
		t.Run(name, func(t *testing.T) {
			want := ran{exitUsage, "", "nftsentry: " + tt.want + "\n"}
			if got := program(false, append([]string{"import"}, tt.args...)...); got != want {
				t.Errorf("%+v, want %+v", got, want)
			}
		})
	}
}

// TestImportFindsModes shows where the file of the modes is looked for.
func TestImportFindsModes(t *testing.T) {
	etc := t.TempDir()
	conf, err := os.ReadFile("testdata/import/debian/portsentry.conf")
	if err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(etc, "portsentry", "portsentry.conf"), string(conf))
	mode := func(args ...string) string {
		t.Helper()
		got := program(false, append([]string{"import", filepath.Join(etc, "portsentry")}, args...)...)
		for line := range strings.Lines(got.data) {
			if text, ok := strings.CutPrefix(line, "mode_tcp = "); ok {
				return strings.TrimSpace(text)
			}
		}
		t.Fatalf("no mode in %+v", got)
		return ""
	}
	named := filepath.Join(etc, "named")
	put(t, named, "TCP_MODE=atcp\n")
	steps := []struct {
		file, mode string
		args       []string
		want       string
	}{
		{"", "", nil, `"tcp"`},
		{"default/portsentry", "stcp", nil, `"stcp"`},
		{"portsentry/portsentry.default", "atcp", nil, `"atcp"`},
		{"named", "tcp", []string{"--default", named}, `"tcp"`},
		{"", "", []string{"--mode", "stcp"}, `"stcp"`},
	}
	for _, s := range steps {
		if s.file != "" {
			put(t, filepath.Join(etc, s.file), "TCP_MODE="+s.mode+"\n")
		}
		if got := mode(s.args...); got != s.want {
			t.Errorf("%+v: mode %s", s, got)
		}
	}
}

// put writes a file, and makes its folder.
func put(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestImportDiffFirst has the table of old and new come before what there is
// to say of it.
func TestImportDiffFirst(t *testing.T) {
	var both bytes.Buffer
	out := &output{data: &both, messages: &both}
	root := newRoot(out)
	root.SetArgs([]string{"import", "testdata/import/debian", "--diff"})
	if code := out.finish(root.Execute()); code != exitDone {
		t.Fatalf("exit status %d: %s", code, both.String())
	}
	table, said := strings.LastIndex(both.String(), "\nHISTORY_FILE\t"), strings.Index(both.String(), "nftsentry: ")
	if table < 0 || said < 0 || said < table {
		t.Errorf("the table ends at %d, messages begin at %d", table, said)
	}
}
