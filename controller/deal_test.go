package controller

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nftsentry/integration/netns"
	"nftsentry/nft"
)

func TestMain(m *testing.M) { netns.Main(m) }

// A deal is what a Kernel is held to: somebody works on it, and what can be
// seen of that is written down, once with the fake and once with the kernel.
type deal struct {
	t *testing.T
	Kernel
	somebody          // changes the kernel behind our back
	saw      []string // what could be seen
}

// Somebody else than us. Sets are those of hosts.
type somebody interface {
	deleteTable()
	addHost(p netip.Prefix, timeout time.Duration) // for ever if it is 0
	deleteHost(p netip.Prefix)
	emptyNets()
	addChain()
}

// stranger works on the kernel by nft(8).
type stranger struct {
	t    *testing.T
	host *netns.Host
}

func (s stranger) nft(line string) {
	s.t.Helper()
	s.host.Output(s.t, "nft", line)
}

func (s stranger) deleteTable() { s.nft("delete table inet " + nft.TableName) }

func (s stranger) addHost(p netip.Prefix, timeout time.Duration) {
	life := ""
	if timeout > 0 {
		life = fmt.Sprintf(" timeout %ds", timeout/time.Second)
	}
	s.nft(fmt.Sprintf("add element inet %s %s { %s%s }", nft.TableName, hostSet(p), p.Addr(), life))
}

func (s stranger) deleteHost(p netip.Prefix) {
	s.nft(fmt.Sprintf("delete element inet %s %s { %s }", nft.TableName, hostSet(p), p.Addr()))
}

func (s stranger) emptyNets() { s.nft("flush set inet " + nft.TableName + " nets4") }
func (s stranger) addChain()  { s.nft("add chain inet " + nft.TableName + " odd") }

func hostSet(p netip.Prefix) string {
	if p.Addr().Is4() {
		return "blocked4"
	}
	return "blocked6"
}

func (k *fakeKernel) addHost(p netip.Prefix, timeout time.Duration) {
	k.ends[p], k.since[p] = time.Time{}, time.Now()
	if timeout > 0 {
		k.ends[p] = time.Now().Add(timeout)
	}
}

func (k *fakeKernel) deleteHost(p netip.Prefix) { delete(k.ends, p) }
func (k *fakeKernel) emptyNets()                { k.pieces = nil }
func (k *fakeKernel) addChain()                 { k.damaged = true }

// note writes down what came of a call.
func (d *deal) note(what string, err error) {
	d.saw = append(d.saw, what+": "+outcome(err))
}

// outcome names an error by what the controller can tell it by.
func outcome(err error) string {
	for _, known := range []struct {
		err  error
		name string
	}{{nil, "ok"}, {unix.ENOENT, "ENOENT"}, {unix.ENFILE, "ENFILE"}, {nft.ErrNotApplied, "not applied"}} {
		if errors.Is(err, known.err) {
			return known.name
		}
	}
	return "refused"
}

// element is one whose comment is what is left of the text: "203.0.113.7 10m scan".
func elementOf(text string) nft.Element {
	f := strings.SplitN(text, " ", 3)
	timeout, err := time.ParseDuration(f[1])
	if err != nil {
		panic(err)
	}
	e := nft.Element{Prefix: source(f[0]), Timeout: timeout}
	if len(f) > 2 {
		e.Comment = f[2]
	}
	return e
}

// source is an address or a prefix.
func source(text string) netip.Prefix {
	if a, err := netip.ParseAddr(text); err == nil {
		return netip.PrefixFrom(a, a.BitLen())
	}
	return netip.MustParsePrefix(text)
}

func (d *deal) load(prefix6 int, blocks ...string) {
	var all []nft.Element
	for _, b := range blocks {
		all = append(all, elementOf(b))
	}
	d.note("load", d.Load(nft.Config{Enforce: true, Prefix6: prefix6}, slices.Values(all), nil))
}

func (d *deal) block(text string) {
	d.note("block "+strings.Fields(text)[0], d.Block(elementOf(text)))
}

// blockSoon is block once there is room: the kernel collects when it likes.
func (d *deal) blockSoon(text string) {
	for end := time.Now().Add(collected + 2*time.Second); ; time.Sleep(100 * time.Millisecond) {
		err := d.Block(elementOf(text))
		if !errors.Is(err, unix.ENFILE) || time.Now().After(end) {
			d.note("block "+strings.Fields(text)[0], err)
			return
		}
	}
}

func (d *deal) unblock(sources ...string) {
	var all []netip.Prefix
	for _, s := range sources {
		all = append(all, source(s))
	}
	d.note("unblock "+strings.Join(sources, " "), d.Unblock(all...))
}

// look writes down what is blocked. Times are rounded up to what the kernel
// can be held to: whole seconds, but for those that pass while it works.
func (d *deal) look() {
	all, _, err := d.Blocked()
	if err != nil {
		d.note("blocked", err)
		return
	}
	for _, e := range all {
		line := display(e.Prefix) + " " + rough(e.Timeout)
		if e.Age >= time.Second {
			line += " old"
		}
		d.saw = append(d.saw, strings.TrimSpace(line+" "+e.Comment))
	}
	d.saw = append(d.saw, "")
}

// rough is a time left, up to a sixth of a minute: tests may be slow.
func rough(d time.Duration) string {
	if d > 10*time.Second {
		return ((d + 10*time.Second - 1).Truncate(10 * time.Second)).String()
	}
	if d > 0 {
		return "soon"
	}
	return "for ever"
}

func (d *deal) lookServed() {
	all, err := d.Served()
	if err != nil {
		d.note("served", err)
	}
	slices.SortFunc(all, func(a, b nft.Service) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Port, b.Port))
	})
	for _, s := range all {
		d.saw = append(d.saw, fmt.Sprintf("%d/%d %s", s.Protocol, s.Port, rough(s.Timeout)))
	}
	d.saw = append(d.saw, "")
}

// oneByOne lets several tables be worked on in parallel: google/nftables counts
// its sets in a variable of the package.
type oneByOne struct{ table *nft.Table }

var one sync.Mutex

func (o oneByOne) Load(cfg nft.Config, blocks iter.Seq[nft.Element], served []nft.Service) error {
	one.Lock()
	defer one.Unlock()
	return o.table.Load(cfg, blocks, served)
}

func (o oneByOne) Block(elems ...nft.Element) error {
	one.Lock()
	defer one.Unlock()
	return o.table.Block(elems...)
}

func (o oneByOne) Unblock(prefixes ...netip.Prefix) error {
	one.Lock()
	defer one.Unlock()
	return o.table.Unblock(prefixes...)
}

func (o oneByOne) Forgive(sources ...netip.Prefix) error {
	one.Lock()
	defer one.Unlock()
	return o.table.Forgive(sources...)
}

func (o oneByOne) SetHost(ignored, onLink6 []netip.Prefix) error {
	one.Lock()
	defer one.Unlock()
	return o.table.SetHost(ignored, onLink6)
}

func (o oneByOne) BlockAll(elems iter.Seq[nft.Element]) error {
	one.Lock()
	defer one.Unlock()
	return o.table.BlockAll(elems)
}

func (o oneByOne) Configure(cfg nft.Config, served []nft.Service) error {
	one.Lock()
	defer one.Unlock()
	return o.table.Configure(cfg, served)
}

func (o oneByOne) Blocked() ([]nft.Element, bool, error) {
	one.Lock()
	defer one.Unlock()
	return o.table.Blocked()
}

func (o oneByOne) Convicted() ([]nft.Element, error) {
	one.Lock()
	defer one.Unlock()
	return o.table.Convicted()
}

func (o oneByOne) Held(keys ...netip.Addr) ([]nft.Element, error) {
	one.Lock()
	defer one.Unlock()
	return o.table.Held(keys...)
}

func (o oneByOne) Serve(services []nft.Service) error {
	one.Lock()
	defer one.Unlock()
	return o.table.Serve(services)
}

func (o oneByOne) Intact() (bool, error) {
	one.Lock()
	defer one.Unlock()
	return o.table.Intact()
}

func (o oneByOne) Reshape() error {
	one.Lock()
	defer one.Unlock()
	return o.table.Reshape()
}

func (o oneByOne) RestoreNets() error {
	one.Lock()
	defer one.Unlock()
	return o.table.RestoreNets()
}

func (o oneByOne) HostPrefix(key netip.Addr) netip.Prefix { return o.table.HostPrefix(key) }

func (o oneByOne) Served() ([]nft.Service, error) {
	one.Lock()
	defer one.Unlock()
	return o.table.Served()
}
