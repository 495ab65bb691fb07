//go:build bench

package bench

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"nftsentry/integration/netns"
)

// elementTime has sources connect to a decoy of nftsentry, one after the other:
// from the moment when connect(2) returns, which is when the server can first
// accept, until the element is in the kernel.
func elementTime(t *testing.T, r *recorder, blocks int) {
	for _, hang := range []bool{false, true} {
		for _, family := range []struct{ name, server, set, prefix string }{
			{"IPv4", server4, "blocked4", "10.8.%d.%d/16"},
			{"IPv6", server6, "blocked6", "2001:db8:8::%x:%x/64"},
		} {
			kase := "connect to element, " + family.name + inPlace(blocks)
			config := "[block]\nprefix6 = 128\n"
			if hang {
				kase += ", a hook hangs"
				config += hangingHook(t)
			}
			t.Run(kase, func(t *testing.T) {
				w := newWorld(t)
				d := startSentry(t, w.server, config)
				d.fill(t, blocks)
				reader := newElementReader(t, w.server)
				for _, a := range w.sources(t, family.prefix, 500) {
					took := reader.await(t, w, family.server, family.set, a)
					r.add(kase, sentry.name, "time", "ms", milliseconds(took))
				}
			})
		}
	}
}

// hangingHook is the configuration of a hook that never ends.
func hangingHook(t testing.TB) string {
	t.Helper()
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("[[hook.exec]]\ncommand = [%q, \"1000\"]\ntimeout = \"10m\"\nlimit = \"100000/m\"\n", sleep)
}

// An elementReader asks the kernel for single elements, without the code that
// is measured.
type elementReader struct{ conn *netlink.Conn }

func newElementReader(t testing.TB, host *netns.Host) elementReader {
	t.Helper()
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: host.FD()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return elementReader{conn}
}

// await has a source connect to a decoy, and says how soon it is in a set.
func (r elementReader) await(t testing.TB, w *world, server, set string, source netip.Addr) time.Duration {
	t.Helper()
	conn, err := w.client.Dial(t.Context(), "tcp", net.JoinHostPort(server, "23"), source.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	began := time.Now()
	for !r.has(t, set, source) {
		if time.Since(began) > patience {
			t.Fatalf("%s is not in %s after %v", source, set, patience)
		}
	}
	return time.Since(began)
}

// patience is how long a block of nftsentry may take.
const patience = 10 * time.Second

// has asks whether a set of nftsentry has an address, as "nft get element" does.
func (r elementReader) has(t testing.TB, set string, a netip.Addr) bool {
	t.Helper()
	enc := netlink.NewAttributeEncoder()
	enc.String(unix.NFTA_SET_ELEM_LIST_TABLE, "nftsentry")
	enc.String(unix.NFTA_SET_ELEM_LIST_SET, set)
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
		Data:   append([]byte{unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0}, attrs...),
	})
	if err != nil && !errors.Is(err, unix.ENOENT) {
		t.Fatal(err)
	}
	return err == nil
}

// fill blocks hosts that never come.
func (d *daemon) fill(t testing.TB, blocks int) {
	t.Helper()
	if blocks == 0 {
		return
	}
	var list strings.Builder
	for i := range blocks {
		fmt.Fprintln(&list, stranger(i))
	}
	file := filepath.Join(d.dir, "blocks")
	if err := os.WriteFile(file, []byte(list.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	d.must(t, "block", "--file", file, "--timeout", "1h")
}
