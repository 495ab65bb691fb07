package state

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// stampLayout is the date and the time of day in a line, stampLength bytes of it.
const (
	stampLayout = "01/02/2006 15:04:05"
	stampLength = len(stampLayout)
)

// Line is one line of Portsentry 1.2's blocked and history files.
type Line struct {
	Time     time.Time  // when the source was blocked, to the second, in the local zone
	Host     string     // the name of the source, or its address again where it was not resolved
	Address  netip.Addr // the source; without a zone
	Port     uint16     // the destination port; 0 for none
	Protocol string     // "tcp" or "udp"
}

// FormatLine is the line of b, without its newline, in the local zone. A name is never looked up: both host fields are
// the address. A block without an Address, a prefix, has no form in Portsentry's files, and its line is "".
func FormatLine(b Block) string {
	if !b.Address.IsValid() {
		return ""
	}
	l := Line{b.Since, b.Address.String(), b.Address, b.Port, "tcp"}
	if b.Protocol == "udp" {
		l.Protocol = "udp"
	}
	return l.String()
}

// String is the line as Portsentry 1.2 writes it to its blocked and history files, without its newline, in the local
// zone. Its source has it as
//
//	"%ld - %02d/%02d/%04d %02d:%02d:%02d Host: %s/%s Port: %d %s Blocked\n"
//
// with the seconds since 1970, month/day/year and time of day by localtime(3), the resolved name, the address, the
// destination port, and TCP or UDP. fail2ban's filter is anchored at its end, so that nothing may follow.
func (l Line) String() string {
	b := make([]byte, 0, 128) // ten times faster than fmt
	b = strconv.AppendInt(b, l.Time.Unix(), 10)
	b = l.Time.Local().AppendFormat(append(b, " - "...), stampLayout)
	b = append(append(append(b, " Host: "...), l.Host...), '/')
	b = l.Address.AppendTo(b)
	b = strconv.AppendUint(append(b, " Port: "...), uint64(l.Port), 10)
	b = append(append(b, ' '), strings.ToUpper(l.Protocol)...)
	return string(append(b, " Blocked"...))
}

// ParseLine reads one line, without its newline, as Portsentry 1.2 writes it; resolved host names are accepted, and
// IPv6 addresses, which only nftsentry writes. The seconds since 1970 count: date and time of day must be well formed
// but may be those of another zone. Lines of Portsentry 1.0 and before, with two digits for the year, are refused.
func ParseLine(s string) (Line, error) {
	l, err := parseLine(s)
	if err != nil {
		return Line{}, fmt.Errorf("not a line of portsentry 1.2: %w: %.64q", err, s)
	}
	return l, nil
}

func parseLine(s string) (l Line, err error) {
	epoch, rest, _ := strings.Cut(s, " - ")
	if l.Time, err = parseEpoch(epoch); err != nil {
		return l, err
	}
	stamp, rest, ok := strings.Cut(rest, " Host: ")
	if !ok {
		return l, errors.New(`no "Host:"`)
	}
	if err := checkStamp(stamp); err != nil {
		return l, err
	}
	hosts, rest, ok := strings.Cut(rest, " Port: ")
	if !ok {
		return l, errors.New(`no "Port:"`)
	}
	if l.Host, l.Address, err = parseHosts(hosts); err != nil {
		return l, err
	}
	port, tail, _ := strings.Cut(rest, " ")
	if l.Port, err = parsePort(port); err != nil {
		return l, err
	}
	l.Protocol, ok = map[string]string{"TCP Blocked": "tcp", "UDP Blocked": "udp"}[tail]
	if !ok {
		return l, errors.New(`does not end in "TCP Blocked" or "UDP Blocked"`)
	}
	return l, nil
}

// parseEpoch reads seconds since 1970 whose date has four digits for the year in every zone.
func parseEpoch(s string) (time.Time, error) {
	const last = 253370764800 // 9999-01-01
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n >= last || s != strconv.FormatInt(n, 10) {
		return time.Time{}, errors.New("does not begin with the seconds since 1970")
	}
	return time.Unix(n, 0), nil
}

func checkStamp(s string) error {
	// time.Parse would accept a fraction of the second.
	if _, err := time.Parse(stampLayout, s); err != nil || len(s) != stampLength {
		return errors.New("the date is not month/day/year hours:minutes:seconds")
	}
	return nil
}

func parseHosts(s string) (string, netip.Addr, error) {
	host, address, _ := strings.Cut(s, "/")
	if host == "" || len(host) > 255 || strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", netip.Addr{}, errors.New("no host name or address")
	}
	a, err := netip.ParseAddr(address)
	if err != nil || a.Zone() != "" || a.String() != address {
		return "", netip.Addr{}, errors.New("no address after the host name")
	}
	return host, a, nil
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || s != strconv.FormatUint(n, 10) {
		return 0, errors.New("the port is not a number from 0 to 65535")
	}
	return uint16(n), nil
}
