package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nftsentry/conf/ignore"
)

// ignoreFile writes a file of so many lines, a quarter of them IPv6.
func ignoreFile(t testing.TB, lines int) string {
	t.Helper()
	var b bytes.Buffer
	for i := range lines {
		if i%4 == 0 {
			fmt.Fprintf(&b, "2001:db8:%x:%x::/64 # line %d\n", i>>16, i&0xffff, i)
			continue
		}
		fmt.Fprintf(&b, "10.%d.%d.%d/%d\n", i>>16, i>>8&0xff, i&0xff, 32-i%3)
	}
	path := filepath.Join(t.TempDir(), "portsentry.ignore")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// loadIgnored is all that is done with a file before the controller takes it over.
func loadIgnored(t testing.TB, path string) (size int) {
	t.Helper()
	list, err := ignore.Read([]string{path})
	if err != nil {
		t.Fatal(err)
	}
	return listedOf(list).Size()
}

// TestIgnoreFileSpeed bounds how long 100,000 lines take from the disk to the
// list that is looked up, 200 ms on a machine at rest, with room for a busy one.
func TestIgnoreFileSpeed(t *testing.T) {
	path := ignoreFile(t, 100000)
	began := time.Now()
	size := loadIgnored(t, path)
	took := time.Since(began)
	t.Logf("%d different ones in %v", size, took)
	if size < 50000 {
		t.Errorf("%d different ones are listed", size)
	}
	if took > time.Second && !raceEnabled {
		t.Errorf("loaded in %v, want at most 1s", took)
	}
}

func BenchmarkIgnoreFile(b *testing.B) {
	path := ignoreFile(b, 100000)
	b.ReportAllocs()
	for b.Loop() {
		loadIgnored(b, path)
	}
}

// TestListingProblems says what a status has of files that cannot be read.
func TestListingProblems(t *testing.T) {
	one := ignore.Errors{{File: "/f", Line: 3, Text: "x", Problem: "wrong"}}
	two := append(one, &ignore.Error{File: "/g", Problem: "missing"})
	const (
		none = "nothing is noticed or blocked until ignore.files can be read: "
		old  = "the old list of ignored sources stays in force, since ignore.files cannot be read: "
	)
	for _, test := range []struct {
		name string
		l    listing
		want []string
	}{
		{"nothing", listing{}, nil},
		{"at the start", listing{err: one, none: true}, []string{none + `/f:3: "x": wrong`}},
		{"later", listing{err: one}, []string{old + `/f:3: "x": wrong`}},
		{"several", listing{err: two}, []string{old + `/f:3: "x": wrong (and 1 more: see "nftsentry check")`}},
		{"something else", listing{err: errors.New("odd")}, []string{old + "odd"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, test.l.problems()); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}

// TestCheckIgnoreFiles reports what is wrong with the files as it does with the
// configuration.
func TestCheckIgnoreFiles(t *testing.T) {
	dir := t.TempDir()
	bad, conf := filepath.Join(dir, "bad"), filepath.Join(dir, "nftsentry.toml")
	for path, text := range map[string]string{
		bad:  "192.0.2.1\nx.example\n",
		conf: fmt.Sprintf("ignore.files = [%q, %q]\n", bad, filepath.Join(dir, "missing")),
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var data, messages strings.Builder
	out := &output{data: &data, messages: &messages}
	root := newRoot(out)
	root.SetArgs([]string{"check", "-c", conf})
	code := out.finish(root.Execute())
	want := "nftsentry: " + bad + `:2: "x.example": a name, and names are not looked up: write its address` + "\n" +
		"nftsentry: " + filepath.Join(dir, "missing") + ": there is no such file: create it, empty if nobody is to be ignored, or take it out of ignore.files\n"
	if diff := cmp.Diff(want, messages.String()); diff != "" || code != exitUsage || data.String() != "" {
		t.Errorf("exit status %d, data %q, messages (-want +got):\n%s", code, data.String(), diff)
	}
}
