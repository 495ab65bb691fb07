package nft

import (
	"fmt"
	"iter"
	"net/netip"
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
	hosts := manyHosts(DefaultHosts)
	if err := table.Load(enforce(), slices.Values(hosts), nil); err != nil {
		b.Fatal(err)
	}
	script := nftScript(b, slices.Values(hosts), len(hosts))
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

// BenchmarkBlockMany adds as many hosts as its name says to an empty set, and reads
// some of them back; "nft" has nft(8) add the same, see BenchmarkLoad. At the
// end it tells how much memory the process has needed so far at the most.
func BenchmarkBlockMany(b *testing.B) {
	for _, n := range []int{1000, 10_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			_, table := benchTable(b, n)
			b.ReportAllocs()
			for b.Loop() {
				if err := table.BlockAll(eachHost(n)); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if err := table.Load(table.cfg, nil, nil); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
			b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "elements/s")
			b.ReportMetric(peak(b), "MiB")
		})
	}
	b.Run("nft", func(b *testing.B) {
		const n = 1_000_000
		host, _ := benchTable(b, 1)
		script := nftScript(b, eachHost(n), n)
		tool := netns.Tool(b, "nft")
		for b.Loop() {
			host.Output(b, tool, "-f", script)
		}
		b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "elements/s")
	})
}

// benchTable is a table for so many hosts, in a namespace of its own.
func benchTable(b *testing.B, hosts int) (*netns.Host, *Table) {
	b.Helper()
	host := netns.New(b, "host")
	table, err := Open(host.FD(), 64)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = table.Close() })
	cfg := enforce()
	cfg.Hosts = hosts
	if err := table.Load(cfg, nil, nil); err != nil {
		b.Fatal(err)
	}
	return host, table
}

// eachHost is manyHosts without the list.
func eachHost(n int) iter.Seq[Element] {
	return func(yield func(Element) bool) {
		for i := range n {
			a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
			if !yield(Element{Prefix: netip.PrefixFrom(a, 32), Timeout: time.Hour, Comment: "tcp/23 connect"}) {
				return
			}
		}
	}
}

// peak is the most memory that the process has had, in MiB.
func peak(b *testing.B) float64 {
	b.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	var kib float64
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		b.Fatal(err)
	}
	return kib / 1024
}

// nftScript is a file by which nft(8) empties and fills a set as Load does.
func nftScript(b *testing.B, hosts iter.Seq[Element], n int) string {
	b.Helper()
	var s strings.Builder
	fmt.Fprintf(&s, "add table inet other\nadd set inet other blocked { type ipv4_addr; size %d; flags dynamic,timeout; }\nflush set inet other blocked", n)
	i := 0
	for e := range hosts {
		end := ", "
		switch i++; i % 1000 { // of one long list some versions make a message that is too long
		case 1:
			s.WriteString("\nadd element inet other blocked { ")
		case 0:
			end = " }"
		}
		fmt.Fprintf(&s, "%s timeout %ds comment %q%s", e.Prefix.Addr(), int(e.Timeout.Seconds()), e.Comment, end)
	}
	if i%1000 != 0 {
		s.WriteString(" }")
	}
	s.WriteString("\n")
	path := filepath.Join(b.TempDir(), "blocks.nft")
	if err := os.WriteFile(path, []byte(s.String()), 0o600); err != nil {
		b.Fatal(err)
	}
	return path
}
