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
		"106751d23h47m17s":      errTooLong.Error(),
		"15251w":                errTooLong.Error(),
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

func TestTripwires(t *testing.T) {
	for _, tt := range []struct{ decoy, exclude, want string }{
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
		decoy, err := parsePorts(tt.decoy)
		if err != nil {
			t.Fatal(err)
		}
		exclude, err := parsePorts(tt.exclude)
		if err != nil {
			t.Fatal(err)
		}
		if got := FormatPorts(TCP{Decoy: decoy, Exclude: exclude}.Tripwires()); got != tt.want {
			t.Errorf("%s without %s is %s, want %s", tt.decoy, tt.exclude, got, tt.want)
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
