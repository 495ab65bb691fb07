package conf

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/zap/zapcore"
)

var prefixes = cmpopts.EquateComparable(netip.Prefix{})

// TestBad reads one file for each mistake, with the exact messages beside it.
func TestBad(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.toml")
	if err != nil || len(files) < 30 {
		t.Fatalf("%d bad files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			want, err := os.ReadFile(strings.TrimSuffix(file, ".toml") + ".err")
			if err != nil {
				t.Fatal(err)
			}
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			_, err = Parse("conf.toml", data)
			var errs Errors
			if !errors.As(err, &errs) {
				t.Fatalf("error %v, want Errors", err)
			}
			if diff := cmp.Diff(string(want), err.Error()+"\n"); diff != "" {
				t.Errorf("messages (-want +got):\n%s", diff)
			}
		})
	}
}

func TestGood(t *testing.T) {
	with := func(change func(*Config)) Config {
		c := Default()
		change(&c)
		return c
	}
	for _, tt := range []struct {
		name, text string
		want       Config
	}{
		{"empty", "", Default()},
		{"comments", "# nothing\n[tcp]\n[block] # nothing\n", Default()},
		{"mark and CRLF", "\ufeffmode = \"observe\"\r\n[block]\r\ntimeout = \"5m\"\r\n", with(func(c *Config) {
			c.Mode, c.Block.Timeout = Observe, 5*time.Minute
		})},
		{"dotted keys", "block.timeout = \"1h30m\"\nblock.escalate = []\ntcp.decoy = \"\"", with(func(c *Config) {
			c.Block.Timeout, c.Block.Escalate, c.TCP.Decoy = 90*time.Minute, nil, nil
		})},
		{"inline table", "block = { action = \"reject\", prefix6 = 56 }", with(func(c *Config) {
			c.Block.Action, c.Block.Prefix6 = Reject, 56
		})},
		{"a long first block leaves out shorter default steps", "block.timeout = \"2h\"", with(func(c *Config) {
			c.Block.Timeout, c.Block.Escalate = 2*time.Hour, []time.Duration{24 * time.Hour, 7 * 24 * time.Hour}
		})},
		{"sources", `ignore.sources = ["192.0.2.7", "192.0.2.0/24", "::ffff:198.51.100.1", "2001:db8::/32",
			"0.0.0.0/0"] # a last comma is fine too`, with(func(c *Config) {
			c.Ignore.Sources = []netip.Prefix{
				netip.MustParsePrefix("192.0.2.7/32"), netip.MustParsePrefix("192.0.2.0/24"),
				netip.MustParsePrefix("198.51.100.1/32"), netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("0.0.0.0/0"),
			}
		})},
		{"all of the rest", `
			tcp.exclude = "22"
			tcp.banner = "go\taway"
			tcp.port = 1023
			trigger = { connects = 3, window = "30s" }
			block.forget = "1w"
			ignore = { host = false, interfaces = ["wg0", "br-lan"] }
			state.dir = "/srv/state"
			control = { socket = "/srv/sock", group = "root" }
			log = { level = "debug", format = "json" }`, with(func(c *Config) {
			c.TCP.Exclude, c.TCP.Banner, c.TCP.Port = []PortRange{{22, 22}}, "go\taway", 1023
			c.Trigger = Trigger{3, 30 * time.Second}
			c.Block.Forget = 7 * 24 * time.Hour
			c.Ignore.Host, c.Ignore.Interfaces = false, []string{"wg0", "br-lan"}
			c.State.Dir, c.Control = "/srv/state", Control{"/srv/sock", "root"}
			c.Log = Log{zapcore.DebugLevel, JSON}
		})},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Parse("conf.toml", []byte(tt.text))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got, prefixes); diff != "" {
				t.Errorf("configuration (-want +got):\n%s", diff)
			}
		})
	}
}

// TestReference holds the reference file to the defaults and to the keys that
// there are.
func TestReference(t *testing.T) {
	got, err := Load("reference.toml")
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	if diff := cmp.Diff(want, got, prefixes, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("reference.toml (-default +reference):\n%s", diff)
	}
	data, err := os.ReadFile("reference.toml")
	if err != nil {
		t.Fatal(err)
	}
	doc, _ := parseDocument("", data)
	r := &reader{doc: doc}
	want.read(r)
	for _, key := range r.known {
		if _, ok := doc.values[key]; !ok {
			t.Errorf("reference.toml has no %s", key)
		}
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load(filepath.Join(dir, "missing.toml")); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "missing.toml: file does not exist: name another file with -c") {
		t.Errorf("missing file: %v", err)
	}
	if _, err := Load(dir); err == nil {
		t.Error("a folder: no error")
	}
	large := filepath.Join(dir, "large.toml")
	if err := os.WriteFile(large, make([]byte, maxSize+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(large); err == nil || !strings.Contains(err.Error(), "larger than 1 MiB") {
		t.Errorf("large file: %v", err)
	}
}

// FuzzParse looks for texts that are read in other ways than told: what is
// right can be written and read again, and what is wrong is told with a place
// within the text.
func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/bad/*.toml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range append(files, "reference.toml") {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("conf.toml", data)
		if err == nil {
			checkRoundTrips(t, c)
			return
		}
		var errs Errors
		if !errors.As(err, &errs) || len(errs) == 0 {
			t.Fatalf("error %v, want Errors", err)
		}
		lines := strings.Count(string(data), "\n") + 1
		for _, e := range errs {
			if e.Line < 1 || e.Line > lines || e.Column < 1 || strings.ContainsAny(e.Error(), "\n") {
				t.Errorf("%q in a text of %d lines", e, lines)
			}
		}
		if _, terr := toml.Decode(string(data), new(map[string]any)); terr == nil && errs[0].Key == "" && len(data) < maxSize &&
			!strings.HasPrefix(string(data), "\ufeff") {
			t.Errorf("an error of syntax, %v, in what is TOML", err)
		}
	})
}

func checkRoundTrips(t *testing.T, c Config) {
	t.Helper()
	for _, ports := range [][]PortRange{c.TCP.Decoy, c.TCP.Exclude, c.TCP.Tripwires()} {
		again, err := ParsePorts(FormatPorts(ports))
		if diff := cmp.Diff(ports, again, cmpopts.EquateEmpty()); diff != "" || err != nil {
			t.Errorf("ports written and read (-want +got):\n%s%v", diff, err)
		}
	}
	for _, d := range append([]time.Duration{c.Block.Timeout, c.Block.Forget, c.Trigger.Window}, c.Block.Escalate...) {
		if again, err := ParseDuration(FormatDuration(d)); again != d || err != nil {
			t.Errorf("duration %v written and read is %v, %v", d, again, err)
		}
	}
}
