package integration

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nftsentry/integration/netns"
	"nftsentry/nft"
)

// sourcesFile is a file with n hosts, every tenth of which is a prefix if
// they are mixed, and half of them of IPv6.
func sourcesFile(t *testing.T, n int, mixed bool) string {
	t.Helper()
	var lines strings.Builder
	lines.WriteString("# a list\n\n")
	for i := range n {
		switch {
		case mixed && i%10 == 0:
			fmt.Fprintf(&lines, "172.%d.%d.0/24\n", 16+i>>12, i>>4&255)
		case mixed && i%10 == 1:
			fmt.Fprintf(&lines, "2001:db8:%x::/48\n", i)
		case i%2 == 0:
			fmt.Fprintf(&lines, "100.%d.%d.%d # a host\n", 64+i>>16, i>>8&255, i&255)
		default:
			fmt.Fprintf(&lines, "2001:db8:40%02x:%x::/64\n", i>>16, i&0xffff)
		}
	}
	path := filepath.Join(t.TempDir(), "sources.txt")
	if err := os.WriteFile(path, []byte(lines.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestBlockFile blocks many at once, lets them go, and has lists of which
// something is wrong.
func TestBlockFile(t *testing.T) {
	host := netns.New(t, "host")
	d := guard(t, host, "ignore.sources = [\"203.0.113.0/24\"]")
	n := sized(2000, 10_000)
	file := sourcesFile(t, n, true)
	began := time.Now()
	out := d.must("block", "--file", file, "--timeout", "1h", "--comment", "a list")
	took := time.Since(began)
	t.Logf("%d hosts and prefixes are blocked after %v", n, took.Round(time.Millisecond))
	if took > bound(2*time.Second) {
		t.Errorf("%d blocks take %v, want %v", n, took, bound(2*time.Second))
	}
	live := d.live()
	if want := fmt.Sprintf("blocked %d sources\n", len(live)); out != want || len(live) < n*8/10 {
		t.Errorf("block says %q, want %q", out, want)
	}
	if got := held(t, host, "blocked4", "nets4"); got[netip.MustParseAddr("100.64.0.2")] == 0 || got[netip.MustParseAddr("172.16.0.0")] == 0 {
		t.Error("a host or a prefix of the list is not in the kernel")
	}

	bad := filepath.Join(t.TempDir(), "bad.txt")
	if err := os.WriteFile(bad, []byte("192.0.2.7\n\n10.0.0.1/8\nlocalhost # no\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := d.command("block", "--file", bad)
	if r.code != 2 || !strings.Contains(r.stderr, bad+":3: ") || !strings.Contains(r.stderr, bad+":4: ") {
		t.Errorf("a bad list: %+v, want both lines", r)
	}
	r = d.command("block", "192.0.2.7", "203.0.113.7", "203.0.113.8", "192.0.2.8")
	if r.code != 1 || strings.Count(r.stderr, "ignore.sources") != 2 {
		t.Errorf("two of four are ignored: %+v, want both named", r)
	}
	if got := d.live(); len(got) != len(live) {
		t.Errorf("%d are blocked after what was refused, want %d", len(got), len(live))
	}

	sources := []string{"unblock"}
	for a, b := range live {
		if len(sources) <= 1000 && a.IsValid() {
			sources = append(sources, b.Source)
		}
	}
	began = time.Now()
	out = d.must(sources...)
	t.Logf("%d are let go after %v", len(sources)-1, time.Since(began).Round(time.Millisecond))
	if strings.Count(out, "\n") != len(sources)-1 || len(d.live()) != len(live)-len(sources)+1 {
		t.Errorf("%d of %d are let go", strings.Count(out, "\n"), len(sources)-1)
	}
}

// TestBlockFileRoom blocks as many hosts as the kernel's sets hold, and then
// more than there is room for.
func TestBlockFileRoom(t *testing.T) {
	if !soak {
		t.Skip("for a soak: make soak")
	}
	host := netns.New(t, "host")
	d := guard(t, host, "")
	const n = 100_000
	began := time.Now()
	d.must("block", "--file", sourcesFile(t, n, false), "--timeout", "1h")
	t.Logf("%d hosts are blocked after %v, %.1f MiB at most", n, time.Since(began).Round(time.Millisecond), d.peak())
	complete(t, host, n, "blocked4", "blocked6")

	r := d.command("block", "--file", sourcesFile(t, 2*nft.DefaultHosts+2, false))
	if r.code != 1 || !strings.Contains(r.stderr, "no room for so many hosts") {
		t.Errorf("more than there is room for: %+v, want a refusal", r)
	}
	if got := d.health(); got.Blocks.Live != n || got.Blocks.Evicted != 0 || len(got.Problems) != 0 {
		t.Errorf("%+v, want all that were blocked and nothing else", got.Blocks)
	}
}
