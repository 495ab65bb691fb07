package conf

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestDuration(t *testing.T) {
	const day = 24 * time.Hour
	for _, tt := range []struct {
		text string
		want time.Duration
		back string
	}{
		{"0s", 0, "0s"}, {"1s", time.Second, "1s"}, {"90s", 90 * time.Second, "1m30s"}, {"10m", 10 * time.Minute, "10m"},
		{"1h30m", 90 * time.Minute, "1h30m"}, {"7d", 7 * day, "7d"}, {"1w", 7 * day, "7d"}, {"1w1d1h1m1s", 8*day + time.Hour + time.Minute + time.Second, "8d1h1m1s"},
		{"3650d", 3650 * day, "3650d"},
	} {
		got, err := ParseDuration(tt.text)
		if err != nil || got != tt.want {
			t.Errorf("ParseDuration(%q) = %v, %v, want %v", tt.text, got, err, tt.want)
		}
		if back := FormatDuration(got); back != tt.back {
			t.Errorf("FormatDuration(%v) = %q, want %q", got, back, tt.back)
		}
	}
	for _, text := range []string{"", "10", "s", "-1s", "1.5h", "1ms", "1m1h", "1m1m", "10 m", "1s ", "3651d", "99999999999999999999d", "521w3d1s9", "١s"} {
		if got, err := ParseDuration(text); err == nil {
			t.Errorf("ParseDuration(%q) = %v, want an error", text, got)
		}
	}
	if got := FormatDuration(1999 * time.Millisecond); got != "1s" {
		t.Errorf("FormatDuration(1.999s) = %q, want 1s", got)
	}
	if got := FormatDuration(-time.Hour); got != "0s" {
		t.Errorf("FormatDuration(-1h) = %q, want 0s", got)
	}
}

func FuzzDuration(f *testing.F) {
	for _, s := range []string{"", "10m", "1h30m", "1w1d", "3650d", "10", "1m1h"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseDuration(s)
		if err != nil {
			return
		}
		if again, err := ParseDuration(FormatDuration(d)); again != d || err != nil || d < 0 || d > maxDuration {
			t.Errorf("%q is %v, written and read %v, %v", s, d, again, err)
		}
	})
}

func TestPorts(t *testing.T) {
	for _, tt := range []struct {
		text string
		want []PortRange
		back string
	}{
		{"", nil, ""}, {" ", nil, ""}, {"23", []PortRange{{23, 23}}, "23"},
		{"4000-4999, 23", []PortRange{{23, 23}, {4000, 4999}}, "23,4000-4999"},
		{"1-10,5-20,21,23", []PortRange{{1, 21}, {23, 23}}, "1-21,23"},
		{"5-5", []PortRange{{5, 5}}, "5"}, {"65535,1-65535", []PortRange{{1, 65535}}, "1-65535"},
	} {
		got, err := ParsePorts(tt.text)
		if diff := cmp.Diff(tt.want, got); diff != "" || err != nil {
			t.Errorf("ParsePorts(%q) (-want +got):\n%s%v", tt.text, diff, err)
		}
		if back := FormatPorts(got); back != tt.back {
			t.Errorf("FormatPorts(%v) = %q, want %q", got, back, tt.back)
		}
	}
	for _, text := range []string{"0", "65536", "-1", "1-", "-", ",", "1,,2", "1,", "ssh", "2-1", "1-2-3", "+1", "0x10"} {
		if got, err := ParsePorts(text); err == nil {
			t.Errorf("ParsePorts(%q) = %v, want an error", text, got)
		}
	}
}

func TestTripwires(t *testing.T) {
	for _, tt := range []struct{ decoy, exclude, want string }{
		{"1-10", "", "1-10"}, {"1-10", "5", "1-4,6-10"}, {"1-10", "1,10", "2-9"}, {"1-10,20-30", "8-22", "1-7,23-30"},
		{"1-65535", "1-65535", ""}, {"1-65535", "65535", "1-65534"}, {"5", "1-3,7", "5"}, {"1-3", "2-2,3", "1"},
	} {
		c := TCP{Decoy: mustPorts(tt.decoy), Exclude: mustPorts(tt.exclude)}
		if got := FormatPorts(c.Tripwires()); got != tt.want {
			t.Errorf("%s without %s is %s, want %s", tt.decoy, tt.exclude, got, tt.want)
		}
	}
}

// FuzzPorts compares the arithmetic of ranges with that of single ports.
func FuzzPorts(f *testing.F) {
	f.Add("1-10,20", "5-25")
	f.Add("65535", "1-65535")
	f.Add("", "")
	f.Add("0", "2-1")
	f.Fuzz(func(t *testing.T, a, b string) {
		x, errX := ParsePorts(a)
		y, errY := ParsePorts(b)
		if errX != nil || errY != nil {
			return
		}
		diff := subtract(x, y)
		for port := 1; port <= 65535; port++ {
			p := uint16(port)
			if want := Contains(x, p) && !Contains(y, p); Contains(diff, p) != want {
				t.Fatalf("%q without %q: port %d: %v, want %v", a, b, p, !want, want)
			}
		}
		if again, err := ParsePorts(FormatPorts(x)); err != nil || !cmp.Equal(x, again) {
			t.Errorf("%q written and read: %v, want %v, %v", a, again, x, err)
		}
	})
}
