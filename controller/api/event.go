package api

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// An Event is one thing that has happened, a line of JSON on the wire. Fields
// that say nothing are left out.
type Event struct {
	Time     time.Time `json:"time"`               // RFC 3339, UTC, microseconds
	Event    string    `json:"event"`              // one of EventNames
	Source   string    `json:"source,omitempty"`   // the address that was seen, or else what is blocked
	Port     uint16    `json:"port,omitempty"`     // that was touched
	Protocol string    `json:"protocol,omitempty"` // "tcp" or "udp"
	Kind     string    `json:"kind,omitempty"`     // one of KindNames
	Evidence string    `json:"evidence,omitempty"` // "proven" or "unproven"
	Block    *Block    `json:"block,omitempty"`    // that was, would be or is in force
	Reason   string    `json:"reason,omitempty"`   // why, for a person
	Seconds  float64   `json:"seconds,omitempty"`  // from the probe to the block in the kernel
	Lost     uint64    `json:"lost,omitempty"`     // of "lost": how many events this reader was too slow for
}

// Events that come from the feed itself.
const (
	stopName = "stop" // the last one, of a daemon that ends
	lostName = "lost" // of a reader that was too slow for others
)

// EventNames are what an event may be.
var EventNames = []string{
	"probe", "exempted", "ignored", "repeated", "sentence", "block", "extend", "unblock", "would-block", "run", "doubt", "trust",
	"heal", "reload", "panic", "resume", stopName, lostName,
}

// KindNames are the kinds of probes.
var KindNames = []string{"connect", "syn", "fin", "null", "xmas", "syn-fin", "udp"}

// An EventFilter says which events are wanted: those that have one of each list
// that is not empty. What a reader was too slow for it is told in any case.
type EventFilter struct {
	Events  []string       // of EventNames
	Kinds   []string       // of KindNames
	Sources []netip.Prefix // that the source lies in
	Ports   []uint16
}

// The parameters of a filter on the wire.
const (
	eventParam  = "event"
	kindParam   = "kind"
	sourceParam = "source"
	portParam   = "port"
)

func (f EventFilter) query() url.Values {
	q := url.Values{eventParam: f.Events, kindParam: f.Kinds}
	for _, p := range f.Sources {
		q.Add(sourceParam, Display(p))
	}
	for _, port := range f.Ports {
		q.Add(portParam, strconv.Itoa(int(port)))
	}
	return q
}

// ParseEventFilter reads lists of words: what it does not know is an error that
// names what there is.
func ParseEventFilter(events, kinds, sources, ports []string) (f EventFilter, err error) {
	if f.Events, err = known(eventParam, events, EventNames); err != nil {
		return EventFilter{}, err
	}
	if f.Kinds, err = known(kindParam, kinds, KindNames); err != nil {
		return EventFilter{}, err
	}
	for _, s := range sources {
		p, err := ParseSource(s)
		if err != nil {
			return EventFilter{}, fmt.Errorf("%s: %w", sourceParam, err)
		}
		f.Sources = append(f.Sources, p)
	}
	for _, s := range ports {
		port, err := strconv.ParseUint(s, 10, 16)
		if err != nil || port == 0 {
			return EventFilter{}, fmt.Errorf("port %.64q: must be from 1 to 65535", s)
		}
		f.Ports = append(f.Ports, uint16(port))
	}
	return f, nil
}

func known(what string, words, all []string) ([]string, error) {
	for _, w := range words {
		if !slices.Contains(all, w) {
			return nil, fmt.Errorf("%s %.64q: must be one of %s", what, w, strings.Join(all, ", "))
		}
	}
	return words, nil
}

// wants tells whether an event passes.
func (f EventFilter) wants(e Event) bool {
	return e.Event == lostName ||
		wanted(f.Events, e.Event) && wanted(f.Kinds, e.Kind) && wanted(f.Ports, e.Port) && f.wantsSource(e.Source)
}

func wanted[T comparable](list []T, one T) bool { return len(list) == 0 || slices.Contains(list, one) }

func (f EventFilter) wantsSource(source string) bool {
	if len(f.Sources) == 0 {
		return true
	}
	p, err := ParseSource(source)
	return err == nil && slices.ContainsFunc(f.Sources, func(want netip.Prefix) bool { return want.Overlaps(p) })
}
