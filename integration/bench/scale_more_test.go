//go:build bench

package bench

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"nftsentry/controller/api"
	"nftsentry/integration/netns"
)

// Where it takes long not all of the other sources have a turn.
const (
	fewestMore  = 3
	longestMore = 20 * time.Second
)

// oneMore measures what it takes to block one more source and to let it go:
// one that connects to a decoy, from connect(2) until the kernel holds it, and
// those that an operator names, from the request on the control socket until
// the answer.
func (d *daemon) oneMore(t testing.TB, w *world, kernel *setReader, others []netip.Addr, add func(measure, unit string, values ...float64)) {
	t.Helper()
	w.router.Addr(t, "cli", "10.8.0.3/16") // so that it finds all of them
	client := api.NewClient(filepath.Join(d.dir, "sock"))
	began := time.Now()
	for i, other := range others {
		if i >= fewestMore && time.Since(began) > longestMore {
			break
		}
		source := netip.AddrFrom4([4]byte{10, 8, 1, byte(1 + i)})
		w.client.Addr(t, "eth0", fmt.Sprintf("%s/16", source))
		add("connection to a decoy until it is blocked", "ms", milliseconds(touch(t, w, kernel, server4, source)))
		took, err := stopwatch(func() error {
			_, err := client.Block(t.Context(), api.BlockRequest{Source: other.String(), Seconds: 3600})
			return err
		})
		if err != nil || !kernel.has(t, other) {
			t.Fatalf("block %s: %v", other, err)
		}
		add("block one", "ms", milliseconds(took))
		took, err = stopwatch(func() error {
			_, err := client.Unblock(t.Context(), other.String())
			return err
		})
		if err != nil || kernel.has(t, other) {
			t.Fatalf("unblock %s: %v", other, err)
		}
		add("unblock one", "ms", milliseconds(took))
	}
}

// touch has a source connect to a decoy, and says how soon after that began it
// is blocked.
func touch(t testing.TB, w *world, kernel *setReader, server string, source netip.Addr) time.Duration {
	t.Helper()
	began := time.Now()
	conn, err := w.client.Dial(t.Context(), "tcp", net.JoinHostPort(server, "23"), source.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for !kernel.has(t, source) {
		if time.Since(began) > 10*time.Second {
			t.Fatalf("%s is not blocked after ten seconds", source)
		}
	}
	return time.Since(began)
}

func stopwatch(do func() error) (time.Duration, error) {
	began := time.Now()
	err := do()
	return time.Since(began), err
}

// A setReader asks the kernel for single elements of a set, without the code
// that is measured.
type setReader struct {
	conn       *netlink.Conn
	family     byte
	table, set string
}

// Families of tables.
const (
	inet = unix.NFPROTO_INET
	ip   = unix.NFPROTO_IPV4
)

func newSetReader(t testing.TB, host *netns.Host, family byte, table, set string) *setReader {
	t.Helper()
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: host.FD()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &setReader{conn, family, table, set}
}

// must sees that all of them are there.
func (r *setReader) must(t testing.TB, addrs []netip.Addr) {
	t.Helper()
	for _, a := range addrs {
		if !r.has(t, a) {
			t.Fatalf("%s is not in %s", a, r.set)
		}
	}
}

// has asks whether an address is there, as "nft get element" does.
func (r *setReader) has(t testing.TB, a netip.Addr) bool {
	t.Helper()
	enc := netlink.NewAttributeEncoder()
	enc.String(unix.NFTA_SET_ELEM_LIST_TABLE, r.table)
	enc.String(unix.NFTA_SET_ELEM_LIST_SET, r.set)
	enc.Nested(unix.NFTA_SET_ELEM_LIST_ELEMENTS, func(list *netlink.AttributeEncoder) error {
		list.Nested(unix.NFTA_LIST_ELEM, func(elem *netlink.AttributeEncoder) error {
			elem.Nested(unix.NFTA_SET_ELEM_KEY, func(key *netlink.AttributeEncoder) error {
				key.Bytes(unix.NFTA_DATA_VALUE, a.AsSlice())
				return nil
			})
			return nil
		})
		return nil
	})
	attrs, err := enc.Encode()
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.conn.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETSETELEM, Flags: netlink.Request},
		Data:   append([]byte{r.family, unix.NFNETLINK_V0, 0, 0}, attrs...),
	})
	if err != nil && !errors.Is(err, unix.ENOENT) {
		t.Fatal(err)
	}
	return err == nil
}
