package conf

import (
	"errors"
	"flag"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/zap/zapcore"
)

var update = flag.Bool("update", false, "write testdata/bad/*.err anew")

var prefixes = cmpopts.EquateComparable(netip.Prefix{})

// TestBad reads a file for each mistake, with the exact messages beside it.
func TestBad(t *testing.T) {
	for _, file := range glob(t, "testdata/bad/*.toml") {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".toml"), func(t *testing.T) {
			c, err := Parse(filepath.Base(file), contents(t, file))
			if err == nil {
				t.Fatal("no error")
			}
			if diff := cmp.Diff(Config{}, c, prefixes); diff != "" {
				t.Errorf("with the error comes a Config (-want +got):\n%s", diff)
			}
			wantFile := strings.TrimSuffix(file, ".toml") + ".err"
			if *update {
				if err := os.WriteFile(wantFile, []byte(err.Error()+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(string(contents(t, wantFile)), err.Error()+"\n"); diff != "" {
				t.Errorf("messages (-want +got):\n%s", diff)
			}
		})
	}
}

// TestGood says what each good file changes of the defaults.
func TestGood(t *testing.T) {
	changes := map[string]func(*Config){
		"empty":    func(*Config) {},
		"comments": func(*Config) {},
		"crlf-bom": func(c *Config) { c.Mode, c.Block.Timeout = Observe, 5*time.Minute },
		"everything": func(c *Config) {
			*c = Config{
				Mode: Observe,
				TCP: TCP{
					Decoy: []PortRange{{1, 21}, {23, 23}}, Watch: []PortRange{{1, 1024}, {8080, 8080}}, Exclude: []PortRange{{7, 7}},
					Respond: RespondLog, Banner: "go\taway\r\n", Port: 1023,
				},
				UDP: UDP{Watch: []PortRange{{1, 100}, {137, 138}}, Respond: RespondLog},
				Trigger: Trigger{
					Connects: 3, Ports: 1000, Window: 30 * time.Second, Budget: Rate{100000, day}, NFLOGGroup: 65534,
				},
				Block: Block{
					Timeout: time.Second, Escalate: []time.Duration{time.Minute, time.Minute, 365 * day}, Forget: 14 * day,
					Unproven: 90 * time.Second, Prefix6: 56, Action: Reject, Max: 1_000_000,
				},
				Ignore: Ignore{
					Files:    []string{"/etc/portsentry/portsentry.ignore", "/etc/portsentry/portsentry.ignore.static"},
					Sessions: []PortRange{{22, 22}, {2222, 2222}}, Interfaces: []string{"wg0", "br-lan.7"},
				},
				State:   State{Dir: "/srv/state"},
				Control: Control{Socket: "/srv/state/sock", Group: "root"},
				Metrics: Metrics{Listen: "10.0.0.5:9478", Expose: true},
				Log:     Log{Level: zapcore.DebugLevel, Format: JSON},
				Hook:    everyHook(),
			}
		},
		"hooks-inline": func(c *Config) {
			one, two := defaultExec(), defaultExec()
			one.Command, two.Command, two.Before = []string{"/bin/a"}, []string{"/bin/b", "$TARGET$"}, true
			deny := defaultHostsDeny()
			c.Hook.Exec, c.Hook.HostsDeny = []HookExec{one, two}, &deny
			c.TCP.Respond, c.UDP.Respond = RespondRun, RespondRun
		},
		"short-timeout": func(c *Config) { c.Block.Timeout = time.Minute },
		"off": func(c *Config) {
			c.TCP.Watch, c.Ignore.Sessions, c.Trigger.Budget = nil, nil, Rate{1, time.Second}
		},
		"port-in-watch": func(c *Config) { c.TCP.Watch, c.TCP.Port = []PortRange{{1, 65535}}, 99 },
		"inline":        func(c *Config) { c.Block.Action, c.Block.Prefix6, c.TCP.Decoy = Reject, 48, nil },
		"sources": func(c *Config) {
			for _, s := range []string{
				"192.0.2.7/32", "192.0.2.0/24", "198.51.100.1/32", "203.0.113.0/24", "2001:db8::/32", "2001:db8::1/128", "0.0.0.0/0",
			} {
				c.Ignore.Sources = append(c.Ignore.Sources, netip.MustParsePrefix(s))
			}
		},
		"metrics-loopback": func(c *Config) { c.Metrics.Listen = "[::1]:9478" },
		"metrics-mapped":   func(c *Config) { c.Metrics.Listen = "127.0.0.2:9478" },
		"metrics-socket":   func(c *Config) { c.Metrics.Listen = "/run/nftsentry/metrics.sock" },
		"no-escalate":      func(c *Config) { c.Block.Escalate = nil },
		"long-timeout":     func(c *Config) { c.Block.Timeout, c.Block.Escalate = 2*time.Hour, []time.Duration{day, 7 * day} },
		"strange-names":    func(c *Config) { c.Mode, c.TCP.Banner = Observe, "[tcp]\nport = 99\n\"" },
	}
	files := glob(t, "testdata/good/*.toml")
	if len(files) != len(changes) {
		t.Errorf("%d files, %d expectations", len(files), len(changes))
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".toml")
		t.Run(name, func(t *testing.T) {
			want := Default()
			changes[name](&want)
			got, err := Load(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got, prefixes); diff != "" {
				t.Errorf("configuration (-want +got):\n%s", diff)
			}
		})
	}
}

// TestReference holds the reference file to the defaults and to the keys that there are.
func TestReference(t *testing.T) {
	want := Default()
	got, err := Load("reference.toml")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, prefixes); diff != "" {
		t.Errorf("reference.toml (-default +reference):\n%s", diff)
	}
	places := scan(string(contents(t, "reference.toml"))).places
	for _, key := range want.settings().keys() {
		if _, ok := places[key]; !ok && sectionHeaders[key] == "" {
			t.Errorf("reference.toml has no %s", key)
		}
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	_, err := Load(filepath.Join(dir, "none.toml"))
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "none.toml: file does not exist: name another file with -c") {
		t.Errorf("a file that is missing: %v", err)
	}
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "is a directory") {
		t.Errorf("a directory: %v", err)
	}
	full := write(t, dir, "full.toml", strings.Repeat("#", maxSize))
	if _, err := Load(full); err != nil {
		t.Errorf("a file of 1 MiB: %v", err)
	}
	large := write(t, dir, "large.toml", strings.Repeat("#", maxSize+1))
	if _, err := Load(large); err == nil || !strings.Contains(err.Error(), "large.toml: larger than 1 MiB") {
		t.Errorf("a file above 1 MiB: %v", err)
	}
	wrong := write(t, dir, "wrong.toml", "mode = 1\n[tcp]\nport = -1\n")
	_, err = Load(wrong)
	var errs Errors
	if !errors.As(err, &errs) || len(errs) != 2 || errs[1].File != wrong || errs[1].Line != 3 {
		t.Errorf("a file with mistakes: %v", err)
	}
	var one *Error
	if !errors.As(err, &one) || one.Key != "mode" {
		t.Errorf("the first mistake: %v", one)
	}
}

// TestDefault shows that nobody can change the defaults of another.
func TestDefault(t *testing.T) {
	c := Default()
	for _, ports := range [][]PortRange{c.TCP.Decoy, c.TCP.Watch, c.TCP.Exclude, c.UDP.Exclude, c.Ignore.Sessions} {
		ports[0] = PortRange{}
	}
	c.Block.Escalate[0] = 0
	d := Default()
	for _, ports := range [][]PortRange{d.TCP.Decoy, d.TCP.Watch, d.TCP.Exclude, d.UDP.Exclude, d.Ignore.Sessions} {
		if ports[0] == (PortRange{}) {
			t.Errorf("%v are shared", ports)
		}
	}
	if d.Block.Escalate[0] == 0 {
		t.Error("the steps are shared")
	}
}

// TestBombs reads files that are small, and large for a reader that is careless.
func TestBombs(t *testing.T) {
	const size = maxSize / 4 // for the sake of the race detector
	fill := func(s string) string { return strings.Repeat(s, size/len(s)) }
	for name, text := range map[string]string{
		"arrays":         "a = " + fill("["),
		"inline tables":  "a = " + fill("{a="),
		"dotted key":     fill("a."),
		"dotted keys":    fill(strings.Repeat("a.", maxKey/2-1) + "b = 1\n"),
		"table":          "[" + fill("a."),
		"long name":      fill("a"),
		"unknown keys":   distinct(size / 16),
		"items":          "ignore.sources = [" + fill("1,") + "]",
		"ports":          "tcp.decoy = \"" + fill("1,") + "\"",
		"tables":         fill("[[a]]\n"),
		"quoted names":   fill("\"\\u0061\"."),
		"unclosed":       "a = \"\"\"" + fill("\\"),
		"empty lines":    fill("\n") + "!",
		"rate":           "trigger.budget = \"" + fill("9") + "/m\"",
		"unit of a rate": "trigger.budget = \"1/" + fill("m") + "\"",
		"duration":       "block.timeout = \"" + fill("9") + "s\"",
		"bare word":      "mode = " + fill("x"),
		"control bytes":  fill("\x01"),
		"carriage":       fill("\r"),
		"byte order":     fill("\ufeff"),
		"open header":    fill("["),
		"quotes":         fill("'"),
		"equals":         fill("="),
		"comma":          "a = [" + fill(","),
		"half character": fill("\xe2"),
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			if _, err := Parse("bomb.toml", []byte(text)); err == nil {
				t.Error("no error")
			}
			if spent := time.Since(start); spent > 20*time.Second {
				t.Errorf("read in %v", spent)
			}
		})
	}
}

// distinct is a file of n unknown keys.
func distinct(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString("k" + PortRange{uint16(i>>8) + 1, uint16(i&0xff) + 1000}.String() + "=1\n")
	}
	return b.String()
}

func glob(t testing.TB, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: %d files, %v", pattern, len(files), err)
	}
	return files
}

func contents(t testing.TB, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
