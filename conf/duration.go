package conf

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// units are those of durations, the longest first, as nft(8) writes them.
var units = []struct {
	name   byte
	length time.Duration
}{{'w', 7 * 24 * time.Hour}, {'d', 24 * time.Hour}, {'h', time.Hour}, {'m', time.Minute}, {'s', time.Second}}

// maxDuration is ten years; nothing here lasts longer.
const maxDuration = 3650 * 24 * time.Hour

var errDuration = errors.New(`a duration is whole numbers with the units w, d, h, m or s, such as "10m" or "1h30m"`)

// ParseDuration reads a duration such as "10m", "1h30m" or "7d". Each unit
// may stand once, the longer before the shorter. At most 3,650 days.
func ParseDuration(s string) (time.Duration, error) {
	if s == "" {
		return 0, errDuration
	}
	total, rest, next := time.Duration(0), s, 0
	for rest != "" {
		n, digits := leadingNumber(rest)
		if digits == 0 {
			return 0, errDuration
		}
		if digits == len(rest) {
			return 0, fmt.Errorf("a duration needs a unit, such as \"%ss\"", s)
		}
		unit := next
		for unit < len(units) && units[unit].name != rest[digits] {
			unit++
		}
		if unit == len(units) {
			return 0, errDuration
		}
		if n > int64(maxDuration/units[unit].length) {
			return 0, fmt.Errorf("a duration is at most %s", FormatDuration(maxDuration))
		}
		total += time.Duration(n) * units[unit].length
		rest, next = rest[digits+1:], unit+1
	}
	if total > maxDuration {
		return 0, fmt.Errorf("a duration is at most %s", FormatDuration(maxDuration))
	}
	return total, nil
}

// leadingNumber reads the number that s begins with; it stops growing where
// no unit could make it valid.
func leadingNumber(s string) (n int64, digits int) {
	for digits < len(s) && '0' <= s[digits] && s[digits] <= '9' {
		if n <= int64(maxDuration/time.Second) {
			n = 10*n + int64(s[digits]-'0')
		}
		digits++
	}
	return n, digits
}

// FormatDuration writes a duration, rounded down to whole seconds, as
// ParseDuration reads it and nft(8) shows it: "10m", "1h30m", "7d". What is
// not positive is "0s".
func FormatDuration(d time.Duration) string {
	var b strings.Builder
	for _, u := range units[1:] { // nft(8) has no weeks
		if n := d / u.length; n > 0 {
			fmt.Fprintf(&b, "%d%c", n, u.name)
			d -= n * u.length
		}
	}
	if b.Len() == 0 {
		return "0s"
	}
	return b.String()
}
