package ignore

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestRead(t *testing.T) {
	list, err := Read([]string{"testdata/portsentry.ignore", "testdata/portsentry.ignore.static"})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"20 127.0.0.1/32", "21 0.0.0.0/32", "22 192.168.2.0/24"}
	if diff := cmp.Diff(want, texts(list[0].Entries)); diff != "" || list.Len() != 6 {
		t.Errorf("%d entries, of the first file (-want +got):\n%s", list.Len(), diff)
	}
	again, err := Read([]string{"testdata/portsentry.ignore", "testdata/portsentry.ignore.static"})
	if err != nil || !list.Equal(again) || list.Equal(again[:1]) {
		t.Errorf("lists are not compared right: %v", err)
	}
	if none, err := Read(nil); err != nil || none.Len() != 0 {
		t.Errorf("no files: %v, %v", none, err)
	}
}

// TestReadWrong shows that all that is wrong with several files is told at once.
func TestReadWrong(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	write(t, at("bad"), "192.0.2.1\nx.example\n")
	write(t, at("good"), "192.0.2.1\n")
	if err := unix.Mkfifo(at("pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("loop", at("loop")); err != nil {
		t.Fatal(err)
	}
	write(t, at("large"), "")
	if err := os.Truncate(at("large"), maxSize+1); err != nil {
		t.Fatal(err)
	}
	_, err := Read([]string{at("missing"), at("good"), at("bad"), at("pipe"), dir, at("loop"), at("large")})
	want := []string{
		at("missing") + ": there is no such file: create it, empty if nobody is to be ignored, or take it out of ignore.files",
		at("bad") + `:2: "x.example": ` + isName,
		at("pipe") + ": not a file of lines: name one in ignore.files, or take this out",
		dir + ": not a file of lines: name one in ignore.files, or take this out",
		at("loop") + ": cannot be read: too many levels of symbolic links: make it readable, or take it out of ignore.files",
		at("large") + ": larger than 64 MiB: this cannot be a list of addresses; name another file in ignore.files",
	}
	if err == nil {
		t.Fatal("no error")
	}
	if diff := cmp.Diff(want, strings.Split(err.Error(), "\n")); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
	var one *Error
	if !errors.Is(err, fs.ErrNotExist) || !errors.As(err, &one) || one.File != at("missing") {
		t.Errorf("the first error: %v", one)
	}
}

// TestUnreadable says what to do where it is not allowed to read, which root never meets.
func TestUnreadable(t *testing.T) {
	got := unreadable(&fs.PathError{Op: "open", Path: "/x", Err: unix.EACCES})
	if want := "no right to read it: give it to the user who runs nftsentry"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestReadTooMany(t *testing.T) {
	dir := t.TempDir()
	half := strings.Repeat("192.0.2.1\n", MaxEntries/2+1)
	write(t, filepath.Join(dir, "a"), half)
	write(t, filepath.Join(dir, "b"), half)
	_, err := Read([]string{filepath.Join(dir, "a"), filepath.Join(dir, "b")})
	if err == nil || !strings.Contains(err.Error(), "b: more than ") {
		t.Errorf("two files with too many entries together: %v", err)
	}
}
