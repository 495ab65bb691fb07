//go:build bench

package integration

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"nftsentry/integration/netns"
)

// The benchmarks print a table and judge nothing, but for what would make the
// figures worthless. They are built with the tag "bench".

// figures prints what was measured, median and 99th percentile.
func figures(t *testing.T, rows map[string][]time.Duration) {
	t.Helper()
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "what\tn\tmedian\t95 %\t99 %\tmost\t")
	for _, name := range sortedKeys(rows) {
		d := rows[name]
		slices.Sort(d)
		at := func(q float64) time.Duration { return d[min(len(d)-1, int(q*float64(len(d))))].Round(time.Microsecond) }
		fmt.Fprintf(w, "%s\t%d\t%v\t%v\t%v\t%v\t\n", name, len(d), at(.5), at(.95), at(.99), at(1))
	}
	_ = w.Flush()
	fmt.Print("\n" + b.String() + "\n")
}

func sortedKeys(m map[string][]time.Duration) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// TestBenchTimeToBlock measures from the client's side, for a thousand
// sources in turn: from the moment when connect(2) to a decoy returns, which
// is when the server can first accept, until the element is in the kernel. It
// does so once more with a hook that never ends.
func TestBenchTimeToBlock(t *testing.T) {
	rows := make(map[string][]time.Duration)
	for _, hook := range []string{"", hangingHook} {
		for _, f := range families {
			w := newWorld(t)
			p := newProgram(t, w.server, "")
			script(t, p.trusted(), "hang", "sleep 1000")
			p.configure("block.prefix6 = 128\n" + hook)
			name := "connect to element, " + f.name
			if hook != "" {
				name += ", a hook hangs"
			}
			rows[name] = timeToBlock(t, w, p.run(), f.server, f.client, f.set)
		}
	}
	figures(t, rows)
}

const hangingHook = "[[hook.exec]]\ncommand = [\"/mnt/hang\"]\ntimeout = \"10m\"\nlimit = \"100000/m\"\n"

// timeToBlock has a thousand sources connect, one after the other.
func timeToBlock(t *testing.T, w *world, d *daemon, server, client, set string) (all []time.Duration) {
	t.Helper()
	const sources = 1000
	w.router.Addr(t, "cli", "10.8.0.3/16") // so that it finds all of them
	addrs := benchSources(client, sources)
	for _, a := range addrs {
		w.client.Addr(t, "eth0", a.String())
	}
	reader := newElementReader(t, w.server)
	for _, a := range addrs {
		conn, err := w.client.Dial(t.Context(), "tcp", net.JoinHostPort(server, "23"), a.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		for !reader.has(t, set, a.Addr()) {
			if time.Since(began) > 5*time.Second {
				t.Fatalf("%s is not blocked after 5s", a)
			}
		}
		all = append(all, time.Since(began))
		_ = conn.Close()
	}
	if got := d.status().Blocks.Live; got != sources {
		t.Errorf("%d blocks, want %d", got, sources)
	}
	return all
}

func procField(t *testing.T, file, field string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, field); ok {
			return strings.TrimSpace(value)
		}
	}
	t.Fatalf("no %s in %s", field, file)
	return ""
}

// cpuTicks is utime and stime of proc_pid_stat(5), in hundredths of a second.
func cpuTicks(t *testing.T, pid int) int {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), ") ")
	fields := strings.Fields(rest)
	user, err1 := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	return user + system
}

// benchSources are addresses of the client, with the prefix length of its link.
func benchSources(like string, n int) []netip.Prefix {
	var out []netip.Prefix
	for i := range n {
		text := fmt.Sprintf("10.8.%d.%d/16", 1+i/250, 1+i%250)
		if strings.Contains(like, ":") {
			text = fmt.Sprintf("2001:db8:8::2:%x/64", i+1)
		}
		out = append(out, netip.MustParsePrefix(text))
	}
	return out
}

// An elementReader asks the kernel for single elements, without the code
// under test.
type elementReader struct{ conn *netlink.Conn }

func newElementReader(t *testing.T, host *netns.Host) elementReader {
	t.Helper()
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: host.FD()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return elementReader{conn}
}

// has asks whether a set of our table has an address, as "nft get element" does.
func (r elementReader) has(t *testing.T, set string, a netip.Addr) bool {
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
