package host

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseResolv(t *testing.T) {
	tests := []struct {
		name, file string
		want       []netip.Addr
	}{
		{"empty", "", nil},
		{"one", "nameserver 192.0.2.53\n", addrs("192.0.2.53")},
		{"no newline", "nameserver 192.0.2.53", addrs("192.0.2.53")},
		{"order of the file", "nameserver 192.0.2.54\nnameserver 2001:db8::53\nnameserver 192.0.2.53\n", addrs("192.0.2.54", "2001:db8::53", "192.0.2.53")},
		{"more than three", "nameserver 10.0.0.1\nnameserver 10.0.0.2\nnameserver 10.0.0.3\nnameserver 10.0.0.4\n", addrs("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4")},
		{"tabs, blanks and CRLF", "\tnameserver\t192.0.2.53  \r\n", addrs("192.0.2.53")},
		{"zone", "nameserver fe80::1%eth0\nnameserver fe80::2%2\n", addrs("fe80::1", "fe80::2")},
		{"IPv4 in IPv6", "nameserver ::ffff:192.0.2.53\n", addrs("192.0.2.53")},
		{"what follows the address", "nameserver 192.0.2.53 # office\n", addrs("192.0.2.53")},
		{"comments", "# nameserver 10.0.0.1\n;nameserver 10.0.0.2\n#nameserver 10.0.0.3\n", nil},
		{"other keywords", "search nameserver 10.0.0.1\noptions edns0 trust-ad\ndomain example.org\nnameservers 10.0.0.2\n", nil},
		{"keyword alone", "nameserver\nnameserver \n", nil},
		{"no address", "nameserver dns.example.org\nnameserver 192.0.2.300\nnameserver 192.0.2.53:53\n", nil},
		{"systemd-resolved", "# This is /run/systemd/resolve/stub-resolv.conf\nnameserver 127.0.0.53\noptions edns0 trust-ad\nsearch .\n", addrs("127.0.0.53")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, parseResolv(tt.file), exact); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func FuzzParseResolv(f *testing.F) {
	f.Add("nameserver 192.0.2.53\nnameserver fe80::1%eth0\n")
	f.Fuzz(func(t *testing.T, file string) {
		got := parseResolv(file)
		var again strings.Builder
		for _, a := range got {
			if !a.IsValid() || a.Zone() != "" || a.Is4In6() {
				t.Errorf("want a plain address, got %q", a)
			}
			again.WriteString("nameserver " + a.String() + "\n")
		}
		if diff := cmp.Diff(got, parseResolv(again.String()), exact); diff != "" {
			t.Errorf("written and read again: (-want +got)\n%s", diff)
		}
	})
}

// write writes a file of a test.
func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestResolvers(t *testing.T) {
	const stub, plain = "nameserver 127.0.0.53\n", "nameserver 192.0.2.53\n"
	const first, second = "nameserver 198.51.100.2\nnameserver 198.51.100.1\nnameserver 0.0.0.0\n", "nameserver ::1\nnameserver fe80::53%eth0\n"
	tests := []struct {
		name, conf, first, second string
		want                      []netip.Addr
	}{
		{"no files", "", "", "", nil},
		{"no stub", plain, first, second, addrs("192.0.2.53")},
		{"stub", stub, first, "", addrs("127.0.0.53", "198.51.100.1", "198.51.100.2")},
		{"stub, nothing behind it", stub, "", "", addrs("127.0.0.53")},
		{"one of them a stub", plain + stub, first, "", addrs("127.0.0.53", "192.0.2.53", "198.51.100.1", "198.51.100.2")},
		{"IPv6 stub, two files", "nameserver ::1\n", first, second, addrs("198.51.100.1", "198.51.100.2", "::1", "fe80::53")},
		{"no name server", "options edns0\n", first, "", addrs("198.51.100.1", "198.51.100.2")},
		{"no resolv.conf", "", first, "", addrs("198.51.100.1", "198.51.100.2")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			r := resolvFiles{conf: filepath.Join(dir, "conf"), upstream: []string{filepath.Join(dir, "first"), filepath.Join(dir, "second")}}
			for name, text := range map[string]string{"conf": tt.conf, "first": tt.first, "second": tt.second} {
				if text != "" {
					write(t, filepath.Join(dir, name), text)
				}
			}
			got, err := r.read()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got, exact); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestResolversUnreadable(t *testing.T) {
	dir := t.TempDir()
	conf := filepath.Join(dir, "conf")
	tests := []struct {
		name  string
		files resolvFiles
	}{
		{"resolv.conf", resolvFiles{conf: dir}}, // a directory
		{"upstream", resolvFiles{conf: conf, upstream: []string{dir}}},
	}
	for _, tt := range tests {
		_, err := tt.files.read()
		if perr, ok := errors.AsType[*fs.PathError](err); !ok || perr.Path != dir {
			t.Errorf("%s: want an error that names %s, got %v", tt.name, dir, err)
		}
	}
}

func TestStamps(t *testing.T) {
	dir := t.TempDir()
	conf, upstream := filepath.Join(dir, "conf"), filepath.Join(dir, "upstream")
	r := resolvFiles{conf: filepath.Join(dir, "link"), upstream: []string{upstream}}
	long, ago := time.Now().Add(-time.Hour), time.Now().Add(-time.Minute)
	before := r.stamps()
	if diff := cmp.Diff(before, r.stamps(), cmp.AllowUnexported(stamp{})); diff != "" {
		t.Errorf("nothing changed: (-want +got)\n%s", diff)
	}
	steps := []struct {
		name string
		do   func() error
	}{
		{"symbolic link made", func() error { write(t, conf, "nameserver 192.0.2.53\n"); return os.Symlink(conf, r.conf) }},
		{"touched", func() error { return os.Chtimes(conf, long, long) }},
		{"rewritten", func() error { write(t, conf, "nameserver 192.0.2.54\n"); return os.Chtimes(conf, ago, ago) }},
		{"replaced by one just as old and long", func() error {
			write(t, conf+".new", "nameserver 192.0.2.55\n")
			return errors.Join(os.Chtimes(conf+".new", ago, ago), os.Rename(conf+".new", conf))
		}},
		{"upstream made", func() error { write(t, upstream, ""); return nil }},
		{"removed", func() error { return os.Remove(conf) }},
	}
	for _, s := range steps {
		if err := s.do(); err != nil {
			t.Fatal(err)
		}
		after := r.stamps()
		if slices.Equal(before, after) {
			t.Errorf("%s: not noticed", s.name)
		}
		before = after
	}
}
