package state

import (
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"nftsentry/integration/netns"
)

// TestMain sets the local zone, before anything reads the clock, and gives the tests mounts of their own.
func TestMain(m *testing.M) {
	time.Local = time.FixedZone("CET", 3600)
	netns.Main(m)
}

func TestFormatLine(t *testing.T) {
	tests := []struct {
		name  string
		block Block
		want  string
	}{
		{
			"tcp", Block{Address: netip.MustParseAddr("10.9.9.1"), Port: 2222, Protocol: "tcp"},
			"1795350598 - 11/22/2026 13:29:58 Host: 10.9.9.1/10.9.9.1 Port: 2222 TCP Blocked",
		},
		{
			"udp", Block{Address: netip.MustParseAddr("10.9.9.1"), Port: 1111, Protocol: "udp"},
			"1795350598 - 11/22/2026 13:29:58 Host: 10.9.9.1/10.9.9.1 Port: 1111 UDP Blocked",
		},
		{
			"operator", Block{Address: netip.MustParseAddr("10.9.9.1")},
			"1795350598 - 11/22/2026 13:29:58 Host: 10.9.9.1/10.9.9.1 Port: 0 TCP Blocked",
		},
		{
			"the address of a /64", Block{
				Source: netip.MustParsePrefix("2001:db8::/64"), Address: netip.MustParseAddr("2001:db8::5"),
				Port: 2222, Protocol: "tcp",
			},
			"1795350598 - 11/22/2026 13:29:58 Host: 2001:db8::5/2001:db8::5 Port: 2222 TCP Blocked",
		},
		{"prefix", Block{Source: netip.MustParsePrefix("192.0.2.0/24")}, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.block.Since = time.Unix(1795350598, 999999999).In(time.FixedZone("elsewhere", -7200))
			diff(t, "line", test.want, FormatLine(test.block))
		})
	}
}

func TestParseLine(t *testing.T) {
	tests := []struct {
		name, line string
		want       Line
	}{
		{
			"fail2ban's sample", "1403884279 - 06/27/2014 17:51:19 Host: 192.168.56.1/192.168.56.1 Port: 1 TCP Blocked",
			Line{time.Unix(1403884279, 0), "192.168.56.1", netip.MustParseAddr("192.168.56.1"), 1, "tcp"},
		},
		{
			"resolved", "1795350597 - 11/22/2026 12:29:57 Host: scan.example.net/10.9.9.1 Port: 1111 UDP Blocked",
			Line{time.Unix(1795350597, 0), "scan.example.net", netip.MustParseAddr("10.9.9.1"), 1111, "udp"},
		},
		{
			"IPv6", "1795350597 - 11/22/2026 12:29:57 Host: 2001:db8::5/2001:db8::5 Port: 65535 TCP Blocked",
			Line{time.Unix(1795350597, 0), "2001:db8::5", netip.MustParseAddr("2001:db8::5"), 65535, "tcp"},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := ParseLine(test.line)
			if err != nil {
				t.Fatal(err)
			}
			diff(t, "line", test.want, got)
		})
	}
}

func TestParseLineErrors(t *testing.T) {
	const good = "1403884279 - 06/27/2014 17:51:19 Host: 192.168.56.1/192.168.56.1 Port: 1 TCP Blocked"
	const date, host, end = `month/day/year`, `host name`, `does not end in`
	tests := []struct{ name, old, new, want string }{
		{"two digits for the year", "2014", "14", date},
		{"day before month", "06/27", "27/06", date},
		{"a fraction of the second", ":19", ":19.5", date},
		{"no such day", "06/27", "02/30", date},
		{"no seconds since 1970", "1403884279 - ", "", "seconds since 1970"},
		{"negative", "1403884279", "-1", "seconds since 1970"},
		{"leading zero", "1403884279", "01403884279", "seconds since 1970"},
		{"beyond all years", "1403884279", "999999999999", "seconds since 1970"},
		{"no host", "Host:", "Hose:", `no "Host:"`},
		{"empty host", "192.168.56.1/", "/", host},
		{"host with a blank", "192.168.56.1/", "a b/", host},
		{"host too long", "192.168.56.1/", strings.Repeat("x", 256) + "/", host},
		{"host with a slash", "192.168.56.1/", "a/b/", "no address"},
		{"one host", "192.168.56.1/", "", "no address"},
		{"zone", "/192.168.56.1", "/fe80::1%eth0", "no address"},
		{"not as we write it", "/192.168.56.1", "/2001:DB8::1", "no address"},
		{"no port", "Port: ", "Port ", `no "Port:"`},
		{"port too large", "Port: 1", "Port: 65536", "the port"},
		{"port with a sign", "Port: 1", "Port: +1", "the port"},
		{"sctp", "TCP", "SCTP", end},
		{"lower case", "TCP", "tcp", end},
		{"something after it", "Blocked", "Blocked ", end},
		{"newline", "Blocked", "Blocked\n", end},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			line := strings.Replace(good, test.old, test.new, 1)
			l, err := ParseLine(line)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%q: want an error with %q, got %v, %v", line, test.want, l, err)
			}
		})
	}
	for n := range len(good) {
		if l, err := ParseLine(good[:n]); err == nil {
			t.Errorf("%q: want an error, got %v", good[:n], l)
		}
	}
}

func FuzzParseLine(f *testing.F) {
	f.Add(FormatLine(block("192.0.2.1", 0)))
	f.Fuzz(func(t *testing.T, s string) {
		want, err := ParseLine(s)
		if err != nil {
			return
		}
		got, err := ParseLine(want.String())
		if err != nil {
			t.Fatal(err)
		}
		diff(t, "line", want, got)
		if len(want.String()) != len(s) {
			t.Errorf("want the form of %q, got %q", s, want)
		}
	})
}

// fail2ban is the failregex of fail2ban's filter.d/portsentry.conf, `\/<HOST> Port\: [0-9]+ (TCP|UDP) Blocked$`, after
// its date pattern has matched the seconds since 1970 at the beginning; <HOST> without what Go's regexp lacks.
var fail2ban = regexp.MustCompile(`^[0-9]{10}\b.*/(?:::f{4,6}:)?((?:\d{1,3}\.){3}\d{1,3}|(?:[0-9a-fA-F]{1,4}::?|::){1,7}[0-9a-fA-F]{0,4})` +
	` Port\: [0-9]+ (TCP|UDP) Blocked$`)

// cronHost is what scripts get by tr -d ' ' | cut -d: -f4 | cut -d/ -f1.
func cronHost(line string) string {
	host, _, _ := strings.Cut(strings.Split(strings.ReplaceAll(line, " ", ""), ":")[3], "/")
	return host
}

func TestReadersOfOurFiles(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir)
	udp := block("198.51.100.7", 1)
	udp.Protocol = "udp"
	operator := Block{Source: udp.Source, Address: udp.Address, Since: udp.Since, Origin: OriginOperator}
	for i, b := range []Block{udp, operator, block("203.0.113.255", 2), block("2001:db8::5", 3)} {
		b.Source = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 32)
		s.Save(b, nil)
	}
	flushed(t, s)
	text := read(t, dir, tcpName) + read(t, dir, udpName)
	if n := strings.Count(text, "\n"); n != 4 {
		t.Fatalf("want 4 lines, got %d", n)
	}
	diff(t, "history", 4, strings.Count(read(t, dir, historyName), "\n"))
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		parsed, err := ParseLine(line)
		if err != nil {
			t.Fatal(err)
		}
		match := fail2ban.FindStringSubmatch(line)
		if match == nil || match[1] != parsed.Address.String() {
			t.Errorf("fail2ban: want %s, got %q", parsed.Address, match)
		}
		if host := cronHost(line); parsed.Address.Is4() && host != parsed.Address.String() {
			t.Errorf("script: want %s, got %q", parsed.Address, host)
		}
	}
}
