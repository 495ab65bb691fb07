package host

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// fakeProc makes a folder like /proc of files and, where they begin with "->", symbolic links.
func fakeProc(t *testing.T, files map[string]string) Proc {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if len(text) > 2 && text[:2] == "->" {
			err = os.Symlink(text[2:], path)
		} else {
			err = os.WriteFile(path, []byte(text), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return NewProc(dir)
}

func TestProcesses(t *testing.T) {
	p := fakeProc(t, map[string]string{
		"self/ns/net": "->net:[1]",
		"10/comm":     "fail2ban-server\n", "10/cmdline": "/usr/bin/python3\x00/usr/bin/fail2ban-server\x00-xf\x00start\x00", "10/ns/net": "->net:[1]",
		"11/comm": "sshd\n", "11/cmdline": "sshd: /usr/sbin/sshd -D\x00", "11/ns/net": "->net:[2]", "11/fd/3": "->socket:[77]",
		"12/comm": "kworker/0:1\n", "12/cmdline": "",
		"13/cmdline": "gone",
		"10/fd/4":    "->socket:[78]", "10/fd/5": "->/dev/null",
		"meminfo": "",
	})
	got, err := p.Processes()
	if err != nil {
		t.Fatal(err)
	}
	fail2ban := Process{10, "fail2ban-server", []string{"/usr/bin/python3", "/usr/bin/fail2ban-server", "-xf", "start"}}
	sshd := Process{11, "sshd", []string{"sshd: /usr/sbin/sshd -D"}}
	if diff := cmp.Diff([]Process{fail2ban, {12, "kworker/0:1", nil}}, got); diff != "" {
		t.Errorf("Processes (-want +got):\n%s", diff)
	}
	holders, err := p.Holders()
	if diff := cmp.Diff(map[uint64]Process{77: sshd, 78: fail2ban}, holders); diff != "" || err != nil {
		t.Errorf("Holders, error %v (-want +got):\n%s", err, diff)
	}
}

func TestRuns(t *testing.T) {
	for _, tt := range []struct {
		name    string
		process Process
		program string
		want    bool
	}{
		{"by name", Process{1, "portsentry", nil}, "portsentry", true},
		{"a longer name than the kernel keeps", Process{1, "a-very-long-nam", nil}, "a-very-long-name", true},
		{"by command line", Process{1, "renamed", []string{"/usr/sbin/portsentry", "-tcp"}}, "portsentry", true},
		{"by interpreter", Process{1, "perl", []string{"/usr/bin/perl", "-w", "/usr/sbin/psad"}}, "psad", true},
		{"who only reads its log", Process{1, "less", []string{"less", "/etc/psad"}}, "psad", false},
		{"another", Process{1, "sshd", []string{"/usr/sbin/sshd"}}, "psad", false},
	} {
		if got := tt.process.Runs(tt.program); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestReaders(t *testing.T) {
	p := fakeProc(t, map[string]string{
		"net/netfilter/nfnetlink_log": "61999   4242     0 2    128    10  1\n65535 -1234567     0 2    128    10  1\n    5   99     0 2    128    10  1\n",
		"self/net/netlink": "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n" +
			"00000000757c4f2e 12  4242       00000000 0        0        0     2        0        900\n" +
			"00000000757c4f2f 12  4293732729 00000000 0        0        0     2        0        901\n" +
			"00000000757c4f30 0   99         00000000 0        0        0     2        0        902\n",
	})
	got, err := p.Readers()
	want := []Reader{{61999, 4242, 900}, {65535, 4293732729, 901}, {5, 99, 0}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("error %v (-want +got):\n%s", err, diff)
	}
	if got, err := fakeProc(t, nil).Readers(); len(got) > 0 || err != nil {
		t.Errorf("without the module: %v, %v", got, err)
	}
}

func TestListeners(t *testing.T) {
	const head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
	p := fakeProc(t, map[string]string{
		"self/net/tcp": head +
			"   0: 0100007F:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0\n" +
			"   1: 0100007F:0016 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 100 0 0 10 0\n",
		"self/net/tcp6": head +
			"   0: 00000000000000000000000000000000:08AE 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1 0 100 0 0 10 0\n",
	})
	want := []Listener{{netip.MustParseAddrPort("127.0.0.1:22"), 4711}, {netip.MustParseAddrPort("[::]:2222"), 4713}}
	got, err := p.Listeners()
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.AddrPort{})); diff != "" || err != nil {
		t.Errorf("error %v (-want +got):\n%s", err, diff)
	}
}

func TestLegacy(t *testing.T) {
	p := fakeProc(t, map[string]string{"net/ip_tables_names": "nat\nfilter\n", "net/ip6_tables_names": "filter\n"})
	got, err := p.Legacy()
	if diff := cmp.Diff([]string{"filter", "ip6 filter", "nat"}, got); diff != "" || err != nil {
		t.Errorf("error %v (-want +got):\n%s", err, diff)
	}
}

func TestConntrack(t *testing.T) {
	p := fakeProc(t, map[string]string{"sys/net/netfilter/nf_conntrack_count": "5\n", "sys/net/netfilter/nf_conntrack_max": "262144\n"})
	if count, most, err := p.Conntrack(); count != 5 || most != 262144 || err != nil {
		t.Errorf("Conntrack = %d, %d, %v", count, most, err)
	}
}

// TestRealProc finds this very process and one of its sockets.
func TestRealProc(t *testing.T) {
	p := NewProc("/proc")
	processes, err := p.Processes()
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range processes {
		if one.PID == os.Getpid() {
			return
		}
	}
	t.Errorf("%d processes without this one", len(processes))
}
