package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"nftsentry/state"
)

// A moved is a host that moves from Portsentry to us: its files of both, in folders of the test.
type moved struct {
	t                 *testing.T
	etc, old, dir, ow string // Portsentry's settings and files, our store, our configuration
}

// newMoved makes a host with a configuration of Portsentry in which $OLD stands for the folder of its files.
func newMoved(t *testing.T, settings string) *moved {
	t.Helper()
	top := t.TempDir()
	m := &moved{t, filepath.Join(top, "etc"), filepath.Join(top, "old"), filepath.Join(top, "new"), filepath.Join(top, "ours.toml")}
	put(t, filepath.Join(m.etc, "portsentry.conf"), strings.ReplaceAll(settings, "$OLD", m.old))
	put(t, m.ow, fmt.Sprintf("[block]\ntimeout = \"2h\"\n[ignore]\nsources = [\"203.0.113.0/24\"]\n[state]\ndir = %q\n", m.dir))
	if err := os.MkdirAll(m.old, 0o755); err != nil {
		t.Fatal(err)
	}
	return m
}

// settings1 are those of a host with 1.2.
const settings1 = `TCP_PORTS="1,11"
UDP_PORTS="1,7"
ADVANCED_PORTS_TCP="1024"
IGNORE_FILE="/usr/local/psionic/portsentry/portsentry.ignore"
HISTORY_FILE="$OLD/portsentry.history"
BLOCKED_FILE="$OLD/portsentry.blocked"
BLOCK_TCP="1"
BLOCK_UDP="1"
`

// settings2 are those of a host with 2.x.
const settings2 = `TCP_PORTS="1-1024"
HISTORY_FILE="$OLD/portsentry.log"
BLOCKED_FILE="$OLD/portsentry.blocked"
BLOCK_TCP="1"
KILL_HOSTS_DENY="ALL: $TARGET$"
`

// imports runs the import.
func (m *moved) imports(args ...string) ran {
	return program(false, append([]string{"import", m.etc, "-c", m.ow, "--state"}, args...)...)
}

// imported runs an import that must be done, and returns its messages on the state.
func (m *moved) imported(args ...string) string {
	m.t.Helper()
	got := m.imports(args...)
	if got.code != exitDone || !strings.HasPrefix(got.data, "# Made by") {
		m.t.Fatalf("%+v", got)
	}
	return got.messages
}

// open opens our store until the test ends.
func (m *moved) open() *state.Store {
	m.t.Helper()
	s, err := state.Open(m.dir, zap.NewNop())
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { s.Close() })
	return s
}

// live are the blocks in our store, by address.
func (m *moved) live() []state.Block {
	m.t.Helper()
	s := m.open()
	blocks, err := s.Live()
	if err != nil {
		m.t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		m.t.Fatal(err)
	}
	slices.SortFunc(blocks, func(a, b state.Block) int { return a.Address.Compare(b.Address) })
	return blocks
}

func (m *moved) read(path ...string) string {
	m.t.Helper()
	data, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		m.t.Fatal(err)
	}
	return string(data)
}

// line1 is a line of 1.2, seconds after some time in the past.
func line1(host, address string, seconds int, port uint16, protocol string) string {
	return state.Line{Time: time.Unix(1795350598+int64(seconds), 0), Host: host, Address: netip.MustParseAddr(address), Port: port, Protocol: protocol}.String() + "\n"
}

// sameBlocks compares all but the ends.
func sameBlocks(t *testing.T, want, got []state.Block) {
	t.Helper()
	prefix := cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
	addr := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
	when := cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) })
	if diff := cmp.Diff(want, got, prefix, addr, when, cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".Until" }, cmp.Ignore())); diff != "" {
		t.Errorf("blocks (-want +got):\n%s", diff)
	}
}

func TestImportState(t *testing.T) {
	m := newMoved(t, settings1)
	put(t, filepath.Join(m.etc, "portsentry.ignore"), "192.0.2.128/25\n")
	tcp := line1("192.0.2.7", "192.0.2.7", 0, 22, "tcp") + line1("scan.example.net", "192.0.2.8", 1, 23, "tcp") +
		line1("127.0.0.1", "127.0.0.1", 2, 23, "tcp") + line1("192.0.2.200", "192.0.2.200", 3, 23, "tcp") + line1("203.0.113.9", "203.0.113.9", 3, 1, "tcp")
	udp := line1("192.0.2.7", "192.0.2.7", 9, 7, "udp") + line1("192.0.2.9", "192.0.2.9", 10, 7, "udp")
	put(t, filepath.Join(m.old, "portsentry.blocked.atcp"), tcp)
	put(t, filepath.Join(m.old, "portsentry.blocked.udp"), udp)
	history := "915148800 - 01/01/99 00:00:00 Host: 192.0.2.1/192.0.2.1 Port: 1 TCP Blocked\nnotes of an admin\n" + tcp + udp
	put(t, filepath.Join(m.old, "portsentry.history"), history)

	began := time.Now()
	said := m.imported()
	ended := time.Now()
	for _, want := range []string{
		"127.0.0.1 is not blocked: it is ignored, as nobody else has it\n", "192.0.2.200 is not blocked: it is ignored, by /usr/local/psionic/portsentry/portsentry.ignore\n",
		"203.0.113.9 is not blocked: it is ignored, by ignore.sources\n", m.dir + ": 3 blocks taken over, each for 2h from now; 0 known already\n",
		"portsentry.history: 9 lines in ", "portsentry.history: 1 line not of Portsentry 1.2, kept all the same\n",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("no %q in\n%s", want, said)
		}
	}
	block := func(address string, seconds int, port uint16, protocol string) state.Block {
		a := netip.MustParseAddr(address)
		return state.Block{Source: netip.PrefixFrom(a, 32), Address: a, Since: time.Unix(1795350598+int64(seconds), 0), Port: port, Protocol: protocol,
			Origin: state.OriginImport, Comment: "import: portsentry"}
	}
	live := m.live()
	sameBlocks(t, []state.Block{block("192.0.2.7", 9, 7, "udp"), block("192.0.2.8", 1, 23, "tcp"), block("192.0.2.9", 10, 7, "udp")}, live)
	for _, b := range live {
		if b.Until.Before(began.Add(2*time.Hour)) || b.Until.After(ended.Add(2*time.Hour)) {
			t.Errorf("%s is blocked until %v, not two hours from now", b.Address, b.Until)
		}
	}
	if diff := cmp.Diff(history, m.read(m.dir, "portsentry.history")); diff != "" {
		t.Errorf("history (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(line1("192.0.2.8", "192.0.2.8", 1, 23, "tcp"), m.read(m.dir, "portsentry.blocked.tcp")); diff != "" {
		t.Errorf("blocked by TCP (-want +got):\n%s", diff)
	}
	m.again(live, history)
}

// again imports a second time, when one block has ended and the history has grown, and nothing may change.
func (m *moved) again(live []state.Block, history string) {
	m.t.Helper()
	s := m.open()
	s.End(live[0].Source, time.Now(), false, nil)
	newer := live[1]
	newer.Source, newer.Address, newer.Since = netip.MustParsePrefix("198.51.100.1/32"), netip.MustParseAddr("198.51.100.1"), time.Now()
	s.Save(newer, nil)
	done, stop := context.WithCancel(m.t.Context())
	stop()
	if err := s.Run(done); err != nil {
		m.t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		m.t.Fatal(err)
	}
	history += state.FormatLine(newer) + "\n"
	before, err := os.Stat(filepath.Join(m.dir, "portsentry.history"))
	if err != nil {
		m.t.Fatal(err)
	}
	for range 2 {
		if said, want := m.imported(), m.dir+": 0 blocks taken over, each for 2h from now; 3 known already\n"; !strings.Contains(said, want) {
			m.t.Errorf("no %q in\n%s", want, said)
		}
	}
	after, err := os.Stat(filepath.Join(m.dir, "portsentry.history"))
	if err != nil || !os.SameFile(before, after) {
		m.t.Errorf("the history is another file: %v", err)
	}
	if diff := cmp.Diff(history, m.read(m.dir, "portsentry.history")); diff != "" {
		m.t.Errorf("history after the second import (-want +got):\n%s", diff)
	}
	want := append(slices.Clone(live[1:]), newer)
	sameBlocks(m.t, want, m.live())
	for i, b := range m.live()[:2] {
		if !b.Until.Equal(want[i].Until) {
			m.t.Errorf("%s is blocked for longer by a second import", b.Address)
		}
	}
}

// TestImportStateGrown shows that lines which Portsentry has written after the first import follow with the next one.
func TestImportStateGrown(t *testing.T) {
	m := newMoved(t, settings1)
	path := filepath.Join(m.old, "portsentry.history")
	first, second := line1("192.0.2.7", "192.0.2.7", 0, 22, "tcp"), line1("192.0.2.8", "192.0.2.8", 5, 22, "tcp")
	own := line1("192.0.2.9", "192.0.2.9", 3, 1, "tcp")
	put(t, filepath.Join(m.dir, "portsentry.history"), own)
	put(t, path, first)
	m.imported()
	put(t, path, first+second+"179535")
	m.imported()
	if diff := cmp.Diff(first+second+own, m.read(m.dir, "portsentry.history")); diff != "" {
		t.Errorf("history (-want +got):\n%s", diff)
	}
	info, err := os.Stat(filepath.Join(m.dir, "portsentry.history"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("history: %v, %v", info.Mode(), err)
	}
	m.live() // opens the store, which may take up what it thinks is missing
	if diff := cmp.Diff(first+second+own, m.read(m.dir, "portsentry.history")); diff != "" {
		t.Errorf("history after the store was opened (-want +got):\n%s", diff)
	}
}

// TestImportStateBinary takes over what 2.x has written.
func TestImportStateBinary(t *testing.T) {
	m := newMoved(t, settings2)
	var data []byte
	for _, address := range []string{"192.0.2.7", "2001:db8:1:2::5", "fe80::7", "::1"} {
		a := netip.MustParseAddr(address)
		family := map[bool]uint16{true: unix.AF_INET6, false: unix.AF_INET}[a.Is6()]
		data = append(binary.NativeEndian.AppendUint16(data, family), a.AsSlice()...)
	}
	put(t, filepath.Join(m.old, "portsentry.blocked"), string(data)+"\x02")
	scan := func(address, blocked string) string {
		return "2026-11-22T12:29:58.123+0100 Scan from: [" + address + "] (scan.example.net) protocol: [TCP] port: [23] type: [TCP SYN/Normal scan] " +
			"IP opts: [not set] ignored: [false] triggered: [true] noblock: [unset] blocked: [" + blocked + "]\n"
	}
	put(t, filepath.Join(m.old, "portsentry.log"), scan("192.0.2.7", "true")+scan("192.0.2.8", "false")+"x\n")

	began := time.Now()
	said := m.imported()
	for _, want := range []string{
		"::1 is not blocked: it is ignored, as nobody else has it\n", m.dir + ": 3 blocks taken over", "portsentry.log: 1 line in ",
		"portsentry.log: 1 line of Portsentry 2.x, written as 1.2 does", "portsentry.log: 1 line left out, of packets for which nobody was blocked",
		"portsentry.log: 1 line left out, not of Portsentry 2.x\n",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("no %q in\n%s", want, said)
		}
	}
	live := m.live()
	var sources []string
	for _, b := range live {
		sources = append(sources, b.Source.String())
		if b.Since.Before(began) || b.Port != 0 || b.Protocol != "" || b.Origin != state.OriginImport {
			t.Errorf("%+v", b)
		}
	}
	if diff := cmp.Diff([]string{"192.0.2.7/32", "2001:db8:1:2::/64", "fe80::7/128"}, sources); diff != "" {
		t.Errorf("sources (-want +got):\n%s", diff)
	}
	when := time.Date(2026, 11, 22, 11, 29, 58, 0, time.UTC)
	want := state.Line{Time: when, Host: "scan.example.net", Address: netip.MustParseAddr("192.0.2.7"), Port: 23, Protocol: "tcp"}.String() + "\n"
	history := m.read(m.dir, "portsentry.history")
	if !strings.HasPrefix(history, want) || strings.Count(history, "\n") != 4 {
		t.Errorf("history\n%s\nwant to begin with\n%s", history, want)
	}
	if said := m.imported(); !strings.Contains(said, ": 0 blocks taken over, each for 2h from now; 3 known already\n") {
		t.Errorf("the second import says\n%s", said)
	}
	sameBlocks(t, live, m.live())
	if again := m.read(m.dir, "portsentry.history"); again != history {
		t.Errorf("history after the second import\n%s\nwant\n%s", again, history)
	}
}

// TestImportStateUnblocked shows that nobody is blocked whom Portsentry has not blocked, though it wrote so.
func TestImportStateUnblocked(t *testing.T) {
	m := newMoved(t, strings.Replace(settings1, `BLOCK_UDP="1"`, `BLOCK_UDP="2"`, 1))
	put(t, filepath.Join(m.old, "portsentry.blocked.tcp"), line1("192.0.2.7", "192.0.2.7", 0, 22, "tcp"))
	put(t, filepath.Join(m.old, "portsentry.blocked.audp"), line1("192.0.2.8", "192.0.2.8", 0, 7, "udp"))
	want := "portsentry.blocked.audp: 1 entry not taken over, as Portsentry was told not to block"
	if said := m.imported(); !strings.Contains(said, want) {
		t.Errorf("no %q in\n%s", want, said)
	}
	if live := m.live(); len(live) != 1 || live[0].Address.String() != "192.0.2.7" {
		t.Errorf("blocked: %v", live)
	}
}

// TestImportStateManyIgnored shows that ignored sources are told of, but not one by one for ever.
func TestImportStateManyIgnored(t *testing.T) {
	m := newMoved(t, settings1)
	var text strings.Builder
	for i := range 100 {
		text.WriteString(line1("x", fmt.Sprintf("203.0.113.%d", i), i, 22, "tcp"))
	}
	put(t, filepath.Join(m.old, "portsentry.blocked.tcp"), text.String())
	said := m.imported()
	if n := strings.Count(said, "is not blocked: it is ignored, by ignore.sources\n"); n != maxSpared {
		t.Errorf("%d sources are told of, want %d", n, maxSpared)
	}
	if want := "80 more are not blocked: they are ignored\n"; !strings.Contains(said, want) {
		t.Errorf("no %q in\n%s", want, said)
	}
	if live := m.live(); len(live) != 0 {
		t.Errorf("blocked: %v", live)
	}
}

// TestImportStateRefused has each reason not to begin. Nothing is printed or written then.
func TestImportStateRefused(t *testing.T) {
	good := line1("192.0.2.7", "192.0.2.7", 0, 22, "tcp")
	for name, tt := range map[string]struct {
		before func(m *moved)
		args   []string
		want   string // $OLD and $NEW are the folders
	}{
		"a running daemon": {func(m *moved) { m.open() }, nil,
			`$NEW/nftsentry.db: in use by another nftsentry: stop the daemon first, as with "systemctl stop nftsentry", and start it after the import; nothing is changed`},
		"damaged file": {func(m *moved) { put(m.t, filepath.Join(m.old, "portsentry.blocked.tcp"), good+"x\ny\n") }, nil,
			`$OLD/portsentry.blocked.tcp:2: "x": not a line of Portsentry 1.2, such as "1403884279 - 06/27/2014 17:51:19 Host: 192.0.2.7/192.0.2.7 Port: 1 TCP Blocked": take it out` + "\n" +
				`nftsentry: $OLD/portsentry.blocked.tcp:3: "y": not a line of Portsentry 1.2, such as "1403884279 - 06/27/2014 17:51:19 Host: 192.0.2.7/192.0.2.7 Port: 1 TCP Blocked": take it out`},
		"symbolic link": {func(m *moved) {
			if err := os.Symlink("/etc/passwd", filepath.Join(m.old, "portsentry.history")); err != nil {
				m.t.Fatal(err)
			}
		}, nil, "$OLD/portsentry.history: is a symbolic link to /etc/passwd, which is not followed: put the file itself there, or remove the link"},
		"FIFO": {func(m *moved) {
			if err := unix.Mkfifo(filepath.Join(m.old, "portsentry.blocked.stcp"), 0o600); err != nil {
				m.t.Fatal(err)
			}
		}, nil, "$OLD/portsentry.blocked.stcp: is not a regular file: move it away"},
		"old name taken": {func(m *moved) { put(m.t, filepath.Join(m.old, "portsentry.blocked.atcp.before-nftsentry"), "") }, []string{"--link"},
			"$OLD/portsentry.blocked.atcp.before-nftsentry is there already, and so is $OLD/portsentry.blocked.atcp again: move one of them away"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMoved(t, settings1)
			put(t, filepath.Join(m.old, "portsentry.blocked.atcp"), good)
			tt.before(m)
			want := strings.NewReplacer("$OLD", m.old, "$NEW", m.dir).Replace("nftsentry: " + tt.want + "\n")
			if got := m.imports(tt.args...); got != (ran{exitFailed, "", want}) {
				t.Errorf("%+v, want\n%s", got, want)
			}
			if text, err := os.ReadFile(filepath.Join(m.dir, "portsentry.blocked.tcp")); err == nil && len(text) > 0 {
				t.Errorf("blocks were written: %s", text)
			}
			if _, err := os.Readlink(filepath.Join(m.old, "portsentry.blocked.atcp")); err == nil {
				t.Error("a link was made")
			}
		})
	}
}

// linked tells where a link leads; "" for none.
func (m *moved) linked(name string) string {
	target, err := os.Readlink(filepath.Join(m.old, name))
	if err != nil {
		return ""
	}
	return target
}

func TestImportLink(t *testing.T) {
	m := newMoved(t, settings1)
	put(t, filepath.Join(m.etc, "portsentry.default"), "TCP_MODE=atcp\nUDP_MODE=udp\n")
	tcp, history := line1("192.0.2.7", "192.0.2.7", 0, 22, "tcp"), line1("192.0.2.1", "192.0.2.1", 0, 22, "tcp")
	put(t, filepath.Join(m.old, "portsentry.blocked.atcp"), tcp)
	put(t, filepath.Join(m.old, "portsentry.history"), history)
	// A link that was cut short has left a second name.
	if err := os.Link(filepath.Join(m.old, "portsentry.history"), filepath.Join(m.old, "portsentry.history.before-nftsentry")); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"portsentry.blocked.atcp": filepath.Join(m.dir, "portsentry.blocked.tcp"),
		"portsentry.blocked.udp":  filepath.Join(m.dir, "portsentry.blocked.udp"),
		"portsentry.history":      filepath.Join(m.dir, "portsentry.history"),
		"portsentry.blocked.tcp":  "", "portsentry.blocked.audp": "",
	}
	for range 2 {
		m.imported("--link")
		for name, target := range want {
			if got := m.linked(name); got != target {
				t.Errorf("%s leads to %q, want %q", name, got, target)
			}
		}
		if got := m.read(m.old, "portsentry.blocked.atcp.before-nftsentry"); got != tcp {
			t.Errorf("the old file is now %q", got)
		}
		if got := m.read(m.old, "portsentry.history"); got != history+tcp {
			t.Errorf("by the link, the history is %q, want %q", got, history+tcp)
		}
		if got := m.read(m.old, "portsentry.blocked.atcp"); got != tcp {
			t.Errorf("by the link, the blocked hosts are %q, want %q", got, tcp)
		}
	}
	names, err := os.ReadDir(m.old)
	if err != nil || len(names) != 5 {
		t.Errorf("%d files in the old folder, want 5: %v, %v", len(names), names, err)
	}
	if live := m.live(); len(live) != 1 {
		t.Errorf("blocked: %v", live)
	}
}

// TestImportLinkInPlace shows that nothing happens to files which are ours already.
func TestImportLinkInPlace(t *testing.T) {
	m := newMoved(t, settings1)
	put(t, filepath.Join(m.etc, "portsentry.conf"), strings.ReplaceAll(settings1, "$OLD", m.dir))
	m.live()
	m.imported("--link")
	names, err := os.ReadDir(m.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if !n.Type().IsRegular() || strings.HasSuffix(n.Name(), oldSuffix) {
			t.Errorf("there is %v", n)
		}
	}
}

// TestImportStateReadOnly shows that a store which cannot be written is told of.
func TestImportStateReadOnly(t *testing.T) {
	m := newMoved(t, settings1)
	put(t, m.dir, "a file where the folder should be")
	got := m.imports()
	if got.code != exitFailed || got.data != "" || !strings.Contains(got.messages, fmt.Sprintf("state.dir = %q cannot be written: ", m.dir)) {
		t.Errorf("%+v", got)
	}
}
