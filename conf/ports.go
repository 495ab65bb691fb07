package conf

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A PortRange is an inclusive range of ports, 1 to 65535, First <= Last.
type PortRange struct {
	First, Last uint16
}

// ParsePorts reads a list such as "23,4000-4999". The order is free, and
// ranges may overlap; the result is sorted and disjoint. An empty string is
// no ports.
func ParsePorts(s string) ([]PortRange, error) {
	if strings.TrimSpace(s) == "" {
		return nil, nil
	}
	var out []PortRange
	for item := range strings.SplitSeq(s, ",") {
		r, err := parseRange(strings.TrimSpace(item))
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return merge(out), nil
}

func parseRange(item string) (PortRange, error) {
	if item == "" {
		return PortRange{}, fmt.Errorf("nothing stands before or after a comma: write ports and ranges, such as \"23,4000-4999\"")
	}
	first, last, isRange := strings.Cut(item, "-")
	a, err := parsePort(first)
	if err != nil || !isRange {
		return PortRange{a, a}, err
	}
	b, err := parsePort(last)
	if err != nil {
		return PortRange{}, err
	}
	if b < a {
		return PortRange{}, fmt.Errorf("the range %d-%d is reversed: write %d-%d", a, b, b, a)
	}
	return PortRange{a, b}, nil
}

func parsePort(s string) (uint16, error) {
	s = strings.TrimSpace(s)
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%s is not a port: allowed are 1 to 65535 and ranges such as 4000-4999", show(s))
	}
	return uint16(n), nil
}

// mustPorts is for the lists in this package.
func mustPorts(s string) []PortRange {
	out, err := ParsePorts(s)
	if err != nil {
		panic(err)
	}
	return out
}

// merge sorts ranges and joins those that overlap or touch.
func merge(ranges []PortRange) []PortRange {
	slices.SortFunc(ranges, func(a, b PortRange) int { return cmp.Or(cmp.Compare(a.First, b.First), cmp.Compare(a.Last, b.Last)) })
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

// subtract is the ports of a sorted, disjoint list that are not in another.
func subtract(from, what []PortRange) []PortRange {
	var out []PortRange
	for _, r := range from {
		first := int(r.First)
		for _, w := range what {
			if int(w.Last) < first || w.First > r.Last {
				continue
			}
			if first < int(w.First) {
				out = append(out, PortRange{uint16(first), w.First - 1})
			}
			first = int(w.Last) + 1
		}
		if first <= int(r.Last) {
			out = append(out, PortRange{uint16(first), r.Last})
		}
	}
	return out
}

// Contains tells whether a port is in a list.
func Contains(ranges []PortRange, port uint16) bool {
	return slices.ContainsFunc(ranges, func(r PortRange) bool { return r.First <= port && port <= r.Last })
}

// FormatPorts writes a list as ParsePorts reads it.
func FormatPorts(ranges []PortRange) string {
	items := make([]string, len(ranges))
	for i, r := range ranges {
		items[i] = strconv.Itoa(int(r.First))
		if r.Last > r.First {
			items[i] += "-" + strconv.Itoa(int(r.Last))
		}
	}
	return strings.Join(items, ",")
}
