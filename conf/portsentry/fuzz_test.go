package portsentry

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"unicode"

	"nftsentry/state"
)

// checkErrors holds messages to one line each, in the order of their lines, of which there are that many.
func checkErrors(t *testing.T, data []byte, err error) {
	t.Helper()
	var errs Errors
	if !errors.As(err, &errs) || len(errs) == 0 || len(errs) > maxReported {
		t.Fatalf("%T: %v", err, err)
	}
	for _, e := range errs {
		checkPlace(t, data, e.Line, e.Error())
	}
	if !slices.IsSortedFunc(errs, func(a, b *Error) int { return a.Line - b.Line }) {
		t.Errorf("not in order: %v", errs)
	}
}

func checkTraps(t *testing.T, data []byte, traps []Trap) {
	t.Helper()
	if len(traps) > maxReported {
		t.Errorf("%d traps", len(traps))
	}
	for _, trap := range traps {
		checkPlace(t, data, trap.Line, trap.String())
	}
}

func checkPlace(t *testing.T, data []byte, line int, message string) {
	t.Helper()
	if line < 0 || line > bytes.Count(data, []byte("\n"))+1 {
		t.Errorf("there is no such line: %s", message)
	}
	if len(message) > 600 || strings.ContainsFunc(message, func(r rune) bool { return !unicode.IsPrint(r) }) {
		t.Errorf("not fit to print: %q", message)
	}
}

// FuzzConfig looks for a configuration that panics, whose messages are misplaced, or whose values are not what they must
// be.
func FuzzConfig(f *testing.F) {
	f.Add([]byte(full), byte(0))
	f.Fuzz(func(t *testing.T, data []byte, version byte) {
		c, err := ParseConfig("f", data, Version(version%3))
		if err != nil {
			checkErrors(t, data, err)
			return
		}
		checkTraps(t, data, c.Traps)
		for _, ports := range [][]uint16{c.TCPPorts, c.UDPPorts, c.ExcludeTCP, c.ExcludeUDP} {
			if !slices.IsSorted(ports) || len(slices.Compact(slices.Clone(ports))) != len(ports) || slices.Contains(ports, 0) {
				t.Errorf("ports %v", ports)
			}
		}
		if c.Trigger < 0 || c.BlockTCP < 0 || c.BlockTCP > 2 || c.BlockUDP < 0 || c.BlockUDP > 2 || c.FirstTCP > 65536 || c.FirstUDP > 65536 {
			t.Errorf("out of bounds: %+v", c)
		}
		for key, s := range c.Settings {
			if !slices.Contains(keys, key) || strings.ContainsFunc(s.Value, unicode.IsControl) && c.Version == V1 || strings.Contains(s.Value, `"`) {
				t.Errorf("%s: %+v", key, s)
			}
		}
	})
}

// FuzzDefault looks for a file of modes that panics, or that has a mode which there is not.
func FuzzDefault(f *testing.F) {
	f.Add([]byte("TCP_MODE=\"tcp\"\nUDP_MODE=\"udp\"\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := ParseDefault("f", data)
		if err != nil {
			checkErrors(t, data, err)
			return
		}
		if m.TCP.Value != "" && !slices.Contains(ModesTCP, m.TCP.Value) || m.UDP.Value != "" && !slices.Contains(ModesUDP, m.UDP.Value) {
			t.Errorf("modes %+v", m)
		}
	})
}

// FuzzBlocked looks for a blocked file that panics, or that has an entry without a sound address.
func FuzzBlocked(f *testing.F) {
	f.Add(slices.Concat(record("192.0.2.7"), record("2001:db8::5")))
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := ParseBlocked("f", data)
		if err != nil {
			checkErrors(t, data, err)
			return
		}
		if len(entries)*6 > len(data) {
			t.Errorf("%d entries in %d bytes", len(entries), len(data))
		}
		for _, e := range entries {
			if !e.Address.IsValid() || e.Address.Zone() != "" || e.Address.Is4In6() {
				t.Errorf("address %v", e.Address)
			}
		}
	})
}

// FuzzHistory looks for a line that both versions claim, or that does not come out again as the format has it.
func FuzzHistory(f *testing.F) {
	f.Add("1795350598 - 11/22/2026 12:29:58 Host: 10.9.9.1/10.9.9.1 Port: 2222 TCP Blocked")
	f.Fuzz(func(t *testing.T, line string) {
		e, err := ParseEntry(line)
		s, errScan := ParseScan(line)
		switch {
		case err == nil && errScan == nil:
			t.Errorf("of both versions: %q", line)
		case err != nil && errScan != nil:
			return
		case errScan == nil:
			e = s.Entry
		}
		written := state.Line{Time: e.Time, Host: e.Host, Address: e.Address, Port: e.Port, Protocol: e.Protocol}.String()
		again, err := ParseEntry(written)
		if err != nil || again.Key() != e.Key() || again.Host != e.Host {
			t.Errorf("%q is written %q, which is %+v, %v", line, written, again, err)
		}
	})
}

// FuzzIgnore looks for an ignore file that panics, or that gives a prefix which is not masked.
func FuzzIgnore(f *testing.F) {
	f.Add([]byte("127.0.0.1/32\n0.0.0.0\n 192.0.2.0/24 # office\n2001:db8::/32"), byte(1))
	f.Fuzz(func(t *testing.T, data []byte, kind byte) {
		prefixes, traps := ParseIgnore("f", data, IgnoreKind(kind%3)+Ignore1)
		checkTraps(t, data, traps)
		for _, p := range prefixes {
			if !p.IsValid() || p != p.Masked() || p.Addr().Zone() != "" || p.Bits() == 0 {
				t.Errorf("prefix %v", p)
			}
		}
	})
}

// FuzzCommand looks for a command line that is taken for plain words and has something of a shell in it.
func FuzzCommand(f *testing.F) {
	f.Add(`/bin/x 'a b' "c $TARGET$" d\ e | f`)
	f.Fuzz(func(t *testing.T, line string) {
		c := ParseCommand(line)
		if (c.Shell == "") != (len(c.Words) > 0) {
			t.Errorf("%q: %+v", line, c)
		}
		bare := !strings.ContainsAny(line, `'"\`)
		if bare && c.Shell == "" && strings.Join(c.Words, " ") != strings.Join(strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == '\t' }), " ") {
			t.Errorf("%q: words %q", line, c.Words)
		}
		if rest := strings.NewReplacer("$TARGET$", "", "$PORT$", "", "$MODE$", "").Replace(line); bare && c.Shell == "" && strings.ContainsAny(rest, "|&;<>()$`*?[\n") {
			t.Errorf("%q is taken for plain words: %q", line, c.Words)
		}
		if script := ParseScript(line); len(script) != 3 {
			t.Errorf("%q: script %q", line, script)
		}
	})
}
