package conf

import (
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestDuration(t *testing.T) {
	for _, tt := range []struct {
		text string
		want time.Duration
		back string
	}{
		{"0s", 0, "0s"},
		{"1s", time.Second, "1s"},
		{"600s", 10 * time.Minute, "10m"},
		{"1h30m", 90 * time.Minute, "1h30m"},
		{"1d1s", day + time.Second, "1d1s"},
		{"2w", 14 * day, "14d"},
		{"1w1d1h1m1s", 8*day + time.Hour + time.Minute + time.Second, "8d1h1m1s"},
		{"106751d23h47m16s", time.Duration(math.MaxInt64).Truncate(time.Second), "106751d23h47m16s"},
	} {
		got, err := ParseDuration(tt.text)
		if err != nil || got != tt.want {
			t.Errorf("ParseDuration(%q) = %v, %v, want %v", tt.text, got, err, tt.want)
		}
		if back := FormatDuration(got); back != tt.back {
			t.Errorf("FormatDuration(%v) = %q, want %q", got, back, tt.back)
		}
	}
}

func TestDurationErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                      errNoDuration.Error(),
		"s":                     errNoDuration.Error(),
		"-1s":                   errNoDuration.Error(),
		"1.5h":                  errNoDuration.Error(),
		"1h 30m":                errNoDuration.Error(),
		"10 m":                  errNoDuration.Error(),
		"forever":               errNoDuration.Error(),
		"١s":                    errNoDuration.Error(),
		"600":                   `a duration needs a unit, such as "600s"`,
		"1h30":                  `a duration needs a unit, such as "30s"`,
		"99999999999999999999":  `a duration needs a unit, such as "10m"`,
		"100ms":                 `no unit "ms": the units are w, d, h, m and s`,
		"1y":                    `no unit "y": the units are w, d, h, m and s`,
		"1H":                    `no unit "H": the units are w, d, h, m and s`,
		"1m1h":                  errUnitOrder.Error(),
		"1m1m":                  errUnitOrder.Error(),
		"106751d23h47m17s":      ErrTooLong.Error(),
		"15251w":                ErrTooLong.Error(),
		"99999999999999999999s": `too long: at most "106751d23h47m16s"`,
	} {
		got, err := ParseDuration(text)
		if err == nil || err.Error() != want || got != 0 {
			t.Errorf("ParseDuration(%q) = %v, %v, want %s", text, got, err, want)
		}
	}
}

func TestFormatDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		math.MinInt64: "0s", -time.Hour: "0s", 0: "0s", 1: "0s", time.Second - 1: "0s", 2*time.Second - 1: "1s",
		59*time.Minute + 59*time.Second: "59m59s", math.MaxInt64: "106751d23h47m16s",
	} {
		if got := FormatDuration(d); got != want {
			t.Errorf("FormatDuration(%d) = %q, want %q", d, got, want)
		}
	}
}

func TestPorts(t *testing.T) {
	for _, tt := range []struct {
		text string
		want []PortRange
		back string
	}{
		{"", nil, ""},
		{" \n", nil, ""},
		{"23", []PortRange{{23, 23}}, "23"},
		{"4000-4999, 23", []PortRange{{23, 23}, {4000, 4999}}, "23,4000-4999"},
		{"5 - 20,1-10,21,23,6", []PortRange{{1, 21}, {23, 23}}, "1-21,23"},
		{"5-5,007", []PortRange{{5, 5}, {7, 7}}, "5,7"},
		{"65535,1-65535", []PortRange{{1, 65535}}, "1-65535"},
	} {
		got, err := parsePorts(tt.text)
		if diff := cmp.Diff(tt.want, got); diff != "" || err != nil {
			t.Errorf("parsePorts(%q): %v (-want +got):\n%s", tt.text, err, diff)
		}
		if back := FormatPorts(got); back != tt.back {
			t.Errorf("FormatPorts(%v) = %q, want %q", got, back, tt.back)
		}
	}
	for _, text := range []string{"0", "65536", "-1", "1-", "-", ",", "1,,2", "1,", "ssh", "2-1", "1-2-3", "+1", "0x10", "1_0", "0-5"} {
		if got, err := parsePorts(text); err == nil {
			t.Errorf("parsePorts(%q) = %v, want an error", text, got)
		}
	}
}

// TestTripwires takes the excluded ports from each list of tripwires.
func TestTripwires(t *testing.T) {
	for _, tt := range []struct{ ports, exclude, want string }{
		{"1-10", "", "1-10"},
		{"", "1-10", ""},
		{"1-10", "5", "1-4,6-10"},
		{"1-10", "1,10", "2-9"},
		{"1-10", "2-3,5-6,9-20", "1,4,7-8"},
		{"1-10,20-30", "8-22", "1-7,23-30"},
		{"1-65535", "1-65535", ""},
		{"1-65535", "65535", "1-65534"},
		{"5", "1-3,7", "5"},
	} {
		ports, exclude := parsed(t, tt.ports), parsed(t, tt.exclude)
		for name, got := range map[string][]PortRange{
			"decoys":      TCP{Decoy: ports, Exclude: exclude}.Decoys(),
			"watched TCP": TCP{Watch: ports, Exclude: exclude}.Watched(),
			"watched UDP": UDP{Watch: ports, Exclude: exclude}.Watched(),
		} {
			if FormatPorts(got) != tt.want {
				t.Errorf("%s: %s without %s is %s, want %s", name, tt.ports, tt.exclude, FormatPorts(got), tt.want)
			}
		}
	}
}

func parsed(t *testing.T, ports string) []PortRange {
	t.Helper()
	out, err := parsePorts(ports)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestRate(t *testing.T) {
	for _, tt := range []struct {
		text string
		want Rate
		back string
	}{
		{"1/s", Rate{1, time.Second}, "1/s"},
		{"120/m", Rate{120, time.Minute}, "120/m"},
		{"007/h", Rate{7, time.Hour}, "7/h"},
		{"100000/d", Rate{100000, day}, "100000/d"},
	} {
		got, err := parseRate(tt.text)
		if err != nil || got != tt.want {
			t.Errorf("parseRate(%q) = %v, %v, want %v", tt.text, got, err, tt.want)
		}
		if back := got.String(); back != tt.back {
			t.Errorf("%#v is written %q, want %q", got, back, tt.back)
		}
	}
	if got, want := (Rate{5, 15 * time.Second}).String(), "5/15s"; got != want {
		t.Errorf("a rate that no file has is written %q, want %q", got, want)
	}
}

func TestRateErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                       errNoRate.Error(),
		"/":                      errNoRate.Error(),
		"/m":                     errNoRate.Error(),
		"m":                      errNoRate.Error(),
		"120m":                   errNoRate.Error(),
		"-1/m":                   errNoRate.Error(),
		"+1/m":                   errNoRate.Error(),
		"1.5/m":                  errNoRate.Error(),
		"1 0/m":                  errNoRate.Error(),
		"0x10/m":                 errNoRate.Error(),
		"١/m":                    errNoRate.Error(),
		"unlimited":              errNoRate.Error(),
		"120":                    `a rate needs a unit, such as "120/m"`,
		"50/":                    `a rate needs a unit, such as "50/m"`,
		"50 / ":                  `a rate needs a unit, such as "50/m"`,
		"100001":                 `a rate needs a unit, such as "120/m"`,
		"99999999999999999999":   `a rate needs a unit, such as "120/m"`,
		"120/min":                `no unit "min": the units are d, h, m and s`,
		"120/M":                  `no unit "M": the units are d, h, m and s`,
		"120/w":                  `no unit "w": the units are d, h, m and s`,
		"120/5m":                 `no unit "5m": the units are d, h, m and s`,
		"120/m/s":                `no unit "m/s": the units are d, h, m and s`,
		"0":                      errZeroRate.Error(),
		"0/m":                    errZeroRate.Error(),
		"000/x":                  errZeroRate.Error(),
		"100001/s":               `too many: at most "100000/s"`,
		"100001 / h":             `too many: at most "100000/h"`,
		"99999999999999999999/m": `too many: at most "100000/m"`,
		" 120/m":                 `a rate has no blanks: write "120/m"`,
		"120 / m":                `a rate has no blanks: write "120/m"`,
		"120/m\n":                `a rate has no blanks: write "120/m"`,
	} {
		got, err := parseRate(text)
		if err == nil || err.Error() != want || got != (Rate{}) {
			t.Errorf("parseRate(%q) = %v, %v, want %s", text, got, err, want)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"abc", "abc", 0}, {"blokc", "block", 1}, {"tiemout", "timeout", 1},
		{"decoys", "decoy", 1}, {"udp", "tcp", 2}, {"kitten", "sitting", 3},
	} {
		if got := distance(tt.a, tt.b); got != tt.want {
			t.Errorf("distance(%q, %q) = %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}

func TestShown(t *testing.T) {
	long := "\"" + string(make([]byte, 100)) + "\""
	for raw, want := range map[string]string{
		"600":            "600",
		"[\r\n  1,\n]":   "[...",
		"\"a\tb\u202e\"": `"a\u0009b\u202E"`,
		long:             `"\u0000\u0000\u0000\u0000\u0000\u0000\u0000\u0000\u0000\u0000...`,
		"\"ääääääääääääääääääääääääääääääääääääää\"": `"` + "ääääääääääääääääääääääääääääää" + "...",
	} {
		if got := shown(raw); got != want || len(got) > maxShown {
			t.Errorf("shown(%q) = %q, want %q", raw, got, want)
		}
	}
}
