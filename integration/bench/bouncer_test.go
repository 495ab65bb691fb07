//go:build bench

package bench

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"nftsentry/integration/netns"
)

// keepBouncer is CrowdSec's firewall bouncer. What it blocks it gets from
// CrowdSec's local API, all of it when it starts, and keeps in the kernel only:
// to block many and to restore them is the same.
var keepBouncer = keeper{name: "crowdsec-firewall-bouncer", needs: []string{"crowdsec-firewall-bouncer", "nft"}, open: func(t testing.TB, w *world, c *crowd) *keeping {
	b := &bouncer{host: w.server, crowd: c, conf: c.path("bouncer.yaml")}
	serveDecisions(t, w.server, c)
	if err := os.WriteFile(b.conf, []byte(bouncerConf), 0o600); err != nil {
		t.Fatal(err)
	}
	return &keeping{block: b.start, reboot: b.reboot, restore: b.start, pids: b.pids}
}}

// bouncerConf is the configuration of Debian's package, without what has to
// do with other firewalls, and with its log on standard output.
const bouncerConf = `mode: nftables
update_frequency: 10s
log_mode: stdout
log_level: info
api_url: http://` + decisionsAddr + `/
api_key: key
disable_ipv6: false
deny_action: DROP
deny_log: false
supported_decisions_types:
  - ban
blacklists_ipv4: crowdsec-blacklists
blacklists_ipv6: crowdsec6-blacklists
nftables:
  ipv4:
    enabled: true
    set-only: false
    table: crowdsec
    chain: crowdsec-chain
  ipv6:
    enabled: true
    set-only: false
    table: crowdsec6
    chain: crowdsec6-chain
prometheus:
  enabled: true
  listen_addr: 127.0.0.1
  listen_port: 60601
`

const decisionsAddr = "127.0.0.1:8080"

// serveDecisions answers as the local API does, see "/decisions/stream" in
// https://crowdsecurity.github.io/api_doc/lapi/: all decisions when the bouncer
// starts, and no new ones later. The answer is ready beforehand.
func serveDecisions(t testing.TB, host *netns.Host, c *crowd) {
	t.Helper()
	first := true
	file := c.file(t, "decisions.json", `{"deleted":[],"new":[`, 1, func(w io.Writer, some []netip.Addr) {
		if !first {
			fmt.Fprint(w, ",")
		}
		first = false
		fmt.Fprintf(w, `{"duration":"59m59s","origin":"crowdsec","scenario":"crowdsecurity/iptables-scan-multi_ports","scope":"Ip","type":"ban","value":%q}`, some[0])
	}, "]}")
	all, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	l, err := host.Listen("tcp", decisionsAddr)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/decisions/stream", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		answer := []byte(`{"deleted":null,"new":null}`)
		if r.FormValue("startup") == "true" {
			answer = all
		}
		_, _ = w.Write(answer) // the bouncer may have ended
	})
	server := &http.Server{Handler: mux}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		_ = server.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
}

// A bouncer is one that runs, or has ended.
type bouncer struct {
	host  *netns.Host
	crowd *crowd
	conf  string
	cmd   *exec.Cmd
}

// start starts it, and waits until it has blocked all.
func (b *bouncer) start(t testing.TB) cost {
	t.Helper()
	b.cmd = b.host.Command("crowdsec-firewall-bouncer", "-c", b.conf)
	log := open(t, b.crowd.path("bouncer.log"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY)
	b.cmd.Stdout, b.cmd.Stderr = log, log
	kernel := newSetReader(t, b.host, ip, "crowdsec", "crowdsec-blacklists")
	began := time.Now()
	b.host.Start(t, b.cmd)
	for _, a := range b.crowd.sample() {
		for ; !kernel.has(t, a); time.Sleep(time.Millisecond) {
			if took := time.Since(began); took > tooLong {
				return cost{took: took, cut: true}
			}
		}
	}
	return cost{took: time.Since(began), peak: usageOf(t, b.pids()).peak}
}

func (b *bouncer) pids() []int {
	if b.cmd == nil {
		return nil
	}
	return []int{b.cmd.Process.Pid}
}

// reboot ends it and takes its tables away.
func (b *bouncer) reboot(t testing.TB) {
	t.Helper()
	if b.cmd != nil && b.cmd.ProcessState == nil {
		_ = b.cmd.Process.Signal(syscall.SIGKILL) // in the midst of its work it hears of nothing else
		_ = b.cmd.Wait()
	}
	dropTable(t, b.host, "ip", "crowdsec")
	dropTable(t, b.host, "ip6", "crowdsec6")
}
