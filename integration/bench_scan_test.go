//go:build bench

package integration

import (
	"bytes"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"golang.org/x/sync/errgroup"

	"nftsentry/integration/netns"
)

// Ports of the scanned server that are no tripwires: where it serves, and
// where the default configuration expects honest mistakes.
var (
	benchServices = []int{22, 80, 443}
	benchExcluded = []int{25, 53, 110, 113, 139, 143, 465, 587, 853, 993, 995}
)

// A glimpse is how many ports of a server have answered a scanner, as the
// router between them has seen it.
type glimpse struct{ services, excluded, tripwires, posing int } // posing are tripwires that claim to be open

// TestBenchScan has nmap scan the first 1024 ports, and counts those whose
// state it gets to know, open or closed, until it is blocked and for two
// seconds after that.
func TestBenchScan(t *testing.T) {
	w := newWorld(t)
	for _, port := range benchServices {
		serve(t, w.server, fmt.Sprintf(":%d", port), "welcome")
	}
	countAnswers(t, w.router)
	var b bytes.Buffer
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "nmap -sS -p 1-1024\tfamily\trun\tservices of 3\texcluded of 11\ttripwires of 1010\tposing as open\t")
	row := func(what string, run int, seen [2]glimpse) {
		for i, f := range families {
			g := seen[i]
			fmt.Fprintf(table, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t\n", what, f.name, run, g.services, g.excluded, g.tripwires, g.posing)
		}
	}
	row("-T4, no guard", 1, benchScan(t, w, func() bool { return false }, 5*time.Second, "-T4"))
	d := guard(t, w.server, "")
	for _, timing := range []string{"-T3", "-T4", "-T5"} {
		for _, order := range []string{"-r", ""} {
			for run := range 3 {
				forgetAll(t, d)
				blocked := func() bool { return len(d.list()) == len(families) }
				seen := benchScan(t, w, blocked, 15*time.Second, timing, order)
				if got := d.sources(); len(got) != len(families) {
					t.Errorf("%s %s: blocked %v, want both families", timing, order, got)
				}
				row(strings.TrimSpace(timing+" "+order), run+1, seen)
			}
		}
	}
	_ = table.Flush()
	fmt.Print("\n" + b.String() + "\n")
}

// forgetAll has the daemon and the kernel know of no scanner.
func forgetAll(t *testing.T, d *daemon) {
	t.Helper()
	if len(d.list()) > 0 {
		d.must("unblock", "--all")
	}
	for _, set := range []string{"probes4", "probes6", "suspects4", "suspects6"} {
		d.host.Output(t, netns.Tool(t, "nft"), "flush", "set", "inet", "nftsentry", set)
	}
}

// benchScan scans by both families at once. It ends two seconds after the
// scanners are cut off, or when they have come to their end, or when the time is up.
func benchScan(t *testing.T, w *world, cut func() bool, atMost time.Duration, flags ...string) [2]glimpse {
	t.Helper()
	for _, set := range []string{"open4", "closed4", "open6", "closed6"} {
		w.router.Output(t, netns.Tool(t, "nft"), "flush", "set", "inet", "answers", set)
	}
	ctx, cancel := context.WithTimeout(t.Context(), atMost)
	defer cancel()
	var scans errgroup.Group
	for _, f := range families {
		args := []string{"-sS", "-n", "-Pn", "-p", "1-1024"}
		if strings.Contains(f.server, ":") {
			args = append(args, "-6")
		}
		for _, flag := range flags {
			if flag != "" {
				args = append(args, flag)
			}
		}
		cmd := w.client.Command(netns.Tool(t, "nmap"), append(args, f.server)...)
		w.client.Start(t, cmd)
		stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
		scans.Go(func() error {
			defer stop()
			_ = cmd.Wait() // may have been killed
			return nil
		})
	}
	done := make(chan error, 1)
	go func() { done <- scans.Wait() }()
	for ctx.Err() == nil && len(done) == 0 && !cut() {
		time.Sleep(100 * time.Millisecond)
	}
	select {
	case <-done:
	case <-time.After(2 * time.Second):
		cancel()
		<-done
	}
	return [2]glimpse{glance(t, w.router, "4"), glance(t, w.router, "6")}
}

// countAnswers has the router remember the ports whose answers pass by.
func countAnswers(t *testing.T, router *netns.Host) {
	t.Helper()
	nft := netns.Tool(t, "nft")
	router.Output(t, nft, "add table inet answers")
	for _, family := range []string{"4", "6"} {
		for _, state := range []string{"open", "closed"} {
			router.Output(t, nft, "add set inet answers "+state+family+" { type inet_service; size 65536; flags dynamic; }")
		}
	}
	router.Output(t, nft, "add chain inet answers forward { type filter hook forward priority 0; }")
	for _, rule := range []string{
		"meta nfproto ipv4 tcp flags & (syn | ack) == syn | ack add @open4 { tcp sport }",
		"meta nfproto ipv4 tcp flags & rst == rst add @closed4 { tcp sport }",
		"meta nfproto ipv6 tcp flags & (syn | ack) == syn | ack add @open6 { tcp sport }",
		"meta nfproto ipv6 tcp flags & rst == rst add @closed6 { tcp sport }",
	} {
		router.Output(t, nft, "add rule inet answers forward iifname srv "+rule)
	}
}

var portNumbers = regexp.MustCompile(`\d+`)

// glance sorts the ports that have answered.
func glance(t *testing.T, router *netns.Host, family string) glimpse {
	t.Helper()
	var g glimpse
	seen := make(map[int]bool)
	for _, state := range []string{"open", "closed"} {
		list := router.Output(t, netns.Tool(t, "nft"), "list", "set", "inet", "answers", state+family)
		_, elements, _ := strings.Cut(list, "elements")
		for _, text := range portNumbers.FindAllString(elements, -1) {
			port, err := strconv.Atoi(text)
			if err != nil {
				t.Fatal(err)
			}
			if seen[port] {
				continue
			}
			seen[port] = true
			switch {
			case slices.Contains(benchServices, port):
				g.services++
			case slices.Contains(benchExcluded, port):
				g.excluded++
			default:
				g.tripwires++
				if state == "open" {
					g.posing++
				}
			}
		}
	}
	return g
}
