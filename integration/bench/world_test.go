//go:build bench

package bench

import (
	"testing"

	"nftsentry/integration/netns"
)

// A world is three hosts in a row: the server that is guarded, its router, and
// a client behind that. What the router sees pass by is what counts.
type world struct {
	server, router, client *netns.Host
}

// The addresses in a world. The router's interfaces are "srv" and "cli", those
// of the others "eth0".
const (
	server4, server6 = "10.9.0.2", "2001:db8:9::2"
	router4, router6 = "10.9.0.1", "2001:db8:9::1"
	client4, client6 = "10.8.0.2", "2001:db8:8::2"
)

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{netns.New(t, "server"), netns.New(t, "router"), netns.New(t, "client")}
	netns.Link(t, w.server, w.router, "eth0", "srv", []string{server4 + "/24", server6 + "/64"}, []string{router4 + "/24", router6 + "/64"})
	netns.Link(t, w.client, w.router, "eth0", "cli", []string{client4 + "/16", client6 + "/64"}, []string{"10.8.0.1/16", "2001:db8:8::1/64"})
	w.router.Forward(t)
	for host, via := range map[*netns.Host][2]string{w.server: {router4, router6}, w.client: {"10.8.0.1", "2001:db8:8::1"}} {
		host.Route(t, "default", via[0])
		host.Route(t, "default", via[1])
	}
	return w
}
