package survey

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nftsentry/integration/netns"
)

func TestMain(m *testing.M) { netns.Main(m) }

// read loads a file of testdata in a namespace of its own and reads it back.
func read(t *testing.T, name string) Ruleset {
	t.Helper()
	host := netns.New(t, name)
	if name != "" {
		host.Output(t, netns.Tool(t, "nft"), "-f", filepath.Join("testdata", name+".nft"))
	}
	r, err := Read(host.FD())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// summary is what the base chains can do.
func summary(r Ruleset) []string {
	var out []string
	for _, b := range r.Bases() {
		s := fmt.Sprintf("%s %s %s", b, b.Chain.Type, b.Chain.Policy)
		for _, can := range []struct {
			text string
			so   bool
		}{{"drops", b.Drops()}, {"closed", b.Closed()}, {"translates", b.Translates()}, {"lets redirected", b.LetsRedirected()}} {
			if can.so {
				s += ", " + can.text
			}
		}
		out = append(out, s)
	}
	return out
}

func TestRead(t *testing.T) {
	for _, tt := range []struct {
		name     string
		want     []string
		programs []Program
	}{
		{"", nil, nil},
		{"firewalld", []string{
			"prerouting -140 inet firewalld mangle_PREROUTING filter accept",
			"prerouting -90 inet firewalld nat_PREROUTING nat accept",
			"prerouting 10 inet firewalld filter_PREROUTING filter accept, drops",
			"input 10 inet firewalld filter_INPUT filter accept, drops, closed, lets redirected",
		}, []Program{Firewalld}},
		{"docker", []string{
			"prerouting -100 ip nat PREROUTING nat accept, translates",
			"forward 0 ip filter FORWARD filter drop, drops, closed",
			"postrouting 100 ip nat POSTROUTING nat accept",
		}, []Program{Docker}},
		{"ufw", []string{"input 0 ip filter INPUT filter drop, drops, closed"}, []Program{UFW}},
		{"map", []string{
			"prerouting -330 inet own second filter accept",
			"prerouting -320 inet own first filter accept, drops",
			"input 5 inet own third filter accept",
		}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := read(t, tt.name)
			if diff := cmp.Diff(tt.want, summary(r)); diff != "" {
				t.Errorf("base chains (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.programs, r.Programs()); diff != "" {
				t.Errorf("programs (-want +got):\n%s", diff)
			}
		})
	}
}

// TestDormant has a table that sleeps left out of what packets meet.
func TestDormant(t *testing.T) {
	host := netns.New(t, "host")
	nft := netns.Tool(t, "nft")
	host.Output(t, nft, "-f", filepath.Join("testdata", "ufw.nft"))
	host.Output(t, nft, "add table ip filter { flags dormant; }")
	r, err := Read(host.FD())
	if err != nil {
		t.Fatal(err)
	}
	if table, found := r.Table("ip", "filter"); !found || !table.Dormant || len(r.Bases()) != 0 {
		t.Errorf("found %v, dormant %v, base chains %v", found, table.Dormant, r.Bases())
	}
}

func TestPublished(t *testing.T) {
	if got := read(t, "docker").Published(Docker); got != 2 {
		t.Errorf("Published = %d, want 2", got)
	}
}

func TestPrograms(t *testing.T) {
	chain := func(name, hook string) []Chain { return []Chain{{Name: name, Hook: hook}} }
	for _, tt := range []struct {
		name  string
		table Table
		want  []Program
	}{
		{"kube-proxy of iptables", Table{Family: "ip", Name: "nat", Chains: chain("KUBE-SERVICES", "")}, []Program{Kubernetes}},
		{"kube-proxy of nftables", Table{Family: "ip", Name: "kube-proxy"}, []Program{Kubernetes}},
		{"libvirt", Table{Family: "ip", Name: "filter", Chains: chain("LIBVIRT_INP", "")}, []Program{Libvirt}},
		{"libvirt of nftables", Table{Family: "ip", Name: "libvirt_network"}, []Program{Libvirt}},
		{"fail2ban", Table{Family: "inet", Name: "f2b-table"}, []Program{Fail2ban}},
		{"plain iptables", Table{Family: "ip6", Name: "filter", Chains: chain("INPUT", "input")}, []Program{IPTables}},
		{"the same name in another family", Table{Family: "inet", Name: "filter", Chains: chain("INPUT", "input")}, nil},
		{"a person's own", Table{Family: "ip", Name: "filter", Chains: chain("input", "input")}, nil},
		{"two in one", Table{Family: "ip", Name: "filter", Chains: append(chain("DOCKER-USER", ""), chain("ufw-before-input", "")...)}, []Program{UFW, Docker}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, tt.table.Programs()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// FuzzRule has a kernel that tells nonsense do no harm.
func FuzzRule(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{20, 0, 1, 128, 14, 0, 1, 0, 'i', 'm', 'm', 'e', 'd', 'i', 'a', 't', 'e', 0, 0, 0})
	f.Fuzz(func(t *testing.T, raw []byte) {
		s := &reader{maps: map[id][]verdict{{table: "t"}: nil}, chains: map[id]*Chain{}}
		s.chain(1, decode(raw))
		verdictOf(raw)
		var r Rule
		r.take(verdictOf(raw), noVerdict)
	})
}
