package packet

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"nftsentry/integration/netns"
)

var (
	flood4 = FloodConfig{Target: target4.Addr(), Ports: []uint16{23, 79, 111}, Sources: netip.MustParsePrefix("198.18.0.0/15"), Seed: 42}
	flood6 = FloodConfig{Target: target6.Addr(), Ports: []uint16{23, 79}, Sources: netip.MustParsePrefix("2001:db8:7::/48"), Seed: 42}
)

func TestFloodSource(t *testing.T) {
	tests := []struct {
		prefix string
		repeat uint64
		bits   int // of which no two are the same
		n      int
	}{
		{"198.18.0.0/15", 0, 32, 1 << 17},
		{"198.51.100.0/24", 1, 32, 256},
		{"198.51.100.0/24", 3, 32, 256},
		{"203.0.113.9/32", 0, 32, 1},
		{"2001:db8::/32", 0, 64, 1 << 17},
		{"2001:db8:7::/48", 0, 64, 1 << 16},
		{"2001:db8:7::/48", 0, 128, 1 << 17},
		{"2001:db8:7:7::/64", 0, 128, 1 << 17},
		{"2001:db8::/120", 0, 128, 256},
		{"2001:db8::/128", 0, 128, 1},
		{"::/0", 0, 64, 1 << 17},
	}
	for _, tt := range tests {
		c := FloodConfig{Sources: netip.MustParsePrefix(tt.prefix), Repeat: tt.repeat, Seed: 42}
		seen := make(map[netip.Prefix]bool)
		for i := range uint64(tt.n) * max(tt.repeat, 1) {
			a := c.Source(i)
			if !c.Sources.Contains(a) {
				t.Fatalf("%s does not have %s", tt.prefix, a)
			}
			seen[netip.PrefixFrom(a, tt.bits).Masked()] = true
		}
		if tt.n != len(seen) {
			t.Errorf("%s: want %d different /%d, got %d", tt.prefix, tt.n, tt.bits, len(seen))
		}
	}
}

func TestFloodSeed(t *testing.T) {
	other := flood4
	other.Seed++
	same := 0
	for i := range uint64(100) {
		if diff := cmp.Diff(flood4.Packet(i).Bytes(), flood4.Packet(i).Bytes()); diff != "" {
			t.Fatal(diff)
		}
		if a, b := flood4.Packet(i), other.Packet(i); a.Source == b.Source {
			same++
		}
	}
	if same > 1 {
		t.Errorf("another seed: %d of 100 sources are the same", same)
	}
}

// TestFloodFrames compares the quick way to make packets with the plain one.
func TestFloodFrames(t *testing.T) {
	for _, cfg := range []FloodConfig{flood4, flood6} {
		f := &flood{cfg: cfg}
		f.build([]byte("fourteen bytes"))
		for first := uint64(0); first < 50_000; first += batch {
			f.fill(first, batch)
			for i, b := range f.frames {
				p := cfg.Packet(first + uint64(i)).Bytes()
				if !bytes.Equal(p, b.ip) {
					t.Fatalf("packet %d:\nwant % x\n got % x", first+uint64(i), p, b.ip)
				}
			}
		}
	}
}

func TestFloodArrives(t *testing.T) {
	a, b := pair(t)
	for _, cfg := range []FloodConfig{flood4, flood6} {
		seen := newTap(t, b)
		cfg.Count, cfg.Rate = 100, 20_000
		sent, err := Flood(t.Context(), a, cfg)
		if err != nil || sent != cfg.Count {
			t.Fatalf("want %d sent, got %d, %v", cfg.Count, sent, err)
		}
		for i := range sent {
			seen.arrives(t, cfg.Packet(i).Bytes())
		}
	}
}

func TestFloodEnds(t *testing.T) {
	a, _ := pair(t)
	tests := []struct {
		name        string
		change      func(*FloodConfig)
		timeout     time.Duration
		least, most uint64
		atLeast     time.Duration
	}{
		{"by count", func(c *FloodConfig) { c.Count = 1001 }, time.Minute, 1001, 1001, 0},
		{"by the context", func(c *FloodConfig) {}, 500 * time.Millisecond, 1, 1 << 30, 500 * time.Millisecond},
		{"by the limit", func(c *FloodConfig) { c.Limit = 50 * time.Millisecond }, time.Minute, 1, 1 << 30, 50 * time.Millisecond},
		{"before it begins", func(c *FloodConfig) {}, 0, 0, 0, 0},
		{"rate", func(c *FloodConfig) { c.Count, c.Rate = 500, 5000 }, time.Minute, 500, 500, 100 * time.Millisecond},
		{"slow rate", func(c *FloodConfig) { c.Rate = 1 }, 50 * time.Millisecond, 0, 0, 50 * time.Millisecond},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), tt.timeout)
			defer cancel()
			cfg := flood4
			tt.change(&cfg)
			start := time.Now()
			sent, err := Flood(ctx, a, cfg)
			if took := time.Since(start); err != nil || took < tt.atLeast || took > 20*time.Second {
				t.Errorf("want it to take %s, got %s, %v", tt.atLeast, took, err)
			}
			if sent < tt.least || sent > tt.most {
				t.Errorf("want %d to %d packets, got %d", tt.least, tt.most, sent)
			}
		})
	}
}

func TestFloodErrors(t *testing.T) {
	a, _ := pair(t)
	tests := []struct {
		name   string
		change func(*FloodConfig)
		want   error // nil for one without a name; that the context is over if there is nothing else to end it
	}{
		{"no ports", func(c *FloodConfig) { c.Ports = nil }, nil},
		{"no target", func(c *FloodConfig) { c.Target = netip.Addr{} }, nil},
		{"no sources", func(c *FloodConfig) { c.Sources = netip.Prefix{} }, nil},
		{"two families", func(c *FloodConfig) { c.Sources = flood6.Sources }, nil},
		{"negative rate", func(c *FloodConfig) { c.Rate = -1 }, nil},
		{"no neighbour", func(c *FloodConfig) { c.Target = netip.MustParseAddr("192.0.2.3") }, context.DeadlineExceeded},
		{"no route", func(c *FloodConfig) { c.Target = netip.MustParseAddr("203.0.113.1") }, unix.ENETUNREACH},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := flood4
			cfg.Count = 1
			tt.change(&cfg)
			timeout := time.Minute
			if errors.Is(tt.want, context.DeadlineExceeded) {
				timeout = 200 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			defer cancel()
			sent, err := Flood(ctx, a, cfg)
			if sent != 0 || err == nil || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("want %v, got %d sent, %v", tt.want, sent, err)
			}
		})
	}
}

func TestFloodToItself(t *testing.T) {
	h := netns.New(t, "a")
	cfg := flood4
	cfg.Target, cfg.Count = netip.MustParseAddr("127.0.0.1"), 100
	if sent, err := Flood(t.Context(), h, cfg); err != nil || sent != 100 {
		t.Errorf("want 100 sent, got %d, %v", sent, err)
	}
}

// TestFloodRate prints how fast it is, to closed ports of a host without a firewall, which answers each SYN.
func TestFloodRate(t *testing.T) {
	a, b := pair(t)
	for _, cfg := range []FloodConfig{flood4, flood6} {
		warm := cfg
		warm.Count = 1 // the neighbours know each other
		if _, err := Flood(t.Context(), a, warm); err != nil {
			t.Fatal(err)
		}
		cfg.Limit = 500 * time.Millisecond
		before := received(t, b, "eth1")
		start := time.Now()
		sent, err := Flood(t.Context(), a, cfg)
		if err != nil {
			t.Fatal(err)
		}
		took := time.Since(start)
		got := received(t, b, "eth1") - before
		t.Logf("to %s: %.0f packets a second, %d sent, %d received", cfg.Target, float64(sent)/took.Seconds(), sent, got)
		if sent < 100 || got < 100 {
			t.Errorf("want hundreds of packets, got %d sent and %d received", sent, got)
		}
	}
}

// received is how many packets an interface of a host has taken in, of proc_pid_net(5).
func received(t *testing.T, host *netns.Host, ifname string) uint64 {
	t.Helper()
	var data []byte
	var err error
	host.Do(t, func() { data, err = os.ReadFile("/proc/thread-self/net/dev") })
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), ifname+":"); ok {
			n, err := strconv.ParseUint(strings.Fields(rest)[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no %s in %s", ifname, data)
	return 0
}
