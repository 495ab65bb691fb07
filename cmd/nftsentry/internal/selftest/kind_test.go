package selftest

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nftsentry/conf"
)

// kindOf finds a kind by its name.
func kindOf(t *testing.T, name string) kind {
	t.Helper()
	for _, k := range kinds {
		if k.name == name {
			return k
		}
	}
	t.Fatalf("no kind %q", name)
	return kind{}
}

func TestTripwires(t *testing.T) {
	ports := func(list ...uint16) []conf.PortRange {
		var out []conf.PortRange
		for _, p := range list {
			out = append(out, conf.PortRange{First: p, Last: p})
		}
		return out
	}
	for _, tt := range []struct {
		name, kind string
		change     func(*conf.Config)
		want       []uint16
	}{
		{"the watched first", "syn", func(c *conf.Config) {}, []uint16{1, 2, 3}},
		{"decoys where they are too few", "fin", func(c *conf.Config) { c.TCP.Watch, c.TCP.Decoy = ports(9), ports(23, 2323) }, []uint16{9, 23, 2323}},
		{"each once", "null", func(c *conf.Config) { c.TCP.Watch, c.TCP.Decoy = ports(23, 24), ports(23, 26) }, []uint16{23, 24, 26}},
		{"fewer than a block needs", "xmas", func(c *conf.Config) { c.TCP.Watch, c.TCP.Decoy = ports(9), nil }, []uint16{9}},
		{"none", "syn-fin", func(c *conf.Config) { c.TCP.Watch, c.TCP.Decoy = nil, nil }, nil},
		{"the listener's own", "syn", func(c *conf.Config) { c.TCP.Port = 2 }, []uint16{1, 3, 4}},
		{"the excluded", "syn", func(c *conf.Config) { c.TCP.Exclude = ports(1) }, []uint16{2, 3, 4}},
		{"one decoy", "connect", func(c *conf.Config) { c.TCP.Decoy = ports(7, 8) }, []uint16{7}},
		{"no UDP", "udp", func(c *conf.Config) {}, nil},
		{"UDP", "udp", func(c *conf.Config) { c.UDP.Watch = ports(69, 161) }, []uint16{69, 161}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := conf.Default()
			tt.change(&c)
			if diff := cmp.Diff(tt.want, kindOf(t, tt.kind).tripwires(c, 61000)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestExpected(t *testing.T) {
	for _, tt := range []struct {
		name, kind string
		change     func(*conf.Config)
		blocks     bool
		trigger    int
		recorded   string
	}{
		{"connect", "connect", func(c *conf.Config) { c.Trigger.Connects = 4 }, true, 4, "connect"},
		{"connect where a packet is enough", "connect", func(c *conf.Config) { c.Trigger.Connects, c.Trigger.Ports = 4, 1 }, true, 1, "syn"},
		{"ports", "fin", func(c *conf.Config) { c.Trigger.Ports = 9 }, true, 9, "fin"},
		{"observe", "fin", func(c *conf.Config) { c.Mode = conf.Observe }, false, 3, "fin"},
		{"TCP is logged", "fin", func(c *conf.Config) { c.TCP.Respond = conf.RespondLog }, false, 3, "fin"},
		{"TCP is logged, UDP not", "udp", func(c *conf.Config) { c.TCP.Respond = conf.RespondLog }, true, 3, "udp"},
		{"UDP is logged", "udp", func(c *conf.Config) { c.UDP.Respond = conf.RespondLog }, false, 3, "udp"},
	} {
		c := conf.Default()
		tt.change(&c)
		k := kindOf(t, tt.kind)
		if blocks, trigger, recorded := k.blocks(c), k.trigger(c), k.recorded(c); blocks != tt.blocks || trigger != tt.trigger || recorded != tt.recorded {
			t.Errorf("%s: blocks %v after %d as %q, want %v, %d, %q", tt.name, blocks, trigger, recorded, tt.blocks, tt.trigger, tt.recorded)
		}
	}
}

func TestServicePort(t *testing.T) {
	all := []conf.PortRange{{First: 1, Last: 65535}}
	for name, tt := range map[string]struct {
		change func(*conf.Config)
		want   uint16
	}{
		"defaults":           {func(*conf.Config) {}, 61000},
		"all watched":        {func(c *conf.Config) { c.TCP.Watch = all }, 65535},
		"sessions up there":  {func(c *conf.Config) { c.Ignore.Sessions = []conf.PortRange{{First: 60000, Last: 61005}} }, 61006},
		"sessions all there": {func(c *conf.Config) { c.Ignore.Sessions = all }, 0},
	} {
		c := conf.Default()
		tt.change(&c)
		if got := servicePort(c); got != tt.want {
			t.Errorf("%s: %d, want %d", name, got, tt.want)
		}
	}
}

func TestFamilies(t *testing.T) {
	c := conf.Default()
	c.Ignore.Sources = []netip.Prefix{netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("2001:db8::/48")}
	got, err := families(c)
	if err != nil {
		t.Fatal(err)
	}
	if source := got[0].source(1); source != netip.MustParseAddr("192.0.2.2") {
		t.Errorf("IPv4 source %s", source)
	}
	if len(got) > 1 && got[1].source(1) != netip.MustParseAddr("3fff:0:2::7") {
		t.Errorf("IPv6 source %s", got[1].source(1))
	}
	c.Ignore.Sources = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}
	if _, err := families(c); err == nil {
		t.Error("all of IPv4 is ignored: no error")
	}
}

func TestTail(t *testing.T) {
	var log tail
	for range 200 {
		if _, err := log.Write([]byte("a line of the log, of some length\n")); err != nil {
			t.Fatal(err)
		}
	}
	_, _ = log.Write([]byte("nftsentry: the end\n"))
	got := log.String()
	if len(got) > tailSize || got[:6] != "a line" || got[len(got)-8:] != "\nthe end" {
		t.Errorf("%d bytes: %q", len(got), got)
	}
}
