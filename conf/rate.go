package conf

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// maxCount is the largest Count of a Rate.
const maxCount = 100000

// A Rate is how many of something there may be in a unit of time.
type Rate struct {
	// Count is 1 to 100000.
	Count int
	// Per is a second, a minute, an hour or a day of 24 hours.
	Per time.Duration
}

// rateUnits go from the longest to the shortest.
var rateUnits = units[1:]

var (
	errNoRate   = errors.New(`not a rate such as "120/m": a whole number, a slash and a unit`)
	errZeroRate = errors.New(`must be 1 or more: to have hardly any blocks for touched ports, set a high trigger.ports`)
)

// String writes a rate as the configuration has it, such as "120/m".
func (r Rate) String() string {
	per := FormatDuration(r.Per)
	if i := slices.IndexFunc(rateUnits, func(u unit) bool { return u.length == r.Per }); i >= 0 {
		per = rateUnits[i].letter
	}
	return fmt.Sprintf("%d/%s", r.Count, per)
}

// parseRate reads what String writes. The error says what is wrong and what to write, without the text itself.
func parseRate(s string) (Rate, error) {
	number, name, _ := strings.Cut(s, "/")
	count, err := parseCount(strings.TrimSpace(number))
	if err != nil {
		return Rate{}, err
	}
	u, err := parsePer(strings.TrimSpace(name), count)
	if err != nil {
		return Rate{}, err
	}
	if count > maxCount {
		return Rate{}, fmt.Errorf("too many: at most %q", Rate{maxCount, u.length})
	}
	r := Rate{int(count), u.length}
	if strings.ContainsFunc(s, unicode.IsSpace) {
		return Rate{}, fmt.Errorf("a rate has no blanks: write %q", r)
	}
	return r, nil
}

// parseCount reads the number of a rate. One that is too large for an uint64 is the largest of them.
func parseCount(s string) (uint64, error) {
	if digits, rest := leading(s, isDigit); digits == "" || rest != "" {
		return 0, errNoRate
	}
	n, _ := strconv.ParseUint(s, 10, 64) // of digits; out of range gives the largest
	if n == 0 {
		return 0, errZeroRate
	}
	return n, nil
}

// parsePer reads the unit of a rate.
func parsePer(name string, count uint64) (unit, error) {
	if name == "" {
		return unit{}, needsPer(count)
	}
	i := slices.IndexFunc(rateUnits, func(u unit) bool { return u.letter == name })
	if i < 0 {
		return unit{}, fmt.Errorf("no unit %q: the units are d, h, m and s", cut(name))
	}
	return rateUnits[i], nil
}

// needsPer is the answer to a number alone.
func needsPer(count uint64) error {
	example := Rate{120, time.Minute}
	if count <= maxCount {
		example.Count = int(count)
	}
	return fmt.Errorf("a rate needs a unit, such as %q", example)
}
