package integration

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"nftsentry/controller/api"
	"nftsentry/integration/netns"
)

// report asks for the report of the last day.
func (p *program) report() api.Report {
	p.t.Helper()
	var r api.Report
	if err := json.Unmarshal([]byte(p.must("report", "--json")), &r); err != nil {
		p.t.Fatal(err)
	}
	return r
}

// reported waits until a report is so.
func (p *program) reported(what string, so func(api.Report) bool) api.Report {
	p.t.Helper()
	var r api.Report
	defer func() {
		if p.t.Failed() {
			p.t.Logf("the report: %+v", r.Totals)
		}
	}()
	eventually(p.t, what, patience, func() bool {
		r = p.report()
		return so(r)
	})
	return r
}

// named is the row of a list with a name.
func named(l api.ReportList, name string) api.ReportRow {
	for _, r := range l.Rows {
		if r.Name == name {
			return r
		}
	}
	return api.ReportRow{}
}

// TestReport scans with real packets, and reads of it in the report: from the daemon, after it was killed, from the one
// that comes after, and after that has ended.
func TestReport(t *testing.T) {
	w := newWorld(t)
	everywhere(t, w)
	d := guard(t, w.server, "")
	for _, source := range []string{"10.16.0.1", "10.16.0.2", "10.16.1.1"} {
		_, _ = touch(w.client, source, server4, 23)
	}
	d.reported("three sources are blocked", func(r api.Report) bool { return r.Totals.Proven == 3 })
	for _, scan := range []struct{ flag, source string }{{"-sS", "10.16.2.1"}, {"-sN", "10.16.2.2"}, {"-sX", "10.16.2.3"}} {
		w.client.Output(t, netns.Tool(t, "nmap"), scan.flag, "-n", "-Pn", "-e", "eth0", "-S", scan.source, "--max-retries", "0", "--host-timeout", "20s",
			"-p", "200-210", server4)
	}
	_, _ = touchQuickly(w.client, "10.16.0.1", server4, 80) // dropped
	d.must("block", "203.0.113.0/24", "--comment", "<b>abuse</b> desk")
	w.server.Output(t, netns.Tool(t, "nft"), "flush", "set", "inet", "nftsentry", "blocked4")
	r := d.reported("all is counted", func(r api.Report) bool {
		return r.Totals.Blocks == 7 && r.Totals.Packets > 0 && r.Totals.Heals > 0
	})
	checkReport(t, r)
	checkForms(t, d.program)
	before := d.report().Totals

	_ = d.end(unix.SIGKILL)
	killed := d.report()
	if n := killed.Totals.Packets; n < r.Totals.Packets || n > before.Packets {
		t.Errorf("after a kill %d packets, want from %d to %d", n, r.Totals.Packets, before.Packets)
	}
	killed.Totals.Packets, killed.Totals.Bytes = before.Packets, before.Bytes // the last of them, sent again at their leisure, may not be on disk
	if diff := cmp.Diff(before, killed.Totals); diff != "" || killed.Mode != "" {
		t.Errorf("after a kill, of mode %q (-want +got):\n%s", killed.Mode, diff)
	}
	again := d.program.run()
	_, _ = touch(w.client, "10.16.0.9", server4, 23)
	again.reported("the next one counts on", func(r api.Report) bool { return r.Totals.Blocks == 8 && r.Totals.Packets >= before.Packets })
	_, _ = touch(w.client, "10.16.0.10", server4, 23)
	eventually(t, "it is blocked", patience, func() bool { return slices.Contains(again.sources(), "10.16.0.10") })
	if code := again.end(unix.SIGTERM); code != 0 {
		t.Errorf("exit status %d", code)
	}
	if got := again.report().Totals; got.Blocks != 9 || got.Packets < before.Packets || got.Packets > before.Packets+1000 {
		t.Errorf("after the end %+v", got)
	}
}

// checkReport checks what the lists say.
func checkReport(t *testing.T, r api.Report) {
	t.Helper()
	if port := named(r.Ports, "tcp/23"); port.Probes < 3 || port.Blocks != 3 {
		t.Errorf("port 23: %+v", port)
	}
	if network := named(r.Networks, "10.16.0.0/24"); network.Blocks != 2 {
		t.Errorf("network: %+v", network)
	}
	if source := named(r.Sources, "10.16.2.1"); source.Blocks != 1 || source.Probes < 3 {
		t.Errorf("source: %+v", source)
	}
	if b := named(r.Offenders, "203.0.113.0/24"); b.Blocks != 1 || !strings.Contains(b.Comment, "<b>abuse</b> desk") {
		t.Errorf("the operator's: %+v", b)
	}
	kinds, origins := map[string]uint64{}, map[string]uint64{}
	for _, k := range r.Kinds {
		kinds[k.Kind] = k.Blocks
	}
	for _, o := range r.Origins {
		origins[o.Origin] = o.Blocks
	}
	if kinds["connect"] != 3 || kinds["syn"] != 1 || kinds["null"] != 1 || kinds["xmas"] != 1 {
		t.Errorf("kinds: %v", kinds)
	}
	if origins["decoy"] != 3 || origins["kernel"] != 3 || origins["operator"] != 1 {
		t.Errorf("origins: %v", origins)
	}
	sum := uint64(0)
	for _, p := range r.Parts {
		sum += p.Totals.Blocks
	}
	if sum != 7 || len(r.Parts) != 24 || r.Mode != "enforce" || r.Strikes[0].Blocks != 7 {
		t.Errorf("%d blocks in %d parts, mode %q, strikes %v", sum, len(r.Parts), r.Mode, r.Strikes)
	}
}

// checkForms checks the forms of the report, and its messages.
func checkForms(t *testing.T, p *program) {
	t.Helper()
	if text := p.must("report"); !strings.Contains(text, "7 blocks were made.") || !strings.Contains(text, "tcp/23") || !strings.Contains(text, "OVER TIME") {
		t.Errorf("text:\n%s", text)
	}
	file := filepath.Join(p.dir, "report.html")
	if out := p.must("report", "--last", "week", "--html", file); out != "" {
		t.Errorf("report --html FILE says %q", out)
	}
	page, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), "&lt;b&gt;abuse&lt;/b&gt; desk") || strings.Contains(string(page), "<b>") {
		t.Errorf("the comment is not escaped:\n%s", page)
	}
	if out := p.must("report", "--since", "3h", "--html"); !strings.HasPrefix(out, "<!DOCTYPE html>") {
		t.Errorf("report --html: %.80q", out)
	}
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"report", "--last", "year"}, `nftsentry: --last "year": write day, week or month`},
		{[]string{"report", "week"}, `nftsentry: what is "week" for? write --html week`},
		{[]string{"report", "--json", "--html"}, "nftsentry: --html and --json are two forms of the report"},
	} {
		if r := p.command(tt.args...); r.code != 2 || !strings.HasPrefix(r.stderr, tt.want) || r.stdout != "" {
			t.Errorf("%q: %+v, want %q", tt.args, r, tt.want)
		}
	}
}

// TestReportWithoutDaemon shows what report says where there never was a daemon, and on a socket that nobody answers on.
func TestReportWithoutDaemon(t *testing.T) {
	p := newProgram(t, netns.New(t, "host"), "")
	const want = "nftsentry: nftsentry is not running (nobody answers on "
	for _, args := range [][]string{{"report"}, {"report", "--socket", filepath.Join(p.dir, "other")}} {
		if r := p.command(args...); r.code != 1 || !strings.HasPrefix(r.stderr, want) || r.stdout != "" {
			t.Errorf("%q: %+v", args, r)
		}
	}
	if _, err := os.Stat(p.state("")); !os.IsNotExist(err) {
		t.Errorf("the state folder was made: %v", err)
	}
}
