package controller

import (
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"nftsentry/nft"
)

// contractOfOthers is about what others do, services, and the host.
var contractOfOthers = []scenario{
	{"others add and delete", func(d *deal) {
		d.load(64, "203.0.113.7 10m ours")
		d.addHost(source("203.0.113.8"), time.Hour)
		d.addHost(source("203.0.113.9"), 0)
		d.deleteHost(source("203.0.113.7"))
		d.look()
		d.block("203.0.113.9 10m ours")
		d.unblock("203.0.113.8", "203.0.113.7")
		d.look()
	}, `load: ok
203.0.113.8 1h0m0s
203.0.113.9 for ever

block 203.0.113.9: ok
unblock 203.0.113.8 203.0.113.7: ok
203.0.113.9 10m0s ours
`},

	{"others change shape and prefixes", func(d *deal) {
		intact := func() {
			is, err := d.Intact()
			d.note(fmt.Sprint("intact ", is), err)
		}
		intact()
		d.note("reshape", d.Reshape())
		d.note("restore prefixes", d.RestoreNets())
		d.load(64, "203.0.113.7 10m", "198.51.100.0/24 1h a")
		intact()
		d.addChain()
		intact()
		d.note("reshape", d.Reshape())
		intact()
		d.addChain()
		d.emptyNets()
		d.look()
		d.note("restore prefixes", d.RestoreNets())
		d.look()
		d.load(64, "203.0.113.7 10m")
		intact()
		d.note("set host", d.SetHost([]netip.Prefix{source("10.0.0.1")}, nil))
		intact()
		d.deleteTable()
		intact()
		d.note("reshape", d.Reshape())
		d.note("restore prefixes", d.RestoreNets())
		for _, key := range []string{"203.0.113.7", "2001:db8:7::", "2001:db8:7::1", "::"} {
			d.saw = append(d.saw, d.HostPrefix(netip.MustParseAddr(key)).String())
		}
	}, `intact false: ok
reshape: ENOENT
restore prefixes: ENOENT
load: ok
intact true: ok
intact false: ok
reshape: ok
intact true: ok
203.0.113.7 10m0s

restore prefixes: ok
198.51.100.0/24 1h0m0s a
203.0.113.7 10m0s

load: ok
intact true: ok
set host: ok
intact true: ok
intact false: ok
reshape: ENOENT
restore prefixes: ENOENT
203.0.113.7/32
2001:db8:7::/64
2001:db8:7::1/128
::/64`},

	{"services", func(d *deal) {
		cfg := nft.Config{Enforce: true, Prefix6: 64}
		tcp := func(port uint16, timeout time.Duration) nft.Service {
			return nft.Service{Protocol: unix.IPPROTO_TCP, Port: port, Timeout: timeout}
		}
		d.note("load", d.Load(cfg, nil, []nft.Service{tcp(22, time.Hour), tcp(80, time.Second), {Protocol: unix.IPPROTO_UDP, Port: 53, Timeout: time.Hour}}))
		d.lookServed()
		time.Sleep(1100 * time.Millisecond)
		d.lookServed()
		d.note("load with nil", d.Load(cfg, nil, nil))
		d.note("block", d.Block(elementOf("203.0.113.7 1h")))
		d.lookServed()
		d.note("serve", d.Serve([]nft.Service{tcp(22, 2*time.Hour), tcp(25, time.Hour), {Protocol: unix.IPPROTO_UDP, Port: 53, Timeout: time.Minute}}))
		d.lookServed()
		d.note("load with none", d.Load(cfg, nil, []nft.Service{}))
		d.lookServed()
		var many []nft.Service
		for port := range uint16(nft.MaxServed + 10) {
			many = append(many, tcp(port+1, time.Hour))
		}
		d.note("load with too many", d.Load(cfg, nil, many))
		all, err := d.Served()
		d.note(fmt.Sprint(len(all)), err)
		d.deleteTable()
		d.lookServed()
		d.note("serve", d.Serve([]nft.Service{tcp(22, time.Hour)}))
	}, `load: ok
6/22 1h0m0s
6/80 soon
17/53 1h0m0s

6/22 1h0m0s
17/53 1h0m0s

load with nil: ok
block: ok
6/22 1h0m0s
17/53 1h0m0s

serve: ok
6/22 2h0m0s
6/25 1h0m0s
17/53 1m0s

load with none: ok

load with too many: ok
4096: ok

serve: ENOENT`},

	{"the host and what is counted", func(d *deal) {
		d.load(64, "203.0.113.7 1h")
		d.note("set host", d.SetHost([]netip.Prefix{source("10.0.0.1"), source("10.0.0.0/24")}, []netip.Prefix{source("2001:db8:1::/64")}))
		d.note("forgive one", d.Forgive(source("203.0.113.7"), source("2001:db8:7::/64")))
		d.note("forgive all", d.Forgive())
		d.look()
	}, `load: ok
set host: ok
forgive one: ok
forgive all: ok
203.0.113.7 1h0m0s
`},
}
