package conf

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

const day = 24 * time.Hour

// A unit is a letter behind a number.
type unit struct {
	letter string
	length time.Duration
}

// units go from the longest to the shortest. Weeks are read and never written: nft(8) prints days.
var units = []unit{{"w", 7 * day}, {"d", day}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}}

var (
	errNoDuration = errors.New(`not a duration such as "10m" or "1h30m": whole numbers, each with a unit`)
	errUnitOrder  = errors.New(`the longest unit goes first and each only once, such as "1h30m"`)
)

// ErrTooLong is the error of a duration that is more than ParseDuration can say.
var ErrTooLong = fmt.Errorf("too long: at most %q", FormatDuration(math.MaxInt64))

// ParseDuration reads a duration in whole seconds: numbers with the units w, d, h, m and s, the longest first and each at
// most once, such as "10m", "1h30m" or "7d". It may be zero, never negative. The error says what is wrong and what to
// write, without the text itself.
func ParseDuration(s string) (time.Duration, error) {
	if s == "" {
		return 0, errNoDuration
	}
	var sum time.Duration
	last := -1 // unit
	for rest := s; rest != ""; {
		var number, name string
		number, rest = leading(rest, isDigit)
		name, rest = leading(rest, isLetter)
		at, d, err := measure(number, name, rest)
		switch {
		case err != nil:
			return 0, err
		case at <= last:
			return 0, errUnitOrder
		case d > math.MaxInt64-sum:
			return 0, ErrTooLong
		}
		sum, last = sum+d, at
	}
	return sum, nil
}

// measure gives the length of one number with its unit, and the index of the unit. The rest is what follows them.
func measure(number, name, rest string) (at int, d time.Duration, err error) {
	if number == "" || name == "" && rest != "" {
		return 0, 0, errNoDuration
	}
	if name == "" {
		return 0, 0, needsUnit(number)
	}
	at = slices.IndexFunc(units, func(u unit) bool { return u.letter == name })
	if at < 0 {
		return 0, 0, fmt.Errorf("no unit %q: the units are w, d, h, m and s", cut(name))
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n > int64(math.MaxInt64/units[at].length) {
		return 0, 0, ErrTooLong
	}
	return at, time.Duration(n) * units[at].length, nil
}

// needsUnit is the answer to a number alone.
func needsUnit(number string) error {
	example := "10m"
	if n, err := strconv.ParseUint(number, 10, 32); err == nil {
		example = fmt.Sprintf("%ds", n)
	}
	return fmt.Errorf("a duration needs a unit, such as %q", example)
}

// FormatDuration writes a duration as nft(8) does, such as "10m", "1h30m" or "7d": days, hours, minutes and seconds, those
// that are zero left out. It rounds down to whole seconds; what is shorter than one, or negative, is "0s".
func FormatDuration(d time.Duration) string {
	if d < time.Second {
		return "0s"
	}
	var b strings.Builder
	for _, u := range units[1:] {
		if n := d / u.length; n > 0 {
			fmt.Fprintf(&b, "%d%s", n, u.letter)
		}
		d %= u.length
	}
	return b.String()
}

// leading cuts off the characters at the start of a text that are of one kind.
func leading(s string, of func(rune) bool) (start, rest string) {
	rest = strings.TrimLeftFunc(s, of)
	return s[:len(s)-len(rest)], rest
}

func isDigit(r rune) bool  { return '0' <= r && r <= '9' }
func isLetter(r rune) bool { return 'a' <= r|0x20 && r|0x20 <= 'z' }
