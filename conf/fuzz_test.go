package conf

import (
	"errors"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/BurntSushi/toml"
	"github.com/google/go-cmp/cmp"
)

// FuzzParse looks for a text that makes the reader panic, that is misplaced in a message, or that is read another way when
// it is written again.
func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/bad/*.toml", "testdata/good/*.toml", "reference.toml"} {
		for _, file := range glob(f, pattern) {
			f.Add(contents(f, file))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("fuzz.toml", data)
		if err != nil {
			checkErrors(t, data, err)
		} else {
			checkFormats(t, c)
		}
		checkPlaces(t, data)
	})
}

// checkErrors holds messages to one line each, in order, at places that there are.
func checkErrors(t *testing.T, data []byte, err error) {
	var errs Errors
	if !errors.As(err, &errs) || len(errs) == 0 {
		t.Fatalf("%T: %v", err, err)
	}
	text := strings.Split(strings.TrimPrefix(string(data), "\ufeff"), "\n")
	row, column := 1, 1
	for _, e := range errs {
		if e.Line < row || e.Line == row && e.Column < column {
			t.Errorf("after %d:%d: %v", row, column, e)
		}
		row, column = e.Line, e.Column
		if row > len(text) || column > len(text[row-1])+1 {
			t.Errorf("there is no such place: %v", e)
		}
		if len(e.Value) > maxShown || strings.ContainsFunc(e.Error(), func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("not fit to print: %q", e)
		}
	}
}

// checkFormats reads again what is written of a configuration.
func checkFormats(t *testing.T, c Config) {
	for _, want := range [][]PortRange{
		c.TCP.Decoy, c.TCP.Watch, c.TCP.Exclude, c.TCP.Decoys(), c.TCP.Watched(), c.UDP.Watch, c.UDP.Exclude, c.UDP.Watched(),
		c.Ignore.Sessions,
	} {
		got, err := parsePorts(FormatPorts(want))
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("ports: %v (-want +got):\n%s", err, diff)
		}
	}
	for _, want := range append(c.Block.Escalate, c.Block.Timeout, c.Block.Forget, c.Block.Unproven, c.Trigger.Window) {
		if got, err := ParseDuration(FormatDuration(want)); err != nil || got != want {
			t.Errorf("%v is written %q and read %v, %v", want, FormatDuration(want), got, err)
		}
	}
	if got, err := parseRate(c.Trigger.Budget.String()); err != nil || got != c.Trigger.Budget {
		t.Errorf("%v is read %v, %v", c.Trigger.Budget, got, err)
	}
}

// checkPlaces asks package toml which keys there are, and that each has its place and its value in it.
func checkPlaces(t *testing.T, data []byte) {
	d := newDocument("fuzz.toml", data)
	if _, ok := d.decode(); !ok {
		return
	}
	places := make(map[string]bool)
	for path := range d.places {
		places[withoutIndexes(path)] = true
	}
	meta, err := toml.Decode(d.text, new(map[string]any))
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range meta.Keys() {
		if !places[key.String()] {
			t.Errorf("%s has no place in %q", key, d.text)
		}
	}
	for path, p := range d.places {
		if p.value == p.end {
			continue
		}
		if _, err := toml.Decode("v = "+d.text[p.value:p.end], new(map[string]any)); err != nil {
			t.Errorf("%s has the value %q: %v", path, d.text[p.value:p.end], err)
		}
	}
}

// withoutIndexes takes "[0]" out of a path, except where it is part of a quoted name.
func withoutIndexes(path string) string {
	var b strings.Builder
	quoted, index := false, false
	for i := 0; i < len(path); i++ {
		switch c := path[i]; {
		case quoted && c == '\\':
			b.WriteByte(c)
			i++
		case c == '"':
			quoted = !quoted
		case !quoted && (c == '[' || c == ']'):
			index = c == '['
			continue
		}
		if !index {
			b.WriteByte(path[i])
		}
	}
	return b.String()
}

// FuzzPorts compares lists with sets of single ports.
func FuzzPorts(f *testing.F) {
	f.Add("1-10,20", "5-25")
	f.Add("65535", "1-65535")
	f.Add(" 3 , 1 - 2 ", "")
	f.Add("0", "2-1")
	f.Fuzz(func(t *testing.T, a, b string) {
		x, errX := parsePorts(a)
		y, errY := parsePorts(b)
		if errX != nil || errY != nil {
			return
		}
		left := subtract(x, y)
		for port := 1; port <= 65535; port++ {
			p := uint16(port)
			if want := Contains(x, p) && !Contains(y, p); Contains(left, p) != want {
				t.Fatalf("%q without %q: port %d: %v, want %v", a, b, p, !want, want)
			}
		}
		for _, want := range [][]PortRange{x, y, left} {
			got, err := parsePorts(FormatPorts(want))
			if diff := cmp.Diff(want, got); diff != "" || err != nil {
				t.Errorf("%s: %v (-want +got):\n%s", FormatPorts(want), err, diff)
			}
		}
	})
}

func FuzzDuration(f *testing.F) {
	for _, s := range []string{"", "0s", "10m", "1h30m", "1w1d1h1m1s", "106751d23h47m16s", "15250w", "10", "1m1h"} {
		f.Add(s, int64(len(s)))
	}
	f.Fuzz(func(t *testing.T, s string, n int64) {
		if d, err := ParseDuration(s); err == nil {
			if got, err := ParseDuration(FormatDuration(d)); err != nil || got != d || d < 0 {
				t.Errorf("%q is %v, written %q and read %v, %v", s, d, FormatDuration(d), got, err)
			}
		}
		d := time.Duration(n)
		if got, err := ParseDuration(FormatDuration(d)); err != nil || got != max(0, d.Truncate(time.Second)) {
			t.Errorf("%v is written %q and read %v, %v", d, FormatDuration(d), got, err)
		}
	})
}

// FuzzRate reads a text, and a rate that is written.
func FuzzRate(f *testing.F) {
	for i, s := range []string{"", "120/m", "1/s", "100000/d", "007/h", "0/m", "120", "120/", "120/min", "100001/m", "120 / m", "-1/m"} {
		f.Add(s, uint32(i), uint8(i))
	}
	f.Fuzz(func(t *testing.T, s string, count uint32, per uint8) {
		if r, err := parseRate(s); err == nil {
			if got, err := parseRate(r.String()); err != nil || got != r || r.Count < 1 || r.Count > maxCount {
				t.Errorf("%q is %#v, written %q and read %v, %v", s, r, r, got, err)
			}
		}
		r := Rate{int(count%maxCount) + 1, rateUnits[int(per)%len(rateUnits)].length}
		if got, err := parseRate(r.String()); err != nil || got != r {
			t.Errorf("%#v is written %q and read %v, %v", r, r, got, err)
		}
	})
}
