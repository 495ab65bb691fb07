package service

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"nftsentry/controller/api"
	"nftsentry/integration/netns"
)

// TestBoot starts on a host that has no address yet, no route and no link that is up. When they come the host is
// guarded: a decoy catches, and the gateway is not blocked.
func TestBoot(t *testing.T) {
	server, client := netns.New(t, "server"), netns.New(t, "client")
	ip := netns.Tool(t, "ip")
	server.Output(t, ip, "link", "set", "lo", "down")
	p := newPlace(t, server, guardUser, "")
	wrap, env := asUnit(t)
	d := p.start(wrap, nil, env)
	d.hear("READY=1")
	if s := p.status(); len(s.Problems) != 0 {
		t.Errorf("problems %q", s.Problems)
	}
	server.Output(t, ip, "link", "set", "lo", "up")
	netns.Link(t, server, client, "eth0", "eth0", []string{"10.9.0.2/24"}, []string{"10.9.0.1/24", "10.9.0.7/24"})
	server.Route(t, "default", "10.9.0.1")
	eventually(t, "the gateway is known", func() bool { return strings.Contains(p.ask("block", "10.9.0.1").stderr, "gateway") })
	eventually(t, "the scanner is blocked", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if conn, err := client.Dial(ctx, "tcp", "10.9.0.2:23", "10.9.0.7"); err == nil {
			_ = conn.Close()
		}
		var all []api.Block
		must(t, json.Unmarshal([]byte(p.must("list", "--json")), &all))
		return len(all) == 1 && all[0].Source == "10.9.0.7"
	})
}
