package controller

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"nftsentry/integration/netns"
	"nftsentry/nft"
)

// TestContract shows that the fake does what the kernel does.
func TestContract(t *testing.T) {
	t.Parallel()
	for _, tt := range contract {
		t.Run(tt.name, func(t *testing.T) {
			if tt.name != "full sets" { // which keep the processor busy
				t.Parallel()
			}
			check := func(t *testing.T, k Kernel, s somebody) {
				d := &deal{t: t, Kernel: k, somebody: s}
				tt.do(d)
				if diff := gocmp.Diff(strings.Split(tt.want, "\n"), strings.Split(strings.Join(d.saw, "\n"), "\n")); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			}
			t.Run("fake", func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					k := newFakeKernel()
					check(t, k, k)
				})
			})
			t.Run("kernel", func(t *testing.T) {
				host := netns.New(t, "contract")
				table, err := nft.Open(host.FD(), 64)
				if err != nil {
					t.Fatal(err)
				}
				defer table.Close()
				check(t, oneByOne{table}, stranger{t, host})
			})
		})
	}
}

var contract = slices.Concat(contractOfBlocks, contractOfOthers)

// A scenario is something that is done to a kernel, and what is seen of it.
type scenario struct {
	name string
	do   func(d *deal)
	want string
}

var contractOfBlocks = []scenario{
	{"full sets", func(d *deal) {
		full := hosts(nft.DefaultHosts)
		cfg := nft.Config{Enforce: true, Prefix6: 64}
		d.note("load", d.Load(cfg, slices.Values(append(full[:1000:1000], hosts(10)[0])), nil))
		d.note("one too many", d.Load(cfg, slices.Values(append(full[:len(full):len(full)], elementOf("203.0.113.7 1h"))), []nft.Service{}))
		all, _, err := d.Blocked()
		d.note(fmt.Sprint("all or nothing: ", len(all)), err)
		d.note("as many as there may be", d.Load(cfg, slices.Values(full), nil))
		d.block("203.0.113.7 1h")
		d.block("10.1.0.7 2h longer")
		d.block("198.51.100.0/24 1h")
		d.block("2001:db8:7::/64 1h")
		d.unblock("203.0.113.7")
		d.unblock("10.1.0.8", "203.0.113.7")
		d.block("203.0.113.7 1h")
		d.block("203.0.113.8 1h")
		d.block("10.1.0.0 1s")
		d.block("10.1.0.1 1s")
		time.Sleep(1050 * time.Millisecond)
		full[0] = elementOf("203.0.113.9 1h")
		d.note("load while some wait to be collected", d.Load(cfg, slices.Values(full), nil))
		d.block("10.1.0.2 1s")
		d.block("10.1.0.3 1s")
		time.Sleep(1050 * time.Millisecond)
		d.unblock("10.1.0.2", "203.0.113.7")
		d.blockSoon("203.0.113.7 1h")
	}, `load: ok
one too many: ENFILE
all or nothing: 1000: ok
as many as there may be: ok
block 203.0.113.7: ENFILE
block 10.1.0.7: ok
block 198.51.100.0/24: ok
block 2001:db8:7::/64: ok
unblock 203.0.113.7: ok
unblock 10.1.0.8 203.0.113.7: ok
block 203.0.113.7: ok
block 203.0.113.8: ENFILE
block 10.1.0.0: ok
block 10.1.0.1: ok
load while some wait to be collected: ok
block 10.1.0.2: ok
block 10.1.0.3: ok
unblock 10.1.0.2 203.0.113.7: ok
block 203.0.113.7: ok`},

	{"no table", func(d *deal) {
		d.look()
		d.lookServed()
		d.block("203.0.113.7 10m")
		d.block("198.51.100.0/24 10m")
		d.unblock("203.0.113.7")
		d.unblock("198.51.100.0/24")
		d.note("forgive one", d.Forgive(source("203.0.113.7")))
		d.note("forgive all", d.Forgive())
		d.note("set host", d.SetHost([]netip.Prefix{source("10.0.0.1")}, nil))
	}, `

block 203.0.113.7: ENOENT
block 198.51.100.0/24: ENOENT
unblock 203.0.113.7: ok
unblock 198.51.100.0/24: ok
forgive one: ok
forgive all: ok
set host: ENOENT`},

	{"somebody deletes the table", func(d *deal) {
		d.load(64, "203.0.113.7 10m", "198.51.100.0/24 1h")
		d.deleteTable()
		d.look()
		d.unblock("203.0.113.7", "192.0.2.9")
		d.unblock("198.51.100.0/24") // one that the Table remembers
		d.block("198.51.0.0/16 1h")
		d.load(64, "203.0.113.8 10m")
		d.look() // nothing of what failed comes back
	}, `load: ok

unblock 203.0.113.7 192.0.2.9: ok
unblock 198.51.100.0/24: ENOENT
block 198.51.0.0/16: ENOENT
load: ok
203.0.113.8 10m0s
`},

	{"what is not valid", func(d *deal) {
		d.load(64)
		d.block("203.0.113.7 999ms")
		d.block("203.0.113.7/24 10m")
		d.block("::ffff:203.0.113.7 10m")
		d.block("203.0.113.7 10m " + strings.Repeat("x", 128))
		d.note("load", d.Load(nft.Config{Prefix6: 129}, nil, nil))
		d.block("203.0.113.7 1s " + strings.Repeat("x", 127))
		d.look()
	}, `load: ok
block 203.0.113.7: refused
block 203.0.113.7/24: refused
block ::ffff:203.0.113.7: refused
block 203.0.113.7: refused
load: refused
block 203.0.113.7: ok
203.0.113.7 soon ` + strings.Repeat("x", 127) + "\n"},

	// R13: the time left is what was asked for last, be it more or less.
	{"longer and shorter", func(d *deal) {
		d.load(64, "203.0.113.7 10m a", "198.51.100.0/24 10m a", "2001:db8:7::/64 10m a", "2001:db8:1::5 10m a")
		for _, change := range []string{" 1h b", " 1m c", " 24h", " 24h d"} {
			for _, s := range []string{"203.0.113.7", "198.51.100.0/24", "2001:db8:7::/64", "2001:db8:1::5"} {
				d.block(s + change)
			}
			d.look()
		}
	}, `load: ok` + strings.Join([]string{
		changed("1h0m0s b"), changed("1m0s c"), changed("24h0m0s"), changed("24h0m0s d"),
	}, "")},

	{"timeouts are rounded up, and end", func(d *deal) {
		d.load(64, "203.0.113.7 2100ms", "203.0.113.8 1h", "198.51.100.0/24 1s", "198.51.101.0/24 1h", "2001:db8::/48 1s")
		time.Sleep(1300 * time.Millisecond)
		d.look() // the first has three seconds
		time.Sleep(2 * time.Second)
		d.look()
		d.unblock("203.0.113.7", "198.51.100.0/24") // what is over
		d.block("203.0.113.7 1h again")             // before or after it is collected
		d.look()
	}, `load: ok
198.51.101.0/24 1h0m0s
203.0.113.7 soon old
203.0.113.8 1h0m0s old

198.51.101.0/24 1h0m0s
203.0.113.8 1h0m0s old

unblock 203.0.113.7 198.51.100.0/24: ok
block 203.0.113.7: ok
198.51.101.0/24 1h0m0s
203.0.113.7 1h0m0s again
203.0.113.8 1h0m0s old
`},

	{"unblock", func(d *deal) {
		d.load(64, "203.0.113.7 10m", "203.0.113.8 10m", "198.51.100.0/24 1h", "2001:db8:7::/64 1h")
		d.unblock("203.0.113.7", "192.0.2.9", "192.0.2.0/24") // two are not there
		d.unblock("198.51.100.7")                             // lies in one
		d.unblock("203.0.113.0/24")                           // lies around one
		d.unblock("2001:db8:7::1")
		d.look()
		d.unblock("203.0.113.8", "198.51.100.0/24", "2001:db8:7::/64")
		d.unblock()
		d.look()
	}, `load: ok
unblock 203.0.113.7 192.0.2.9 192.0.2.0/24: ok
unblock 198.51.100.7: ok
unblock 203.0.113.0/24: ok
unblock 2001:db8:7::1: ok
198.51.100.0/24 1h0m0s
203.0.113.8 10m0s
2001:db8:7::/64 1h0m0s

unblock 203.0.113.8 198.51.100.0/24 2001:db8:7::/64: ok
unblock : ok
`},

	{"prefixes in prefixes", func(d *deal) {
		d.load(64, "10.0.0.0/8 1h a", "10.64.0.0/10 2h b", "10.64.0.0/24 3h c", "10.65.0.0/24 40s no")
		d.look()
		d.unblock("10.64.0.0/10")
		d.look()
		d.block("10.0.0.0/8 24h long")
		d.look()
		d.block("10.0.0.0/8 50s short")
		d.look()
		d.unblock("10.0.0.0/8")
		d.look()
		d.load(64)
		d.block("0.0.0.0/0 1h")
		d.block("255.255.255.0/24 2h")
		d.block("::/0 1h")
		d.block("ffff::/16 2h")
		d.look()
		d.load(64, "10.0.0.0/9 1h a", "10.0.0.0/10 1h b", "10.128.0.0/9 1h a", "11.0.0.0/8 1h a")
		d.look() // as long as each other
	}, `load: ok
10.0.0.0/10 1h0m0s a
10.64.0.0/24 3h0m0s c
10.64.1.0/24 2h0m0s b
10.64.2.0/23 2h0m0s b
10.64.4.0/22 2h0m0s b
10.64.8.0/21 2h0m0s b
10.64.16.0/20 2h0m0s b
10.64.32.0/19 2h0m0s b
10.64.64.0/18 2h0m0s b
10.64.128.0/17 2h0m0s b
10.65.0.0/16 2h0m0s b
10.66.0.0/15 2h0m0s b
10.68.0.0/14 2h0m0s b
10.72.0.0/13 2h0m0s b
10.80.0.0/12 2h0m0s b
10.96.0.0/11 2h0m0s b
10.128.0.0/9 1h0m0s a

unblock 10.64.0.0/10: ok
10.0.0.0/10 1h0m0s a
10.64.0.0/24 3h0m0s c
10.64.1.0/24 1h0m0s a
10.64.2.0/23 1h0m0s a
10.64.4.0/22 1h0m0s a
10.64.8.0/21 1h0m0s a
10.64.16.0/20 1h0m0s a
10.64.32.0/19 1h0m0s a
10.64.64.0/18 1h0m0s a
10.64.128.0/17 1h0m0s a
10.65.0.0/16 1h0m0s a
10.66.0.0/15 1h0m0s a
10.68.0.0/14 1h0m0s a
10.72.0.0/13 1h0m0s a
10.80.0.0/12 1h0m0s a
10.96.0.0/11 1h0m0s a
10.128.0.0/9 1h0m0s a

block 10.0.0.0/8: ok
10.0.0.0/8 24h0m0s long

block 10.0.0.0/8: ok
10.0.0.0/10 50s short
10.64.0.0/24 3h0m0s c
10.64.1.0/24 50s short
10.64.2.0/23 50s short
10.64.4.0/22 50s short
10.64.8.0/21 50s short
10.64.16.0/20 50s short
10.64.32.0/19 50s short
10.64.64.0/18 50s short
10.64.128.0/17 50s short
10.65.0.0/16 50s short
10.66.0.0/15 50s short
10.68.0.0/14 50s short
10.72.0.0/13 50s short
10.80.0.0/12 50s short
10.96.0.0/11 50s short
10.128.0.0/9 50s short

unblock 10.0.0.0/8: ok
10.64.0.0/24 3h0m0s c
10.65.0.0/24 40s no

load: ok
block 0.0.0.0/0: ok
block 255.255.255.0/24: ok
block ::/0: ok
block ffff::/16: ok
0.0.0.0/1 1h0m0s
128.0.0.0/2 1h0m0s
192.0.0.0/3 1h0m0s
224.0.0.0/4 1h0m0s
240.0.0.0/5 1h0m0s
248.0.0.0/6 1h0m0s
252.0.0.0/7 1h0m0s
254.0.0.0/8 1h0m0s
255.0.0.0/9 1h0m0s
255.128.0.0/10 1h0m0s
255.192.0.0/11 1h0m0s
255.224.0.0/12 1h0m0s
255.240.0.0/13 1h0m0s
255.248.0.0/14 1h0m0s
255.252.0.0/15 1h0m0s
255.254.0.0/16 1h0m0s
255.255.0.0/17 1h0m0s
255.255.128.0/18 1h0m0s
255.255.192.0/19 1h0m0s
255.255.224.0/20 1h0m0s
255.255.240.0/21 1h0m0s
255.255.248.0/22 1h0m0s
255.255.252.0/23 1h0m0s
255.255.254.0/24 1h0m0s
255.255.255.0/24 2h0m0s
::/1 1h0m0s
8000::/2 1h0m0s
c000::/3 1h0m0s
e000::/4 1h0m0s
f000::/5 1h0m0s
f800::/6 1h0m0s
fc00::/7 1h0m0s
fe00::/8 1h0m0s
ff00::/9 1h0m0s
ff80::/10 1h0m0s
ffc0::/11 1h0m0s
ffe0::/12 1h0m0s
fff0::/13 1h0m0s
fff8::/14 1h0m0s
fffc::/15 1h0m0s
fffe::/16 1h0m0s
ffff::/16 2h0m0s

load: ok
10.0.0.0/10 1h0m0s b
10.64.0.0/10 1h0m0s a
10.128.0.0/9 1h0m0s a
11.0.0.0/8 1h0m0s a
`},

	{"hosts and IPv6 prefixes", func(d *deal) {
		d.load(64, "2001:db8:1:2::/64 1h wide", "2001:db8:1:3::5 1h one", "2001:db8:1:4:: 1h first", "2001:db8:2::/48 1h net")
		d.look()
		d.load(56, "2001:db8:1:100::/56 1h host", "2001:db8:1:2::/64 1h net")
		d.look()
		d.unblock("2001:db8:1:100::/56", "2001:db8:1:2::/64")
		d.look()
		d.load(128, "2001:db8:1:4:: 1h host")
		d.look()
	}, `load: ok
2001:db8:1:2::/64 1h0m0s wide
2001:db8:1:3::5 1h0m0s one
2001:db8:1:4:: 1h0m0s first
2001:db8:2::/48 1h0m0s net

load: ok
2001:db8:1:2::/64 1h0m0s net
2001:db8:1:100::/56 1h0m0s host

unblock 2001:db8:1:100::/56 2001:db8:1:2::/64: ok

load: ok
2001:db8:1:4:: 1h0m0s host
`},
}

// hosts are n elements of an hour: 10.1.0.0, 10.1.0.1 and so on.
func hosts(n int) []nft.Element {
	all := make([]nft.Element, n)
	for i := range all {
		a := netip.AddrFrom4([4]byte{10, byte(1 + i>>16), byte(i >> 8), byte(i)})
		all[i] = nft.Element{Prefix: netip.PrefixFrom(a, 32), Timeout: time.Hour}
	}
	return all
}

// changed is what is seen of the change of four sources.
func changed(to string) string {
	return fmt.Sprintf(`
block 203.0.113.7: ok
block 198.51.100.0/24: ok
block 2001:db8:7::/64: ok
block 2001:db8:1::5: ok
198.51.100.0/24 %[1]s
203.0.113.7 %[1]s
2001:db8:1::5 %[1]s
2001:db8:7::/64 %[1]s
`, to)
}
