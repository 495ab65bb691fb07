package portsentry

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// An Entry is what a blocked file or a history says of one block.
type Entry struct {
	Time     time.Time  // when, to the second; zero where the file does not say
	Host     string     // the name of the source as it was resolved, or its address; "" where the file does not say
	Address  netip.Addr // the source, without a zone, IPv4 as IPv4
	Port     uint16     // the destination port; 0 where the file does not say
	Protocol string     // "tcp" or "udp"; "" where the file does not say
}

// entryLine is what Portsentry 1.2 writes with
//
//	"%ld - %02d/%02d/%04d %02d:%02d:%02d Host: %s/%s Port: %d %s Blocked\n"
//
// Until 1.0 the year had two digits. The date is local time, in a zone that the file does not name.
//
// It takes a quarter of a megabyte, and most runs of the program read no such line.
var entryLine = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^(\d{1,12}) - \d\d/\d\d/\d\d(?:\d\d)? \d\d:\d\d:\d\d Host: ([!-.0-~]{1,255})/([0-9a-fA-F.:]+) Port: (\d{1,5}) (TCP|UDP) Blocked$`)
})

// lastSecond is 9999-01-01: the year has four digits in every zone before it.
const lastSecond = 253370764800

var errNotEntry = errors.New(`not a line of Portsentry 1.2, such as "1403884279 - 06/27/2014 17:51:19 Host: 192.0.2.7/192.0.2.7 Port: 1 TCP Blocked"`)

// ParseEntry reads a line of a blocked file or a history of 1.2, without its newline. The seconds since 1970 tell the
// time.
func ParseEntry(line string) (Entry, error) {
	m := entryLine().FindStringSubmatch(line)
	if m == nil {
		return Entry{}, errNotEntry
	}
	seconds, err := strconv.ParseInt(m[1], 10, 64)
	address, aerr := netip.ParseAddr(m[3])
	port, perr := strconv.ParseUint(m[4], 10, 16)
	if errors.Join(err, aerr, perr) != nil || seconds >= lastSecond {
		return Entry{}, errNotEntry
	}
	return Entry{time.Unix(seconds, 0), m[2], address.Unmap(), uint16(port), strings.ToLower(m[5])}, nil
}

// A Scan is a line of a history of 2.x: a packet to a watched port, whatever came of it.
type Scan struct {
	Entry
	Kind    string // the scan, such as "TCP SYN/Normal scan"
	Blocked bool   // the source was blocked for it
}

// scanLine is what Portsentry 2.x writes: strftime's %Y-%m-%dT%H:%M:%S, milliseconds and %z, and then
//
//	" Scan from: [%s] (%s) protocol: [%s] port: [%d] type: [%s] IP opts: [%s] ignored: [%s] triggered: [%s] noblock: [%s] blocked: [%s]"
var scanLine = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d{4}) Scan from: \[([0-9a-fA-F.:]+)\] \(([!-.0-~]{0,255})\) ` +
		`protocol: \[(TCP|UDP)\] port: \[(\d{1,5})\] type: \[([ -\\^-~]*)\] IP opts: \[[a-z ]+\] ` +
		`ignored: \[[a-z]+\] triggered: \[[a-z]+\] noblock: \[[a-z]+\] blocked: \[(true|false|unset)\]$`)
})

var errNotScan = errors.New(`not a line of Portsentry 2.x, such as "2026-11-22T12:29:58.123+0100 Scan from: [192.0.2.7] (192.0.2.7) protocol: [TCP] port: [1] ..."`)

// ParseScan reads a line of a history of 2.x, without its newline.
func ParseScan(line string) (Scan, error) {
	m := scanLine().FindStringSubmatch(line)
	if m == nil {
		return Scan{}, errNotScan
	}
	when, err := time.Parse("2006-01-02T15:04:05.000-0700", m[1])
	address, aerr := netip.ParseAddr(m[2])
	port, perr := strconv.ParseUint(m[5], 10, 16)
	if errors.Join(err, aerr, perr) != nil || when.Unix() < 0 || when.Unix() >= lastSecond {
		return Scan{}, errNotScan
	}
	host := m[3]
	if host == "" {
		host = address.Unmap().String()
	}
	e := Entry{time.Unix(when.Unix(), 0), host, address.Unmap(), uint16(port), strings.ToLower(m[4])}
	return Scan{e, m[6], m[7] == "true"}, nil
}

// Key is the same for two lines that tell of one block, whether the name was resolved or not.
func (e Entry) Key() string {
	return fmt.Sprintf("%d %s %d %s", e.Time.Unix(), e.Address, e.Port, e.Protocol)
}
