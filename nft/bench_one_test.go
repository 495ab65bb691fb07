package nft

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"nftsentry/integration/netns"
)

// BenchmarkTransaction makes the messages of Table.Block, up to where they are
// sent.
func BenchmarkTransaction(b *testing.B) {
	cfg := enforce()
	for _, n := range []int{1, 100, 10000} {
		b.Run(fmt.Sprintf("elements=%d", n), func(b *testing.B) {
			hosts := manyHosts(n)
			b.ReportAllocs()
			for b.Loop() {
				out, err := newBatch()
				if err != nil {
					b.Fatal(err)
				}
				if err := newBuilder(out, TableName, cfg).putHosts(slices.Values(hosts)); err != nil {
					b.Fatal(err)
				}
				if err := out.join(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/element")
		})
	}
}

// BenchmarkBlock blocks one source, and then again and again, each time put,
// taken out, put and read back as always, in a kernel that has so many others.
func BenchmarkBlock(b *testing.B) {
	for _, n := range []int{10, 60000} {
		b.Run(fmt.Sprintf("elements=%d", n), func(b *testing.B) {
			table, err := Open(netns.New(b, "host").FD(), 64)
			if err != nil {
				b.Fatal(err)
			}
			defer table.Close()
			if err := table.Load(enforce(), slices.Values(manyHosts(n)), nil); err != nil {
				b.Fatal(err)
			}
			one := Element{Prefix: netip.MustParsePrefix("203.0.113.7/32"), Timeout: time.Hour, Comment: "tcp/23 connect"}
			b.ReportAllocs()
			for b.Loop() {
				if err := table.Block(one); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
