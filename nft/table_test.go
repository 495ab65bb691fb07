package nft

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
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
		Group: 61999, DecoyRate: 8192, WatchRate: 4096,
		Prefix6: 64,
		OnLink6: prefixList("fd88::/64"),
		Ignored: prefixList("127.0.0.0/8", "192.0.2.0/31", "192.0.2.2/32", "127.0.0.1/32", "::1/128", "fe80::/10"),
	}
}

// load makes a host and opens the table there with a configuration.
func load(t *testing.T, cfg Config, blocks ...Element) (*netns.Host, *Table) {
	t.Helper()
	host := netns.New(t, "host")
	table, err := Open(host.FD(), 64)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = table.Close() })
	if err := table.Load(cfg, slices.Values(blocks), nil); err != nil {
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
	table, err := Open(host.FD(), 64)
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	if got, _, err := table.Blocked(); len(got) != 0 || err != nil {
		t.Errorf("Blocked() = %v, %v, want nothing", got, err)
	}
	if err := table.Load(enforce(), nil, nil); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(golden(t, "enforce"), list(t, host)); diff != "" {
		t.Errorf("nft list table (-want +got):\n%s", diff)
	}
}

// TestLoadFails shows that a table which cannot be loaded leaves all as it
// was, also what is remembered of prefixes.
func TestLoadFails(t *testing.T) {
	host, table := load(t, enforce(), Element{Prefix: netip.MustParsePrefix("198.51.100.0/24"), Timeout: time.Hour})
	var many []Element
	for i := range DefaultHosts + 1 {
		many = append(many, Element{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32), Timeout: time.Hour})
	}
	if err := table.Load(enforce(), slices.Values(many), nil); !errors.Is(err, unix.ENFILE) {
		t.Fatalf("Load of too many: %v, want ENFILE", err)
	}
	if err := table.Block(Element{Prefix: netip.MustParsePrefix("203.0.113.0/24"), Timeout: time.Hour}); err != nil {
		t.Fatal(err)
	}
	if got := list(t, host); !strings.Contains(got, "198.51.100.0/24") || !strings.Contains(got, "203.0.113.0/24") {
		t.Errorf("want both prefixes in\n%s", got)
	}
}

// TestServed shows that services are added and read back, that a Load without
// any leaves them, and that too many are cut.
func TestServed(t *testing.T) {
	host, table := load(t, enforce())
	want := []Service{{unix.IPPROTO_TCP, 2323, time.Hour}, {unix.IPPROTO_UDP, 53, 24 * time.Hour}}
	for _, given := range [][]Service{want, nil} {
		if err := table.Load(enforce(), nil, given); err != nil {
			t.Fatal(err)
		}
		got, err := table.Served()
		if err != nil {
			t.Fatal(err)
		}
		for i := range got {
			got[i].Timeout = got[i].Timeout.Round(time.Minute)
		}
		slices.SortFunc(got, func(a, b Service) int { return cmpInt(a.Protocol, b.Protocol) })
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("served (-want +got):\n%s", diff)
		}
	}
	if err := table.Serve([]Service{{unix.IPPROTO_TCP, 2323, 2 * time.Hour}, {unix.IPPROTO_TCP, 79, 2 * time.Hour}}); err != nil {
		t.Fatal(err)
	}
	if got := list(t, host); !strings.Contains(got, "tcp . 2323 timeout 2h") || !strings.Contains(got, "tcp . 79 timeout 2h") || !strings.Contains(got, "udp . 53 timeout 1d") {
		t.Errorf("want both services in\n%s", got)
	}
	var many []Service
	for i := range MaxServed + 1 {
		many = append(many, Service{unix.IPPROTO_TCP, uint16(i + 1), time.Hour})
	}
	if err := table.Load(enforce(), nil, many); err != nil {
		t.Errorf("Load of too many services: %v", err)
	}
	if got, err := table.Served(); len(got) != MaxServed || err != nil {
		t.Errorf("%d services, %v, want %d", len(got), err, MaxServed)
	}
}

func cmpInt(a, b byte) int { return int(a) - int(b) }

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
	if err := table.Unlure(); !errors.Is(err, unix.ENOENT) {
		t.Errorf("Unlure without a table: %v, want ENOENT", err)
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
	if got, _, err := table.Blocked(); len(got) != 0 || err != nil {
		t.Errorf("Blocked() without a table = %v, %v, want nothing", got, err)
	}
}

// TestCheck shows that a dry run passes on a kernel that has all, and leaves nothing.
func TestCheck(t *testing.T) {
	host := netns.New(t, "host")
	table, err := Open(host.FD(), 64)
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	before := generation(t, table)
	if err := table.Check(enforce()); err != nil {
		t.Errorf("Check: %v", err)
	}
	if err := table.explain(enforce(), unix.EINVAL); !errors.Is(err, unix.EINVAL) {
		t.Errorf("explain on a kernel that lacks nothing: %v", err)
	}
	if got := host.Output(t, netns.Tool(t, "nft"), "list", "ruleset"); got != "" {
		t.Errorf("after Check:\n%s", got)
	}
	if after := generation(t, table); after != before {
		t.Errorf("generation %d after Check, want %d: something was there for a moment", after, before)
	}
}

// TestExplain takes the kernel for one that lacks a feature, by asking for
// something that no kernel has.
func TestExplain(t *testing.T) {
	_, table := load(t, enforce())
	all := features
	t.Cleanup(func() { features = all })
	features = append(all[:len(all):len(all)], feature{name: "time machine", module: "nft_tardis", rule: func(*builder) rule { return count("nowhere") }})

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
		"watched TCP":    func(c *Config) { c.WatchTCP = []PortRange{{0, 1}} },
		"watched UDP":    func(c *Config) { c.WatchUDP = []PortRange{{5, 4}} },
		"sessions":       func(c *Config) { c.Sessions = []PortRange{{2, 2}, {1, 1}} },
		"group 0":        func(c *Config) { c.Group = 0 },
		"no decoy rate":  func(c *Config) { c.DecoyRate = 0 },
		"no watch rate":  func(c *Config) { c.WatchRate = 0 },
		"no ports":       func(c *Config) { c.Ports = 0 },
		"many ports":     func(c *Config) { c.Ports = 1001 },
		"no window":      func(c *Config) { c.Window = 0 },
		"no timeout":     func(c *Config) { c.Timeout = time.Millisecond },
		"no budget":      func(c *Config) { c.Budget.Count = 0 },
		"endless budget": func(c *Config) { c.Budget.Per = 0 },
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
