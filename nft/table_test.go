package nft

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"nftsentry/integration/netns"
)

func TestMain(m *testing.M) { netns.Main(m) }

func prefixList(list ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// enforce is the configuration that testdata/enforce.nft is written for.
func enforce() Config {
	return Config{
		Enforce:  true,
		Decoys:   []PortRange{{23, 23}, {2323, 2323}, {4000, 4999}, {65000, 65535}},
		Port:     1023,
		WatchTCP: []PortRange{{1, 1022}, {1024, 1024}}, WatchUDP: []PortRange{{1, 1024}},
		JudgeTCP: true, JudgeUDP: true,
		Ports: 3, Window: time.Minute, Timeout: 10 * time.Minute, Budget: Rate{120, time.Minute},
		Sessions: []PortRange{{22, 22}}, Ephemeral: PortRange{32768, 60999},
		Group: 61999, FloodRate: 4096,
		Prefix6: 64,
		OnLink6: prefixList("fd88::/64"),
		Ignored: prefixList("127.0.0.0/8", "192.0.2.0/31", "192.0.2.2/32", "127.0.0.1/32", "::1/128", "fe80::/10"),
	}
}

// load makes a host and opens the table there with a configuration.
func load(t *testing.T, cfg Config, blocks ...Element) (*netns.Host, *Table) {
	t.Helper()
	host := netns.New(t, "host")
	table, err := Open(host.FD())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = table.Close() })
	if err := table.Load(cfg, blocks, nil); err != nil {
		t.Fatal(err)
	}
	return host, table
}

func list(t *testing.T, host *netns.Host) string {
	t.Helper()
	return host.Output(t, netns.Tool(t, "nft"), "list", "table", "inet", TableName)
}

// golden loads a file of testdata by nft(8) and returns what nft(8) then
// lists: versions of nft(8) differ in how they list.
func golden(t *testing.T, name string) string {
	t.Helper()
	host := netns.New(t, "golden")
	host.Output(t, netns.Tool(t, "nft"), "-f", filepath.Join("testdata", name+".nft"))
	return list(t, host)
}

// TestGolden compares what Go builds with what nft(8) builds from text, both
// as nft(8) lists them.
func TestGolden(t *testing.T) {
	enforced := enforce()
	careful := enforce()
	careful.Reject, careful.Prefix6, careful.IgnoredInterfaces = true, 56, []string{"wg0", "br-lan"}
	careful.JudgeUDP, careful.Ports, careful.Sessions = false, 1, []PortRange{{22, 22}, {2200, 2299}}
	observed := enforce()
	observed.Enforce, observed.JudgeTCP, observed.JudgeUDP = false, false, false
	stopped := enforce()
	stopped.Port = 0
	for name, cfg := range map[string]Config{
		"enforce": enforced, "careful": careful, "observe": observed, "stopped": stopped,
	} {
		t.Run(name, func(t *testing.T) {
			want := golden(t, name)
			host, _ := load(t, cfg)
			if diff := cmp.Diff(want, list(t, host)); diff != "" {
				t.Errorf("nft list table (-want +got):\n%s", diff)
			}
		})
	}
}

// TestLoadTwice shows that loading is idempotent, also over a table with a
// foreign chain and a foreign rule in it.
func TestLoadTwice(t *testing.T) {
	host, table := load(t, enforce())
	want := list(t, host)
	nft := netns.Tool(t, "nft")
	host.Output(t, nft, "add chain inet nftsentry mine { type filter hook input priority 0; }")
	host.Output(t, nft, "add rule inet nftsentry mine goto refuse_new")
	host.Output(t, nft, "flush chain inet nftsentry shield")
	for range 2 {
		if err := table.Load(enforce(), nil, nil); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, list(t, host)); diff != "" {
			t.Errorf("nft list table (-want +got):\n%s", diff)
		}
	}
}

// TestLoadOverOtherShape shows that a table whose sets have another shape, as
// another version may have left it, is replaced.
func TestLoadOverOtherShape(t *testing.T) {
	host := netns.New(t, "host")
	nft := netns.Tool(t, "nft")
	host.Output(t, nft, "add table inet nftsentry")
	host.Output(t, nft, "add set inet nftsentry blocked4 { type ipv6_addr; }")
	host.Output(t, nft, "add chain inet nftsentry shield { type filter hook input priority 7; }")
	table, err := Open(host.FD())
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	if got, err := table.Blocked(); len(got) != 0 || err != nil {
		t.Errorf("Blocked() = %v, %v, want nothing", got, err)
	}
	if err := table.Load(enforce(), nil, nil); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(golden(t, "enforce"), list(t, host)); diff != "" {
		t.Errorf("nft list table (-want +got):\n%s", diff)
	}
}

func TestUnlure(t *testing.T) {
	host, table := load(t, enforce(), Element{Prefix: netip.MustParsePrefix("198.51.100.7/32"), Timeout: time.Hour})
	if err := table.Unlure(); err != nil {
		t.Fatal(err)
	}
	got := list(t, host)
	if strings.Contains(got, "chain lure") || !strings.Contains(got, "198.51.100.7") || !strings.Contains(got, "chain shield ") {
		t.Errorf("after Unlure:\n%s", got)
	}
	host.Output(t, netns.Tool(t, "nft"), "delete table inet nftsentry")
	if err := table.Unlure(); err != nil {
		t.Errorf("Unlure without a table: %v", err)
	}
}

func TestSetHost(t *testing.T) {
	host, table := load(t, enforce())
	if err := table.SetHost(prefixList("203.0.113.0/24", "2001:db8::/32"), prefixList("2001:db8:9::/64")); err != nil {
		t.Fatal(err)
	}
	got := list(t, host)
	for _, want := range []string{"elements = { 203.0.113.0/24 }", "elements = { 2001:db8::/32 }", "elements = { 2001:db8:9::/64,"} {
		if !strings.Contains(got, want) {
			t.Errorf("want %q in\n%s", want, got)
		}
	}
}

func TestDelete(t *testing.T) {
	host, table := load(t, enforce())
	for _, want := range []bool{true, false} {
		if got, err := table.Delete(); err != nil || got != want {
			t.Errorf("Delete() = %v, %v, want %v", got, err, want)
		}
	}
	if got := host.Output(t, netns.Tool(t, "nft"), "list", "ruleset"); got != "" {
		t.Errorf("after Delete:\n%s", got)
	}
	if got, err := table.Blocked(); len(got) != 0 || err != nil {
		t.Errorf("Blocked() without a table = %v, %v, want nothing", got, err)
	}
}

// TestCheck shows that a dry run passes on a kernel that has all, and leaves nothing.
func TestCheck(t *testing.T) {
	host := netns.New(t, "host")
	table, err := Open(host.FD())
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	if err := table.Check(enforce()); err != nil {
		t.Errorf("Check: %v", err)
	}
	if err := table.explain(enforce(), unix.EINVAL); !errors.Is(err, unix.EINVAL) {
		t.Errorf("explain on a kernel that lacks nothing: %v", err)
	}
	if got := host.Output(t, netns.Tool(t, "nft"), "list", "ruleset"); got != "" {
		t.Errorf("after Check:\n%s", got)
	}
}

// TestExplain takes the kernel for one that lacks a feature, by asking for
// something that no kernel has.
func TestExplain(t *testing.T) {
	_, table := load(t, enforce())
	all := features
	t.Cleanup(func() { features = all })
	features = append(all[:len(all):len(all)], feature{"time machine", "nft_tardis", func(*builder) rule { return count("nowhere") }})

	err := table.explain(enforce(), unix.ENOENT)
	var unsupported *UnsupportedError
	if !errors.As(err, &unsupported) || unsupported.Module != "nft_tardis" {
		t.Fatalf("explain = %v, want the missing feature", err)
	}
	want := "this kernel has no time machine for nftables: load the module nft_tardis (modprobe nft_tardis), or use a kernel that has it"
	if err.Error() != want {
		t.Errorf("message %q, want %q", err, want)
	}
}

func TestConfigValidate(t *testing.T) {
	for name, spoil := range map[string]func(*Config){
		"prefix6 0":      func(c *Config) { c.Prefix6 = 0 },
		"prefix6 129":    func(c *Config) { c.Prefix6 = 129 },
		"port 0":         func(c *Config) { c.Decoys = []PortRange{{0, 1}} },
		"reversed range": func(c *Config) { c.Decoys = []PortRange{{5, 4}} },
		"overlap":        func(c *Config) { c.Decoys = []PortRange{{1, 5}, {5, 6}} },
	} {
		cfg := enforce()
		spoil(&cfg)
		if err := cfg.validate(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func ExampleUnsupportedError() {
	fmt.Println(&UnsupportedError{Feature: "socket expression", Module: "nft_socket"})
	// Output: this kernel has no socket expression for nftables: load the module nft_socket (modprobe nft_socket), or use a kernel that has it
}
