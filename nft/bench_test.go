package nft

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"nftsentry/integration/netns"
)

// BenchmarkLoad loads as many blocks as a set holds, and has nft(8) load the
// same into a set of the same shape: the ratio depends less on the machine
// than the rates do. nft(8) needs a socket buffer that it gets outside of user
// namespaces only: run it as root with NFTSENTRY_TEST_AS_ROOT=1.
func BenchmarkLoad(b *testing.B) {
	host := netns.New(b, "host")
	table, err := Open(host.FD(), 64)
	if err != nil {
		b.Fatal(err)
	}
	defer table.Close()
	hosts := manyHosts(MaxHosts)
	if err := table.Load(enforce(), slices.Values(hosts), nil); err != nil {
		b.Fatal(err)
	}
	script := nftScript(b, hosts)
	tool := netns.Tool(b, "nft")
	var ours, send, theirs []time.Duration
	for b.Loop() {
		began := time.Now()
		if err := table.Load(enforce(), slices.Values(hosts), nil); err != nil {
			b.Fatal(err)
		}
		ours = append(ours, time.Since(began))
		began = time.Now()
		if err := table.transact(func(bd *builder) error { return bd.fillHosts(slices.Values(hosts)) }); err != nil {
			b.Fatal(err)
		}
		send = append(send, time.Since(began))
		began = time.Now()
		host.Output(b, tool, "-f", script)
		theirs = append(theirs, time.Since(began))
	}
	rate := func(took []time.Duration) float64 {
		slices.Sort(took)
		return float64(len(hosts)) / took[len(took)/2].Seconds()
	}
	b.ReportMetric(rate(ours), "loaded/s")
	b.ReportMetric(rate(send), "sent/s")
	b.ReportMetric(rate(theirs), "nft/s")
	b.ReportMetric(rate(ours)/rate(theirs), "loaded/nft")
	b.ReportMetric(rate(send)/rate(theirs), "sent/nft")
}

// nftScript is a file by which nft(8) empties and fills a set as Load does.
func nftScript(b *testing.B, hosts []Element) string {
	b.Helper()
	var s strings.Builder
	s.WriteString("add table inet other\nadd set inet other blocked { type ipv4_addr; size 65536; flags dynamic,timeout; }\nflush set inet other blocked\n")
	for chunk := range slices.Chunk(hosts, 1000) { // of one long list some versions make a message that is too long
		s.WriteString("add element inet other blocked { ")
		for _, e := range chunk {
			fmt.Fprintf(&s, "%s timeout %ds comment %q, ", e.Prefix.Addr(), int(e.Timeout.Seconds()), e.Comment)
		}
		s.WriteString("}\n")
	}
	path := filepath.Join(b.TempDir(), "blocks.nft")
	if err := os.WriteFile(path, []byte(s.String()), 0o600); err != nil {
		b.Fatal(err)
	}
	return path
}
