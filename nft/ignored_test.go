package nft

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"nftsentry/integration/netns"
)

// manyIgnored are n prefixes, a quarter of them IPv6: some lie in others, and
// some are adjacent.
func manyIgnored(n int) []netip.Prefix {
	random := rand.New(rand.NewPCG(1, 2))
	out := make([]netip.Prefix, 0, n)
	for len(out) < n {
		low, bits := byte(random.IntN(256)), len(out)%9
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(16 + random.IntN(64)), byte(random.IntN(256)), byte(random.IntN(256)), low}), 32-bits)
		if len(out)%4 == 0 {
			a := netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, byte(random.IntN(16)), byte(random.IntN(256)), byte(random.IntN(256)), low})
			p = netip.PrefixFrom(a, 64-bits)
		}
		p = p.Masked()
		out = append(out, p)
		switch len(out) % 10 {
		case 3:
			out = append(out, netip.PrefixFrom(lastAddr(p).Next(), p.Bits()).Masked()) // adjacent
		case 7:
			out = append(out, netip.PrefixFrom(lastAddr(p), p.Addr().BitLen())) // inside
		}
	}
	return out[:n]
}

// heldSpans reads a set of sources as the disjoint spans it consists of.
func heldSpans(t testing.TB, table *Table, set string) (spans []span) {
	t.Helper()
	replies, err := table.ask(unix.NFT_MSG_GETSETELEM, netlink.Dump, map[uint16]string{
		unix.NFTA_SET_ELEM_LIST_TABLE: TableName, unix.NFTA_SET_ELEM_LIST_SET: set,
	})
	if err != nil {
		t.Fatal(err)
	}
	ends := make(map[netip.Addr]bool)
	for _, m := range replies {
		eachAttr(attributes(m.Data[nfgenmsg:])[unix.NFTA_SET_ELEM_LIST_ELEMENTS], func(elem *netlink.AttributeDecoder) {
			if key, end, ok := elementKey(elem.Bytes()); end {
				ends[key] = true
			} else if ok {
				spans = append(spans, span{first: key})
			}
		})
	}
	slices.SortFunc(spans, func(a, b span) int { return a.first.Compare(b.first) })
	after := slices.SortedFunc(maps.Keys(ends), netip.Addr.Compare)
	for i := range spans { // one end for each, since none reaches the highest address
		if i < len(after) {
			spans[i].last = after[i].Prev()
		}
	}
	return spans
}

// wantIgnored compares both sets of ignored sources, all of each, with a list.
func wantIgnored(t testing.TB, table *Table, list []netip.Prefix) {
	t.Helper()
	for _, f := range []family{ipv4, ipv6} {
		want, got := merge(ofFamily(list, f)), heldSpans(t, table, "ignored"+f.suffix)
		if !slices.Equal(want, got) {
			t.Errorf("ignored%s has %d intervals, want %d, or others", f.suffix, len(got), len(want))
		}
	}
}

// manySources is the size that is promised to work well.
const manySources = 100000

// TestManyIgnored shows that the kernel really holds 100,000 ignored prefixes,
// by Load and by SetHost, and after they are replaced by fewer.
func TestManyIgnored(t *testing.T) {
	cfg := enforce()
	cfg.Ignored = manyIgnored(manySources)
	_, table := load(t, cfg)
	wantIgnored(t, table, cfg.Ignored)
	for _, list := range [][]netip.Prefix{cfg.Ignored[:3], cfg.Ignored[manySources/10:]} {
		began := time.Now()
		if err := table.SetHost(list, nil); err != nil {
			t.Fatal(err)
		}
		t.Logf("replaced by %d in %v", len(list), time.Since(began))
		wantIgnored(t, table, list)
		wantIntact(t, table, true)
	}
}

// TestIgnoredNotApplied shows that a set which has less than was written is an
// error, and that the table is then not taken for intact.
func TestIgnoredNotApplied(t *testing.T) {
	_, table := load(t, enforce())
	_, err := table.transformOnce(func(b *builder, _ []string) error {
		defer func() { b.filled[b.sets.ignored4.Name]++ }() // as if one more had been sent
		return b.fillSources()
	})
	if !errors.Is(err, ErrNotApplied) {
		t.Errorf("with an interval missing: %v, want %v", err, ErrNotApplied)
	}
	wantIntact(t, table, false)
}

// TestIgnoredWithoutGap replaces a long list again and again, while another
// connection looks: a source that is in all of the lists is always ignored.
func TestIgnoredWithoutGap(t *testing.T) {
	host, table := load(t, enforce())
	list := manyIgnored(20000)
	always := netip.MustParsePrefix("203.0.113.7/32")
	if err := table.SetHost(append(list, always), nil); err != nil {
		t.Fatal(err)
	}
	stop, looks := make(chan struct{}), 0
	var g errgroup.Group
	g.Go(func() error {
		reader, err := Open(host.FD(), 64)
		if err != nil {
			return err
		}
		defer reader.Close()
		for {
			select {
			case <-stop:
				return nil
			default:
			}
			if err := holdsIgnored(reader, always); err != nil {
				return fmt.Errorf("look %d: %w", looks, err)
			}
			looks++
		}
	})
	for i := range 5 {
		if err := table.SetHost(append(list[:len(list)-i*3000:len(list)-i*3000], always), nil); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	if looks == 0 {
		t.Error("nobody has looked")
	}
}

// TestTooLong says what to do where the socket is too small.
func TestTooLong(t *testing.T) {
	err := tooLong(fmt.Errorf("sendmsg: %w", unix.EMSGSIZE))
	if want := "net.core.wmem_max of the host to 33554432"; !errors.Is(err, unix.EMSGSIZE) || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %q in it", err, want)
	}
	if err := tooLong(unix.ENFILE); err != unix.ENFILE {
		t.Errorf("another error becomes %v", err)
	}
}

// holdsIgnored asks the kernel for one element of the set of ignored IPv4 sources.
func holdsIgnored(reader *Table, p netip.Prefix) error {
	conn, err := reader.readConnection()
	if err != nil {
		return err
	}
	set := newSets(&nftables.Table{Name: TableName, Family: nftables.TableFamilyINet}, 0).ignored4
	_, err = getElements(conn, set, []Element{{Prefix: p}})
	return err
}

func BenchmarkSetHost(b *testing.B) {
	host := netns.New(b, "host")
	table, err := Open(host.FD(), 64)
	if err != nil {
		b.Fatal(err)
	}
	defer table.Close()
	if err := table.Load(enforce(), nil, nil); err != nil {
		b.Fatal(err)
	}
	list := manyIgnored(manySources)
	for b.Loop() {
		if err := table.SetHost(list, nil); err != nil {
			b.Fatal(err)
		}
	}
}
