//go:build bench

package bench

import (
	"fmt"
	"io"
	"iter"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"nftsentry/controller/api"
	"nftsentry/integration/netns"
	"nftsentry/nft"
)

// keepSentry is nftsentry with its defaults, and room for the crowd.
var keepSentry = keeper{name: sentry.name, open: func(t testing.TB, w *world, c *crowd) *keeping {
	program := os.Getenv(programEnv)
	d := startSentry(t, w.server, roomFor(len(c.addrs)))
	kernel := newSetReader(t, w.server, inet, nft.TableName, "blocked4")
	files := c.lists(t, api.MaxBulk)
	start := func(t testing.TB) cost {
		began := time.Now()
		d.run(t)
		took := time.Since(began)
		kernel.must(t, c.sample())
		return cost{took: took, peak: usageOf(t, []int{d.cmd.Process.Pid}).peak}
	}
	return &keeping{
		block: func(t testing.TB) (all cost) {
			for _, file := range files {
				all = all.plus(spend(t, w.server, "", "", program, "block", "--file", file, "--timeout", "1h", "-c", d.conf))
			}
			all.peak += usageOf(t, []int{d.cmd.Process.Pid}).peak
			kernel.must(t, c.sample())
			return all
		},
		lists: []listing{
			{sentry.name, "", []string{program, "list", "-c", d.conf}},
			{sentry.name, " as JSON", []string{program, "list", "--json", "-c", d.conf}},
		},
		restart: func(t testing.TB) cost { d.stop(t); return start(t) },
		reboot: func(t testing.TB) {
			if d.cmd.ProcessState == nil {
				d.stop(t)
			}
			dropTable(t, w.server, "inet", nft.TableName)
		},
		restore: start,
		more: func(t testing.TB, add func(measure, unit string, values ...float64)) {
			d.oneMore(t, w, kernel, c.more, add)
		},
		pids: func() []int { return []int{d.cmd.Process.Pid} },
		dir:  filepath.Join(d.dir, "state"),
	}
}}

// roomFor is the configuration for so many blocks, and some more.
func roomFor(blocks int) string {
	const room = 65536 // without it
	if blocks += 1000; blocks > room {
		return fmt.Sprintf("[block]\nmax = %d\n", blocks)
	}
	return ""
}

// keepTable is the part of nftsentry that is compared with nft(8) and ipset(8):
// they too keep nothing on disk.
var keepTable = keeper{name: "nftsentry, the kernel alone", open: func(t testing.TB, w *world, c *crowd) *keeping {
	cfg := nft.Config{Enforce: true, Prefix6: 64, Hosts: len(c.addrs) + 1000}
	table, err := nft.Open(w.server.FD(), cfg.Prefix6)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = table.Close() })
	load := func(t testing.TB, blocks iter.Seq[nft.Element]) {
		if err := table.Load(cfg, blocks, nil); err != nil {
			t.Fatal(err)
		}
	}
	load(t, nil)
	kernel := newSetReader(t, w.server, inet, nft.TableName, "blocked4")
	elements := make([]nft.Element, 0, len(c.addrs))
	for _, a := range c.addrs {
		elements = append(elements, nft.Element{Prefix: netip.PrefixFrom(a, a.BitLen()), Timeout: time.Hour})
	}
	timed := func(do func(t testing.TB)) func(t testing.TB) cost {
		return func(t testing.TB) cost {
			began := time.Now()
			do(t)
			took := time.Since(began)
			kernel.must(t, c.sample())
			return cost{took: took}
		}
	}
	return &keeping{
		block: timed(func(t testing.TB) {
			if err := table.Block(elements...); err != nil {
				t.Fatal(err)
			}
		}),
		reboot:  func(t testing.TB) { dropTable(t, w.server, "inet", nft.TableName) },
		restore: timed(func(t testing.TB) { load(t, slices.Values(elements)) }),
	}
}}

// keepNft is a file for nft(8) that fills a set of the same kind, a thousand
// elements a command: one command for all is slower. Those of
// nftsentry have a comment too.
var keepNft = keeper{name: "nft", needs: []string{"nft"}, open: func(t testing.TB, w *world, c *crowd) *keeping {
	const set = "table inet peer {\n\tset blocked {\n\t\ttype ipv4_addr\n\t\tsize %d\n\t\tflags dynamic,timeout\n%s\t}\n}\n"
	tool := netns.Tool(t, "nft")
	head, tail, _ := strings.Cut(fmt.Sprintf(set, len(c.addrs)+1000, "\x00"), "\x00")
	empty := c.path("empty.nft")
	if err := os.WriteFile(empty, []byte(head+tail), 0o600); err != nil {
		t.Fatal(err)
	}
	w.server.Output(t, tool, "-f", empty)
	adds := c.file(t, "adds.nft", "", 1000, func(f io.Writer, some []netip.Addr) {
		fmt.Fprintf(f, "add element inet peer blocked { %s }\n", elements(some, " timeout 1h"))
	}, "")
	// As "nft list ruleset" prints it: for a million it would take minutes to.
	saved := c.file(t, "saved.nft", head, len(c.addrs), func(f io.Writer, all []netip.Addr) {
		fmt.Fprintf(f, "\t\telements = { %s }\n", elements(all, " timeout 1h expires 59m58s996ms"))
	}, tail)
	kernel := newSetReader(t, w.server, inet, "peer", "blocked")
	fill := func(file string) func(t testing.TB) cost {
		return func(t testing.TB) cost {
			c1 := spend(t, w.server, "", "", tool, "-f", file)
			if !c1.cut {
				kernel.must(t, c.sample())
			}
			return c1
		}
	}
	return &keeping{
		block: fill(adds),
		lists: []listing{
			{"nft", "", []string{tool, "list", "set", "inet", "peer", "blocked"}},
			{"nft", " as JSON", []string{tool, "-j", "list", "set", "inet", "peer", "blocked"}},
		},
		reboot:  func(t testing.TB) { dropTable(t, w.server, "inet", "peer") },
		restore: fill(saved),
	}
}}

// elements are sources as nft(8) writes them, with what follows each.
func elements(sources []netip.Addr, after string) string {
	var b strings.Builder
	for i, a := range sources {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(a.String() + after)
	}
	return b.String()
}

// dropTable takes a table out of the kernel, if it is there.
func dropTable(t testing.TB, host *netns.Host, family, name string) {
	t.Helper()
	table := "table " + family + " " + name
	host.Output(t, netns.Tool(t, "nft"), "add "+table+"; delete "+table)
}

// keepIPSet is a file for ipset(8) that fills a set.
var keepIPSet = keeper{name: "ipset", needs: []string{"ipset"}, open: func(t testing.TB, w *world, c *crowd) *keeping {
	tool := netns.Tool(t, "ipset")
	w.server.Output(t, tool, "create", "blocked", "hash:ip", "timeout", "3600", "maxelem", fmt.Sprint(len(c.addrs)+1000))
	adds := c.file(t, "adds.ipset", "", 1, func(f io.Writer, some []netip.Addr) {
		fmt.Fprintf(f, "add blocked %s timeout 3600\n", some[0])
	}, "")
	saved := c.path("saved.ipset")
	restore := func(file string) func(t testing.TB) cost {
		return func(t testing.TB) cost {
			c1 := spend(t, w.server, file, "", tool, "restore")
			if got := w.server.Output(t, tool, "list", "-terse"); !c1.cut && !strings.Contains(got, fmt.Sprintf("entries: %d\n", len(c.addrs))) {
				t.Fatalf("ipset has not got all %d:\n%s", len(c.addrs), got)
			}
			return c1
		}
	}
	return &keeping{
		block: restore(adds),
		lists: []listing{{"ipset", "", []string{tool, "list"}}, {"ipset", " to restore them", []string{tool, "save"}}},
		reboot: func(t testing.TB) {
			if err := os.WriteFile(saved, []byte(w.server.Output(t, tool, "save")), 0o600); err != nil {
				t.Fatal(err)
			}
			w.server.Output(t, tool, "destroy")
		},
		restore: restore(saved),
	}
}}
