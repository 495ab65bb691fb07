package conf

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A PortRange is the ports from First to Last, both included, 1 to 65535 and in this order.
type PortRange struct {
	First, Last uint16
}

// String writes "23" for a single port and "12345-12346" for more.
func (r PortRange) String() string {
	if r.First == r.Last {
		return strconv.Itoa(int(r.First))
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

// Contains says whether one of the ranges has the port.
func Contains(ranges []PortRange, port uint16) bool {
	return slices.ContainsFunc(ranges, func(r PortRange) bool { return r.First <= port && port <= r.Last })
}

// FormatPorts writes ranges as the configuration has them, such as "1,11,12345-12346"; "" if there are none.
func FormatPorts(ranges []PortRange) string {
	items := make([]string, len(ranges))
	for i, r := range ranges {
		items[i] = r.String()
	}
	return strings.Join(items, ",")
}

// parsePorts reads what FormatPorts writes, and white space around the numbers. The ranges come out sorted and merged. The
// error is the errors of all wrong items, joined.
func parsePorts(s string) ([]PortRange, error) {
	if strings.TrimSpace(s) == "" {
		return nil, nil
	}
	var out []PortRange
	var errs []error
	for i, item := range strings.Split(s, ",") {
		r, err := parseRange(i, strings.TrimSpace(item))
		out, errs = append(out, r), append(errs, err)
	}
	return merge(out), errors.Join(errs...)
}

func parseRange(i int, item string) (PortRange, error) {
	if item == "" {
		return PortRange{}, fmt.Errorf("item %d is empty: there is a comma too many", i+1)
	}
	from, to, isRange := strings.Cut(item, "-")
	first, err := parsePort(from, item)
	if err != nil || !isRange {
		return PortRange{first, first}, err
	}
	last, err := parsePort(to, item)
	if err == nil && last < first {
		err = fmt.Errorf("the range %s is reversed: write %s", item, PortRange{last, first})
	}
	return PortRange{first, last}, err
}

// parsePort reads a port of an item.
func parsePort(s, item string) (uint16, error) {
	n, err := strconv.ParseUint(strings.TrimSpace(s), 10, 16)
	switch {
	case errors.Is(err, strconv.ErrRange), err == nil && n == 0:
		return 0, fmt.Errorf("%s is no port: ports are from 1 to 65535", cut(strings.TrimSpace(s)))
	case err != nil:
		return 0, fmt.Errorf(`%q is neither a port such as "23" nor a range such as "12345-12346"`, cut(item))
	}
	return uint16(n), nil
}

// merge sorts ranges, in place, and joins those that overlap or touch.
func merge(ranges []PortRange) []PortRange {
	slices.SortFunc(ranges, func(a, b PortRange) int { return cmp.Compare(a.First, b.First) })
	out := ranges[:0]
	for _, r := range ranges {
		if n := len(out); n > 0 && int(r.First) <= int(out[n-1].Last)+1 {
			out[n-1].Last = max(out[n-1].Last, r.Last)
			continue
		}
		out = append(out, r)
	}
	return out
}

// subtract gives the ports of some ranges that others do not have. Both are sorted and disjoint, and so is what is left.
func subtract(ranges, others []PortRange) []PortRange {
	var out []PortRange
	for _, r := range ranges {
		first, last := int(r.First), int(r.Last) // one beyond 65535 is no uint16
		for _, o := range others {
			if int(o.Last) < first || int(o.First) > last {
				continue
			}
			if first < int(o.First) {
				out = append(out, PortRange{uint16(first), o.First - 1})
			}
			first = int(o.Last) + 1
		}
		if first <= last {
			out = append(out, PortRange{uint16(first), r.Last})
		}
	}
	return out
}
