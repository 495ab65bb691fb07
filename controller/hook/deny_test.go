package hook

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

const denyLine = "ALL: $TARGET$ : DENY"

// denying is a denier of a file with a text, in a folder of its own.
func denying(t testing.TB, text string) (*denier, string) {
	t.Helper()
	tr, dir := trusting(t)
	file := put(t, filepath.Join(dir, "hosts.deny"), text, 0o644)
	d, err := newDenier(HostsDeny{Line: denyLine, File: file}, tr)
	if err != nil {
		t.Fatal(err)
	}
	return d, file
}

func contents(t testing.TB, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// sources are changes that all add, or all remove.
func sources(there bool, names ...string) map[netip.Prefix]bool {
	out := make(map[netip.Prefix]bool)
	for _, name := range names {
		out[netip.MustParsePrefix(name)] = there
	}
	return out
}

// inverse removes what changes add.
func inverse(changes map[netip.Prefix]bool) map[netip.Prefix]bool {
	out := maps.Clone(changes)
	for p := range out {
		out[p] = false
	}
	return out
}

// TestDenyRoundTrip adds lines to files of all kinds, and takes them out again: what is not ours stays byte by byte.
func TestDenyRoundTrip(t *testing.T) {
	for _, text := range []string{
		"", "\n", "ALL: ALL\n", "ALL: ALL", "# comment\r\nsshd: .example.org\r\n", "joined: a \\\n b\n", "ends in a backslash \\", "\\\n",
		"\x00\xff\xfe\n\n\n", "ALL: 192.0.2.7 : DENY\n", lineMarks.end + "\nALL: ALL\n", " " + lineMarks.begin + denyLine + "\n",
		strings.Repeat("x", 5000), "ALL: $TARGET$ : DENY\n",
	} {
		d, file := denying(t, text)
		ours := sources(true, "192.0.2.7/32", "192.0.2.0/24", "2001:db8::7/128", "2001:db8:1:2::/64")
		want := lineMarks.begin + denyLine + "\nALL: 192.0.2.0/255.255.255.0 : DENY\nALL: 192.0.2.7 : DENY\nALL: [2001:db8:1:2::]/64 : DENY\n" +
			"ALL: [2001:db8::7] : DENY\n" + lineMarks.end + "\n"
		for range 2 { // once, however often it is said
			if err := d.do(t.Context(), &job{changes: ours}); err != nil {
				t.Fatal(err)
			}
			got, rest := contents(t, file)[:len(want)], contents(t, file)[len(want):]
			if rest != text {
				t.Errorf("of %q stays %q", text, rest)
			}
			sorted := func(s string) []string { return slices.Sorted(strings.Lines(s)) }
			if diff := cmp.Diff(sorted(want), sorted(got)); diff != "" {
				t.Errorf("lines (-want +got):\n%s", diff)
			}
		}
		if err := d.do(t.Context(), &job{changes: inverse(ours)}); err != nil {
			t.Fatal(err)
		}
		if got := contents(t, file); got != text {
			t.Errorf("%q has become %q", text, got)
		}
	}
}

// TestDenyForeign keeps lines that somebody has put between ours, and finds ours by the pattern that they were written with.
func TestDenyForeign(t *testing.T) {
	text := "above\n" + lineMarks.begin + "sshd: $TARGET$:$TARGET$\nsshd: 192.0.2.1:192.0.2.1\nsshd: 192.0.2.2:192.0.2.3\nALL: 192.0.2.4 : DENY\n" +
		"sshd: 192.0.2.09:192.0.2.09\nsshd: [2001:db8::1]:[2001:db8::1] \n" + lineMarks.end + "\nbelow"
	d, file := denying(t, text)
	if err := d.do(t.Context(), &job{changes: sources(true, "192.0.2.9/32")}); err != nil {
		t.Fatal(err)
	}
	want := lineMarks.begin + denyLine + "\nALL: 192.0.2.1 : DENY\nALL: 192.0.2.9 : DENY\n" + lineMarks.end + "\nabove\nsshd: 192.0.2.2:192.0.2.3\n" +
		"ALL: 192.0.2.4 : DENY\nsshd: 192.0.2.09:192.0.2.09\nsshd: [2001:db8::1]:[2001:db8::1] \nbelow"
	if diff := cmp.Diff(want, contents(t, file)); diff != "" {
		t.Errorf("file (-want +got):\n%s", diff)
	}
	// What is live at the start stands, and nothing else of ours.
	if err := d.do(t.Context(), &job{changes: sources(true, "198.51.100.1/32"), only: true}); err != nil {
		t.Fatal(err)
	}
	if got := contents(t, file); strings.Contains(got, "192.0.2.1 ") || !strings.Contains(got, "ALL: 198.51.100.1 : DENY\n") {
		t.Errorf("after Sync: %q", got)
	}
}

// TestDenyPatterns keeps a file of patterns, which hosts.deny names: its marks are one word each, since to libwrap every word is a
// pattern. What was written as rules becomes patterns when the line is another.
func TestDenyPatterns(t *testing.T) {
	d, file := denying(t, "")
	changes := sources(true, "192.0.2.0/24", "2001:db8:1:2::/64")
	if err := d.do(t.Context(), &job{changes: changes}); err != nil {
		t.Fatal(err)
	}
	d.Line = token
	if err := d.do(t.Context(), &job{changes: sources(true, "192.0.2.7/32")}); err != nil {
		t.Fatal(err)
	}
	want := "#nftsentry-begin:$TARGET$\n192.0.2.0/255.255.255.0\n192.0.2.7\n[2001:db8:1:2::]/64\n#nftsentry-end\n"
	if diff := cmp.Diff(want, contents(t, file)); diff != "" {
		t.Errorf("file (-want +got):\n%s", diff)
	}
	for line := range strings.Lines(want) {
		if len(strings.Fields(line)) != 1 {
			t.Errorf("%q is not one word", line)
		}
	}
	if err := d.do(t.Context(), &job{only: true}); err != nil {
		t.Fatal(err)
	}
	if got := contents(t, file); got != "" {
		t.Errorf("in the end %q is left", got)
	}
}

// TestDenyDamaged touches nothing when a mark is missing.
func TestDenyDamaged(t *testing.T) {
	for _, text := range []string{
		lineMarks.begin + denyLine + "\nALL: 192.0.2.7 : DENY\n", lineMarks.begin + denyLine, lineMarks.begin + "ALL\n" + lineMarks.end + "\n",
	} {
		d, file := denying(t, "")
		put(t, file, text, 0o644)
		if err := d.do(t.Context(), &job{changes: sources(true, "192.0.2.9/32")}); err == nil {
			t.Errorf("%q: no error", text)
		}
		if got := contents(t, file); got != text {
			t.Errorf("%q has become %q", text, got)
		}
		if _, err := newDenier(d.HostsDeny, d.trust); err == nil {
			t.Errorf("%q: no error at the start", text)
		}
	}
}

// TestDenyRefused refuses links and what others can write to.
func TestDenyRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil func(file string) error
		want  string
	}{
		"link": {func(file string) error {
			return firstError(os.Rename(file, file+".real"), os.Symlink(file+".real", file))
		}, "is a symbolic link"},
		"dangling link": {func(file string) error { return firstError(os.Remove(file), os.Symlink("nowhere", file)) }, "is a symbolic link"},
		"all may write": {func(file string) error { return os.Chmod(file, 0o666) }, "others than root may write to this file"},
		"group may":     {func(file string) error { return os.Chmod(file, 0o664) }, "others than root may write to this file"},
		"folder":        {func(file string) error { return firstError(os.Remove(file), os.Mkdir(file, 0o755)) }, "is no file"},
		"pipe":          {func(file string) error { return firstError(os.Remove(file), unix.Mkfifo(file, 0o644)) }, "is no file"},
		"all may write to the folder": {func(file string) error { return os.Chmod(filepath.Dir(file), 0o777) },
			"others than root may write to this folder"},
	} {
		t.Run(name, func(t *testing.T) {
			tr, dir := trusting(t)
			sub := filepath.Join(dir, "etc")
			if err := os.Mkdir(sub, 0o755); err != nil {
				t.Fatal(err)
			}
			d, err := newDenier(HostsDeny{Line: denyLine, File: put(t, filepath.Join(sub, "hosts.deny"), "ALL: ALL\n", 0o644)}, tr)
			if err != nil {
				t.Fatal(err)
			}
			if err := tt.spoil(d.File); err != nil {
				t.Fatal(err)
			}
			err = d.do(t.Context(), &job{changes: sources(true, "192.0.2.9/32")})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %s", err, tt.want)
			}
			if _, err := newDenier(d.HostsDeny, tr); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("at the start: %v", err)
			}
		})
	}
}

// TestDenyOwner takes a file and a folder of the user who keeps it, and of nobody else.
func TestDenyOwner(t *testing.T) {
	tr, dir := trusting(t)
	file := filepath.Join(dir, "own", "hosts")
	if err := os.Mkdir(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	owner := tr.owner
	if owner == 0 {
		owner = 12345
		if err := os.Chown(filepath.Dir(file), int(owner), -1); err != nil {
			t.Fatal(err)
		}
	} else {
		tr.owner++ // what is ours is not root's
	}
	for _, other := range []uint32{0, owner + 2} {
		if _, err := newDenier(HostsDeny{Line: token, File: file, Owner: other}, tr); err == nil || !strings.Contains(err.Error(), "is not root's") {
			t.Errorf("a folder of %d for %d: %v", owner, other, err)
		}
	}
	d, err := newDenier(HostsDeny{Line: token, File: file, Owner: owner}, tr)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.do(t.Context(), &job{changes: sources(true, "192.0.2.7/32")}); err != nil {
		t.Error(err)
	}
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// TestDenyAttributes keeps mode and owner, makes a file that is missing, and leaves nothing beside it.
func TestDenyAttributes(t *testing.T) {
	d, file := denying(t, "ALL: ALL\n")
	if err := os.Chmod(file, 0o640); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(filepath.Dir(file), ".hosts.deny.nftsentry"), "of a crash", 0o600)
	before, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.do(t.Context(), &job{changes: sources(true, "192.0.2.9/32")}); err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(file)
	if err != nil || after.Mode() != 0o640 || os.SameFile(before, after) {
		t.Errorf("mode %v, the same file %v, %v", after.Mode(), os.SameFile(before, after), err)
	}
	if err := d.do(t.Context(), &job{changes: sources(true, "192.0.2.9/32")}); err != nil {
		t.Fatal(err)
	}
	if again, err := os.Stat(file); err != nil || !os.SameFile(again, after) {
		t.Errorf("the file was written without need: %v", err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := d.do(t.Context(), &job{changes: sources(true, "192.0.2.9/32")}); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode() != 0o644 {
		t.Errorf("the new file: %v, %v", info.Mode(), err)
	}
	entries, err := os.ReadDir(filepath.Dir(file))
	if err != nil || len(entries) != 1 {
		t.Errorf("in the folder are %v, %v", entries, err)
	}
}

// TestDenyRace does not undo what somebody else writes meanwhile.
func TestDenyRace(t *testing.T) {
	d, file := denying(t, "ALL: ALL\n")
	n := 0
	d.between = func() {
		if n++; n <= 2 {
			put(t, file, fmt.Sprintf("edit %d\n", n), 0o644)
		}
	}
	if err := d.do(t.Context(), &job{changes: sources(true, "192.0.2.9/32")}); err != nil {
		t.Fatal(err)
	}
	if got := contents(t, file); !strings.HasSuffix(got, lineMarks.end+"\nedit 2\n") || !strings.Contains(got, "192.0.2.9") {
		t.Errorf("%q", got)
	}
	d.between = func() {
		n++
		put(t, file, fmt.Sprintf("edit %d\n", n), 0o644)
	}
	if err := d.do(t.Context(), &job{changes: sources(true, "192.0.2.1/32")}); err == nil {
		t.Error("no error though the file never rests")
	}
	if got, want := contents(t, file), fmt.Sprintf("edit %d\n", n); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestDenyRunner takes blocks and their ends through a Runner: thousands of blocks, a reload that moves the lines elsewhere.
func TestDenyRunner(t *testing.T) {
	d, file := denying(t, "ALL: ALL")
	r, err := newRunner(Config{HostsDeny: &d.HostsDeny}, zap.NewNop(), d.trust)
	if err != nil {
		t.Fatal(err)
	}
	r.Sync([]Event{block(1)})
	for n := range 5000 {
		r.Tell(block(n))
		if n%2 == 1 {
			r.Tell(unblock(n))
		}
	}
	stop := running(t, r)
	lines := func(file string) int { return strings.Count(contents(t, file), " : DENY\n") }
	until(t, "the lines are written", func() bool { return lines(file) == 2500+1 }) // and the mark
	if s := r.Stats()[0]; s.Dropped+s.Limited+s.Failed > 0 || s.Done > 3 {
		t.Errorf("%+v", s)
	}
	other := HostsDeny{Line: denyLine, File: filepath.Join(filepath.Dir(file), "other.deny")}
	if err := r.Configure(Config{HostsDeny: &other}); err != nil {
		t.Fatal(err)
	}
	r.Sync([]Event{block(7)})
	until(t, "the lines are taken out of the old file", func() bool { return contents(t, file) == "ALL: ALL" })
	until(t, "the lines are in the new one", func() bool {
		_, err := os.Stat(other.File)
		return err == nil && lines(other.File) == 2
	})
	until(t, "the old hook is gone", func() bool { r.mu.Lock(); defer r.mu.Unlock(); return len(r.slots) == 1 })
	r.Tell(unblock(7)) // written at the end, however soon that comes
	stop()
	if got := contents(t, other.File); got != "" {
		t.Errorf("%q is left", got)
	}
}

// running runs a Runner until it is stopped.
func running(t *testing.T, r *Runner) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	return func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(slow):
			t.Fatal("the Runner does not end")
		}
	}
}

// FuzzSection looks for a file that is changed where it is not ours, or a line that is read as another.
func FuzzSection(f *testing.F) {
	f.Add("ALL: ALL", denyLine, uint32(7), uint8(24))
	f.Add("a\n"+lineMarks.begin+denyLine+"\nALL: 192.0.2.7 : DENY\nALL: [2001:db8::]/64 : DENY\nx\n"+lineMarks.end+"\nb", denyLine, uint32(7), uint8(32))
	f.Add(lineMarks.begin+"\n"+lineMarks.end, "$TARGET$", uint32(0), uint8(0))
	f.Add(lineMarks.begin+"$TARGET$\n"+lineMarks.end+"\n"+lineMarks.end, "$TARGET$$TARGET$", uint32(1<<31), uint8(200))
	f.Add(wordMarks.begin+"$TARGET$\n192.0.2.7\n"+wordMarks.end+"\nALL", "$TARGET$", uint32(7), uint8(32))
	f.Fuzz(func(t *testing.T, file, pattern string, n uint32, bits uint8) {
		ours, rest, err := parseSection(file)
		if err != nil {
			return
		}
		if !strings.Contains(pattern, token) || strings.ContainsAny(pattern, "\r\n") || strings.Contains("\n"+rest, "\n"+lineMarks.begin) ||
			strings.Contains("\n"+rest, "\n"+wordMarks.begin) {
			return
		}
		addr := netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
		p := netip.PrefixFrom(addr, int(bits)%33).Masked()
		if bits > 128 {
			p = netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, byte(n), byte(n >> 8), 15: byte(n >> 16)}), int(bits)-127).Masked()
		}
		if got, ok := readLine(pattern, writeLine(pattern, p)); !ok || got != p {
			t.Fatalf("%q with %v is read as %v, %v", pattern, p, got, ok)
		}
		ours[p] = true
		text := ours.text(pattern, rest)
		got, same, err := parseSection(text)
		if err != nil || same != rest || !maps.Equal(got, ours) {
			t.Errorf("%q is read as %v and %q, %v, want %v and %q", text, got, same, err, ours, rest)
		}
	})
}
