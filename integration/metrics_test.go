package integration

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"nftsentry/integration/netns"
	"nftsentry/integration/packet"
)

// metricsConf has the daemon serve metrics.
const metricsConf = "metrics.listen = \"127.0.0.1:9478\"\n"

// scrape reads the metrics of a daemon as Prometheus does.
func (d *daemon) scrape() string {
	d.t.Helper()
	client := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return d.host.Dial(ctx, network, address, "")
		},
	}}
	answer, err := client.Get("http://127.0.0.1:9478/metrics")
	if err != nil {
		d.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		d.t.Fatalf("%s, %v\n%s", answer.Status, err, text)
	}
	return string(text)
}

// series are the values of a scrape by their names with labels, ours without
// their prefix.
func series(t *testing.T, scrape string) map[string]float64 {
	t.Helper()
	out := make(map[string]float64)
	lines := bufio.NewScanner(strings.NewReader(scrape))
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "#") {
			continue
		}
		name, text, _ := cutLast(lines.Text(), " ")
		value, err := strconv.ParseFloat(text, 64)
		if err != nil {
			t.Fatalf("%q: %v", lines.Text(), err)
		}
		out[strings.TrimPrefix(name, "nftsentry_")] = value
	}
	return out
}

func cutLast(s, separator string) (before, after string, found bool) {
	i := strings.LastIndex(s, separator)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(separator):], true
}

// stealthKinds are packets that complete no connection, with their kinds.
var stealthKinds = map[string]packet.Flags{
	"syn": packet.SYN, "fin": packet.FIN, "null": 0, "xmas": packet.FIN | packet.PSH | packet.URG, "syn-fin": packet.SYN | packet.FIN,
}

// stealthily sends packets to ports of the server in the name of a source.
func stealthily(t *testing.T, from *packet.Sender, source string, flags packet.Flags, ports ...uint16) {
	t.Helper()
	for i, port := range ports {
		from.Send(t, packet.TCP{
			Source: netip.AddrPortFrom(netip.MustParseAddr(source), 40000+uint16(i)),
			Target: netip.AddrPortFrom(netip.MustParseAddr(server4), port), Flags: flags,
		}.Bytes())
	}
}

// TestMetrics sends probes of all kinds, gives commands, does damage, and
// compares what is counted with what was done.
func TestMetrics(t *testing.T) {
	w := newWorld(t)
	conf := metricsConf + "trigger.connects = 2\nignore.sources = [\"10.8.0.77\"]\n"
	d := guard(t, w.server, conf)
	sender := packet.Open(t, w.router)
	want := map[string]float64{
		"controller_up": 1, "enforcing": 1, "config_last_reload_successful": 1,
		"trigger_budget_limit": 120, "trigger_budget_period_seconds": 60, `blocks_limit{family="ipv4"}`: 65536, `blocks_limit{family="ipv6"}`: 65536,
		"ignored_prefixes": float64(d.status().Ignored.Prefixes),
	}
	event := func(protocol, kind, evidence, outcome string, n float64) {
		want[fmt.Sprintf("events_total{evidence=%q,kind=%q,outcome=%q,protocol=%q}", evidence, kind, outcome, protocol)] = n
	}
	i := 0
	for kind, flags := range stealthKinds {
		i++
		stealthily(t, sender, fmt.Sprintf("10.7.0.%d", i), flags, 2, 3, 4)
		event("tcp", kind, "unproven", "noticed", 2)
		event("tcp", kind, "unproven", "blocked", 1)
	}
	kinds := float64(len(stealthKinds))
	eventually(t, "the packets are counted", patience, func() bool { return d.status().Blocks.Live == len(stealthKinds) })
	want[`blocks_made_total{origin="kernel"}`] = kinds
	want[`time_to_block_seconds_count{evidence="unproven"}`] = kinds

	decoys := []int{23, 79}
	for _, port := range decoys {
		_, _ = touch(w.client, "", server4, port)
	}
	eventually(t, "the connections are counted", patience, func() bool { return d.status().Blocks.Live == len(stealthKinds)+1 })
	event("tcp", "syn", "unproven", "noticed", 2+float64(len(decoys)))
	event("tcp", "connect", "proven", "noticed", 1)
	event("tcp", "connect", "proven", "blocked", 1)
	want[`blocks_made_total{origin="decoy"}`] = 1
	want[`time_to_block_seconds_count{evidence="proven"}`] = 1
	want["decoy_connections_total"] = 2

	d.must("block", "2001:db8:77::/48", "198.51.100.1")
	d.must("block", "198.51.100.1", "--timeout", "2h")
	d.must("unblock", "198.51.100.1", client4) // whose connection would be tried again, and be dropped again
	want[`blocks_made_total{origin="operator"}`] = 2
	want[`blocks_extended_total{origin="operator"}`] = 1
	want[`blocks_ended_total{reason="operator"}`] = 2
	want[`blocks{family="ipv4"}`], want[`blocks{family="ipv6"}`] = kinds, 1

	d.must("reload")
	d.configure(conf + "block.timeout = 1\n")
	if r := d.exec("reload", "--socket", d.dir+"/sock"); r.code != 2 {
		t.Errorf("a broken file: %+v", r)
	}
	want[`config_reloads_total{result="success"}`], want[`config_reloads_total{result="failure"}`], want["config_last_reload_successful"] = 1, 1, 0

	var got, told map[string]float64
	for deadline := time.Now().Add(patience); !cmp.Equal(want, told) && time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		got = series(t, d.scrape())
		told = counted(got, want)
	}
	if diff := cmp.Diff(want, told); diff != "" {
		t.Errorf("series (-want +got):\n%s", diff)
	}
	if at := got["config_last_reload_success_timestamp_seconds"]; time.Since(time.Unix(int64(at), 0)) > time.Minute {
		t.Errorf("the configuration is from %v", time.Unix(int64(at), 0))
	}

	const packets = 10
	stealthily(t, sender, "10.7.0.1", packet.SYN, slices.Repeat([]uint16{700}, packets)...)
	w.server.Output(t, netns.Tool(t, "nft"), "delete element inet nftsentry blocked4 { 10.7.0.2 }")
	want = map[string]float64{"dropped_packets_total": packets, "dropped_bytes_total": packets * 40, "heals_total": 1}
	changes := make(map[string]float64)
	eventually(t, "the drops and the repair are counted", patience, func() bool {
		now := series(t, d.scrape())
		for name := range want {
			changes[name] = now[name] - got[name]
		}
		return cmp.Equal(want, changes)
	})
}

// counted are the series of a scrape that are wanted, or count something.
// The kernel tells of the SYNs to decoys too, when the source may be blocked
// already or not: here they are noticed all the same.
func counted(got, want map[string]float64) map[string]float64 {
	const syn = `events_total{evidence="unproven",kind="syn",outcome="%s",protocol="tcp"}`
	out := make(map[string]float64)
	for name, v := range got {
		if _, expected := want[name]; expected || v != 0 && counts.MatchString(name) {
			out[name] = v
		}
	}
	repeated := fmt.Sprintf(syn, "repeated")
	out[fmt.Sprintf(syn, "noticed")] += out[repeated]
	delete(out, repeated)
	return out
}

// counts are the series of a scrape that count, and are ours.
var counts = regexp.MustCompile(`^(blocks|events|config_reloads|decoy|heals|probes|trigger|nflog_lost|nflog_overruns|nflog_malformed|doubts|panicked|state|table|time_to_block_seconds_count)`)

// TestMetricsLinted has promtool look at a scrape, at the rules and their tests,
// and at the queries of the dashboard, which are about what there is.
func TestMetricsLinted(t *testing.T) {
	promtool := netns.Tool(t, "promtool")
	w := newWorld(t)
	scrape := guard(t, w.server, metricsConf).scrape()
	ours := slices.DeleteFunc(slices.Collect(strings.Lines(scrape)), func(line string) bool { return !strings.Contains(line, "nftsentry_") })
	run(t, strings.Join(ours, ""), promtool, "check", "metrics")
	run(t, "", promtool, "check", "rules", "--lint-fatal", rulesFile)
	run(t, "", promtool, "test", "rules", "../contrib/prometheus/nftsentry_test.yml")

	rules, err := os.ReadFile(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	queries := dashboardQueries(t)
	var asRules strings.Builder
	asRules.WriteString("groups:\n- name: dashboard\n  rules:\n")
	for i, q := range queries {
		q = strings.NewReplacer("$__rate_interval", "5m", "$__range", "1h").Replace(q)
		fmt.Fprintf(&asRules, "  - record: query:%d\n    expr: %q\n", i, q)
	}
	file := filepath.Join(t.TempDir(), "dashboard.yml")
	if err := os.WriteFile(file, []byte(asRules.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "", promtool, "check", "rules", file)
	for _, selector := range selectors.FindAllStringSubmatch(strings.Join(append(queries, string(rules)), "\n"), -1) {
		if strings.HasPrefix(selector[1], "nftsentry_hook_") { // only if there are hooks
			continue
		}
		if !selects(scrape, selector[1], selector[2]) {
			t.Errorf("%s selects nothing of what the program exposes", selector[0])
		}
	}
}

const rulesFile = "../contrib/prometheus/nftsentry.rules.yml"

// run runs a program on some input; it fails with what that has to say.
func run(t *testing.T, input, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

// dashboardQueries are all queries of the dashboard, each with a panel that
// says what it is. All take the data source from the variable.
func dashboardQueries(t *testing.T) (queries []string) {
	t.Helper()
	data, err := os.ReadFile("../contrib/grafana/nftsentry.json")
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct {
			ID                       int
			Type, Title, Description string
			Datasource               struct{ UID string }
			Targets                  []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(data, &board); err != nil {
		t.Fatal(err)
	}
	ids := make(map[int]bool)
	for _, p := range board.Panels {
		if ids[p.ID] || p.Title == "" {
			t.Errorf("panel %d, %q, has no title, or the number of another", p.ID, p.Title)
		}
		ids[p.ID] = true
		if p.Type == "row" {
			continue
		}
		if p.Description == "" || p.Datasource.UID != "${datasource}" || len(p.Targets) == 0 {
			t.Errorf("panel %q lacks a description, the variable data source or a query", p.Title)
		}
		for _, target := range p.Targets {
			queries = append(queries, target.Expr)
		}
	}
	if len(queries) == 0 {
		t.Fatal("the dashboard has no queries")
	}
	return queries
}

var (
	selectors = regexp.MustCompile(`\b((?:nftsentry|process)_\w+)(\{[^}]*\})?`)
	matchers  = regexp.MustCompile(`(\w+)(=~|!=|=)"([^"]*)"`)
)

// selects tells whether a scrape has a series that a selector means. The labels
// of Prometheus itself do not count.
func selects(scrape, name, labels string) bool {
	for line := range strings.Lines(scrape) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || rest[0] != '{' && rest[0] != ' ' {
			continue
		}
		if !slices.ContainsFunc(matchers.FindAllStringSubmatch(labels, -1), func(m []string) bool {
			return m[1] != "job" && m[1] != "instance" && !strings.Contains(rest, fmt.Sprintf("%s=%q", m[1], m[3]))
		}) {
			return true
		}
	}
	return false
}

// TestMetricsMessages shows what is said where the metrics cannot be served,
// and that a changed key waits for a restart.
func TestMetricsMessages(t *testing.T) {
	w := newWorld(t)
	serve(t, w.server, "127.0.0.1:9478", "taken")
	p := newProgram(t, w.server, metricsConf)
	want := `nftsentry: metrics.listen = "127.0.0.1:9478": address already in use: another program has it: "ss -ltnp" tells which; stop it, or take another port` + "\n"
	if r := p.command("run"); r.code != 1 || r.stderr != want || r.stdout != "" {
		t.Errorf("an address that is taken: %+v, want\n%s", r, want)
	}
	if out := w.server.Output(t, netns.Tool(t, "nft"), "list", "tables"); out != "" {
		t.Errorf("it leaves behind %s", out)
	}
	p.configure("metrics.listen = \"0.0.0.0:9479\"")
	if r := p.command("check"); r.code != 2 || !strings.Contains(r.stderr, "metrics.expose = true") {
		t.Errorf("an address that others can reach: %+v", r)
	}
	sock := filepath.Join(p.dir, "metrics.sock")
	p.configure(fmt.Sprintf("metrics.listen = %q", sock))
	d := p.run()
	conn, err := net.Dial("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "GET /metrics HTTP/1.0\r\n\r\n")
	if text, err := io.ReadAll(conn); err != nil || !strings.Contains(string(text), "\nnftsentry_controller_up 1\n") {
		t.Errorf("%v\n%s", err, text)
	}
	d.configure("metrics.listen = \"0.0.0.0:9479\"\nmetrics.expose = true")
	waits := "nftsentry: metrics.listen has changed: it waits for a restart of the daemon\n" +
		"nftsentry: metrics.expose has changed: it waits for a restart of the daemon\n"
	if r := d.command("reload"); r.code != 0 || r.stderr != waits {
		t.Errorf("reload: %+v, want exit status 0 and\n%s", r, waits)
	}
	if code := d.end(unix.SIGTERM); code != 0 {
		t.Errorf("exit status %d", code)
	}
	if _, err := os.Lstat(sock); !os.IsNotExist(err) {
		t.Errorf("the socket stays behind: %v", err)
	}
}
