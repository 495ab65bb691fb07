package portsentry

import (
	"encoding/binary"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

var (
	addrs    = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
	prefixes = cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
)

// record is one of a binary blocked file.
func record(address string) []byte {
	a := netip.MustParseAddr(address)
	family := uint16(unix.AF_INET)
	if a.Is6() {
		family = unix.AF_INET6
	}
	return append(binary.NativeEndian.AppendUint16(nil, family), a.AsSlice()...)
}

func TestEntry(t *testing.T) {
	for name, tt := range map[string]struct {
		line string
		want Entry
		ok   bool
	}{
		"as written":   {"1795350598 - 11/22/2026 12:29:58 Host: 10.9.9.1/10.9.9.1 Port: 2222 TCP Blocked", Entry{time.Unix(1795350598, 0), "10.9.9.1", netip.MustParseAddr("10.9.9.1"), 2222, "tcp"}, true},
		"resolved":     {"1403884279 - 06/27/2014 17:51:19 Host: scan.example.net/192.0.2.7 Port: 1 UDP Blocked", Entry{time.Unix(1403884279, 0), "scan.example.net", netip.MustParseAddr("192.0.2.7"), 1, "udp"}, true},
		"of 1.0":       {"915148800 - 01/01/99 00:00:00 Host: 192.0.2.7/192.0.2.7 Port: 1 TCP Blocked", Entry{time.Unix(915148800, 0), "192.0.2.7", netip.MustParseAddr("192.0.2.7"), 1, "tcp"}, true},
		"IPv6":         {"1795350598 - 11/22/2026 12:29:58 Host: 2001:db8::5/2001:db8::5 Port: 2222 TCP Blocked", Entry{time.Unix(1795350598, 0), "2001:db8::5", netip.MustParseAddr("2001:db8::5"), 2222, "tcp"}, true},
		"mapped":       {"1795350598 - 11/22/2026 12:29:58 Host: x/::ffff:192.0.2.7 Port: 2222 TCP Blocked", Entry{time.Unix(1795350598, 0), "x", netip.MustParseAddr("192.0.2.7"), 2222, "tcp"}, true},
		"more follows": {"1795350598 - 11/22/2026 12:29:58 Host: 10.9.9.1/10.9.9.1 Port: 2222 TCP Blocked!", Entry{}, false},
		"port":         {"1795350598 - 11/22/2026 12:29:58 Host: 10.9.9.1/10.9.9.1 Port: 65536 TCP Blocked", Entry{}, false},
		"address":      {"1795350598 - 11/22/2026 12:29:58 Host: 10.9.9.1/10.9.9 Port: 1 TCP Blocked", Entry{}, false},
		"year 10000":   {"253402300800 - 01/01/0000 00:00:00 Host: 10.9.9.1/10.9.9.1 Port: 1 TCP Blocked", Entry{}, false},
		"of 2.x":       {"2026-11-22T12:29:58.123+0100 Scan from: [192.0.2.7]", Entry{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseEntry(tt.line)
			if (err == nil) != tt.ok {
				t.Fatalf("error %v", err)
			}
			if diff := cmp.Diff(tt.want, got, addrs); diff != "" {
				t.Errorf("entry (-want +got):\n%s", diff)
			}
		})
	}
}

func TestScan(t *testing.T) {
	const line = "2026-11-22T12:29:58.123+0100 Scan from: [192.0.2.7] (scan.example.net) protocol: [TCP] port: [23] type: [TCP SYN/Normal scan] " +
		"IP opts: [not set] ignored: [false] triggered: [true] noblock: [unset] blocked: [true]"
	want := Scan{Entry{time.Date(2026, 11, 22, 11, 29, 58, 0, time.UTC).Local(), "scan.example.net", netip.MustParseAddr("192.0.2.7"), 23, "tcp"},
		"TCP SYN/Normal scan", true}
	got, err := ParseScan(line)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, addrs, cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) })); diff != "" {
		t.Errorf("scan (-want +got):\n%s", diff)
	}
	for _, flag := range []string{"false", "unset"} {
		if s, err := ParseScan(strings.Replace(line, "blocked: [true]", "blocked: ["+flag+"]", 1)); err != nil || s.Blocked {
			t.Errorf("blocked: [%s] gives %+v, %v", flag, s, err)
		}
	}
	for _, bad := range []string{"", line + " ", strings.Replace(line, "192.0.2.7", "192.0.2", 1), strings.Replace(line, "[23]", "[65536]", 1), strings.Replace(line, "-22T", "-32T", 1)} {
		if s, err := ParseScan(bad); err == nil {
			t.Errorf("%q gives %+v", bad, s)
		}
	}
}

func TestBlocked(t *testing.T) {
	const line = "1795350598 - 11/22/2026 12:29:58 Host: 10.9.9.1/10.9.9.1 Port: 2222 TCP Blocked\n"
	entry := Entry{time.Unix(1795350598, 0), "10.9.9.1", netip.MustParseAddr("10.9.9.1"), 2222, "tcp"}
	both := string(record("192.0.2.7")) + string(record("2001:db8::5")) + string(record("192.0.2.8"))
	four, six, last := Entry{Address: netip.MustParseAddr("192.0.2.7")}, Entry{Address: netip.MustParseAddr("2001:db8::5")}, Entry{Address: netip.MustParseAddr("192.0.2.8")}
	unknown := string(record("192.0.2.7")) + string(binary.NativeEndian.AppendUint16(nil, 7)) + "1234"
	for name, tt := range map[string]struct {
		data string
		want []Entry
		err  string
	}{
		"empty":            {"", nil, ""},
		"text":             {line + "\n" + line, []Entry{entry, entry}, ""},
		"text, torn":       {line + line[:20], []Entry{entry}, ""},
		"text, no newline": {strings.TrimSuffix(line, "\n"), []Entry{entry}, ""},
		"binary":           {both, []Entry{four, six, last}, ""},
		"binary, torn":     {both[:len(both)-1], []Entry{four, six}, ""},
		"binary, damaged":  {unknown, nil, "b: byte 6: the address family 7 is neither IPv4 nor IPv6: the file is damaged, or of a machine of another byte order; move it away"},
		"not a line": {line + "x\n" + "y\n", nil, "b:2: \"x\": " + errNotEntry.Error() + ": take it out\n" +
			"b:3: \"y\": " + errNotEntry.Error() + ": take it out"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseBlocked("b", []byte(tt.data))
			if text(err) != tt.err {
				t.Fatalf("error %v, want %s", err, tt.err)
			}
			if diff := cmp.Diff(tt.want, got, addrs); diff != "" {
				t.Errorf("entries (-want +got):\n%s", diff)
			}
		})
	}
}

func TestIgnore(t *testing.T) {
	for name, tt := range map[string]struct {
		kind IgnoreKind
		line string
		want string // prefix; "" for none
		trap string // "" for none
	}{
		"address":               {Ignore1, "192.0.2.7\n", "192.0.2.7/32", ""},
		"prefix with host bits": {Ignore1, "192.0.2.7/24\n", "192.0.2.0/24", ""},
		"remark":                {Ignore1, "192.0.2.7 # me\n", "192.0.2.7/32", ""},
		"comment":               {Ignore1, "  # 192.0.2.7\n", "", ""},
		"of Debian":             {IgnoreStatic, "0.0.0.0\n", "0.0.0.0/32", ""},
		"no mask":               {IgnoreStatic, "127.0.0.0\n", "127.0.0.0/32", `"127.0.0.0": without a mask this is one address alone: write "127.0.0.0/8" if the network was meant`},
		"no mask, 24":           {Ignore1, "192.0.2.0\n", "192.0.2.0/32", `"192.0.2.0": without a mask this is one address alone: write "192.0.2.0/24" if the network was meant`},
		"no mask, 16":           {Ignore1, "10.1.0.0\n", "10.1.0.0/32", `"10.1.0.0": without a mask this is one address alone: write "10.1.0.0/16" if the network was meant`},
		"indented":              {IgnoreStatic, " 192.0.2.7\n", "", `"192.0.2.7": the line begins with a blank, and Portsentry 1.2 ignored nobody by it`},
		"name":                  {Ignore1, "myhost\n", "", `"myhost": neither an address nor a prefix such as "192.0.2.0/24": Portsentry ignored nobody by it; names are not looked up`},
		"mask in full":          {IgnoreStatic, "192.0.2.0/255.255.255.0\n", "", `"192.0.2.0/255.255.255.0": neither an address nor a prefix such as "192.0.2.0/24": Portsentry ignored nobody by it; names are not looked up`},
		"mask too long":         {Ignore1, "192.0.2.0/33\n", "", `"192.0.2.0/33": neither an address nor a prefix such as "192.0.2.0/24": Portsentry ignored nobody by it; names are not looked up`},
		"words behind":          {IgnoreStatic, "192.0.2.7 office\n", "", `"192.0.2.7 office": something follows the address, and portsentry-build-ignore-file left the line out: put a # before the remark`},
		"IPv6":                  {Ignore1, "2001:db8::1\n", "", `"2001:db8::1": Portsentry 1.2 knows no IPv6 and ignored nobody by it`},
		"everybody":             {Ignore1, "0.0.0.0/0\n", "", `"0.0.0.0/0": a prefix of length 0 is everybody, and undefined in Portsentry 1.2: take it out`},
		"no newline":            {Ignore1, "192.0.2.7", "", `"192.0.2.7": the last line has no newline, and Portsentry read it wrong: end it with one`},
		"no newline, static":    {IgnoreStatic, "192.0.2.7", "192.0.2.7/32", ""},
		"2.x, IPv6":             {Ignore2, "2001:db8::/32\n", "2001:db8::/32", ""},
		"2.x, capitals":         {Ignore2, "2001:DB8::1\n", "", `"2001:DB8::1": a character that Portsentry 2.x does not start with: blanks, remarks and capitals are not allowed there`},
		"2.x, remark":           {Ignore2, "192.0.2.7 # me\n", "", `"192.0.2.7 # me": a character that Portsentry 2.x does not start with: blanks, remarks and capitals are not allowed there`},
		"2.x, host bits":        {Ignore2, "192.0.2.7/24\n", "", `"192.0.2.7/24": bits are set behind the prefix, and Portsentry 2.x ignored nobody by it: write "192.0.2.0/24" for the network or "192.0.2.7" for the single address`},
	} {
		t.Run(name, func(t *testing.T) {
			got, traps := ParseIgnore("i", []byte(tt.line), tt.kind)
			var want []netip.Prefix
			if tt.want != "" {
				want = []netip.Prefix{netip.MustParsePrefix(tt.want)}
			}
			if diff := cmp.Diff(want, got, prefixes); diff != "" {
				t.Errorf("prefixes (-want +got):\n%s", diff)
			}
			var wantTraps []Trap
			if tt.trap != "" {
				wantTraps = []Trap{{"i", 1, tt.trap}}
			}
			if diff := cmp.Diff(wantTraps, traps); diff != "" {
				t.Errorf("traps (-want +got):\n%s", diff)
			}
		})
	}
}

func TestCommand(t *testing.T) {
	for name, tt := range map[string]struct {
		line  string
		words []string
		shell string
	}{
		"plain":          {"/etc/notify.sh $TARGET$ $PORT$  $MODE$", []string{"/etc/notify.sh", "$TARGET$", "$PORT$", "$MODE$"}, ""},
		"quotes":         {`/bin/x 'a b' "c $TARGET$ d" '' e\ f g"h"'i'`, []string{"/bin/x", "a b", "c $TARGET$ d", "", "e f", "ghi"}, ""},
		"inside a word":  {"/bin/x --host=$TARGET$:$PORT$", []string{"/bin/x", "--host=$TARGET$:$PORT$"}, ""},
		"signs in words": {"/bin/x a#b c~ d!e", []string{"/bin/x", "a#b", "c~", "d!e"}, ""},
		"escapes":        {`/bin/x "a\$b\n\"" \| '\'`, []string{"/bin/x", `a$b\n"`, "|", `\`}, ""},
		"pipe":           {"echo $TARGET$ | mail root", nil, `a pipe, "|"`},
		"redirection":    {"echo $TARGET$ >> /tmp/x", nil, `a redirection, ">"`},
		"input":          {"mail root < /dev/null", nil, `a redirection, "<"`},
		"two":            {"a; b", nil, `more than one command, ";"`},
		"and":            {"a && b", nil, `more than one command, "&"`},
		"backticks":      {"echo `date`", nil, "a variable or another command, \"`\""},
		"substitution":   {"echo $(date)", nil, `a variable or another command, "$"`},
		"in quotes":      {`echo "$HOME"`, nil, `a variable or another command, "$"`},
		"variable":       {"echo $HOME", nil, `a variable or another command, "$"`},
		"glob":           {"rm /tmp/*", nil, `a pattern, "*"`},
		"question":       {"rm /tmp/?", nil, `a pattern, "?"`},
		"class":          {"rm /tmp/[a]", nil, `a pattern, "["`},
		"group":          {"(a)", nil, `a group, "("`},
		"home":           {"/bin/x ~/y", nil, `"~" at the start of a word`},
		"comment":        {"/bin/x # y", nil, `"#" at the start of a word`},
		"assignment":     {"LANG=C /bin/x", nil, "a variable that is set"},
		"open":           {"/bin/x 'y", nil, "a quote without its end"},
		"backslash":      {`/bin/x \`, nil, "a backslash at the end"},
		"blank":          {"  ", nil, "no program"},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(Command{tt.words, tt.shell}, ParseCommand(tt.line)); diff != "" {
				t.Errorf("command (-want +got):\n%s", diff)
			}
		})
	}
}

// TestScript has a shell run what is suggested, and compares it with what it makes of the line as Portsentry handed it over.
func TestScript(t *testing.T) {
	for name, line := range map[string]string{
		"plain":         "echo $TARGET$ $PORT$ $MODE$",
		"single quotes": "echo 'scan from $TARGET$ on $PORT$' | tr a-z A-Z",
		"double quotes": `echo "scan from $TARGET$ \"$MODE$\"" > /dev/stdout`,
		"in a word":     `printf '%s\n' a=$TARGET$:$PORT$ \'$MODE$\'`,
		"substitution":  "echo `echo $TARGET$` $(echo '$PORT$')",
		"both quotes":   `echo "it's $TARGET$" 'say "$PORT$"'`,
		"conditional":   `test $MODE$ = atcp && echo yes || echo no`,
	} {
		t.Run(name, func(t *testing.T) {
			handed := strings.NewReplacer("$TARGET$", "192.0.2.7", "$PORT$", "23", "$MODE$", "atcp").Replace(line)
			want, err := exec.Command("/bin/sh", "-c", handed).CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, want)
			}
			path := filepath.Join(t.TempDir(), "script")
			if err := os.WriteFile(path, []byte(strings.Join(ParseScript(line), "\n")+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := exec.Command("/bin/sh", path, "192.0.2.7", "23", "atcp").CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, got)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("output (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRead(t *testing.T) {
	dir := t.TempDir()
	file, fifo := filepath.Join(dir, "file"), filepath.Join(dir, "fifo")
	if err := os.WriteFile(file, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if data, err := Read(file, 1<<20); err != nil || len(data) != 1<<20 {
		t.Errorf("%d bytes, %v", len(data), err)
	}
	if err := os.WriteFile(file, make([]byte, 1<<20+1), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		file: file + ": larger than 1 MiB: this cannot be the file of Portsentry that it is named as",
		fifo: fifo + ": not a regular file",
		dir:  dir + ": not a regular file",
	} {
		if _, err := Read(path, 1<<20); text(err) != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
