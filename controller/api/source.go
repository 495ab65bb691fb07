package api

import (
	"context"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// An Explanation is all that is known of one source. Times are RFC 3339, UTC,
// whole seconds but for those of probes, which have microseconds; null stands
// for what there is not.
type Explanation struct {
	Address string    `json:"address"`
	Source  string    `json:"source"`  // what is counted and blocked for it: itself, or its IPv6 prefix
	Time    time.Time `json:"time"`    // as of when
	Mode    string    `json:"mode"`    // as in Status
	Blocked bool      `json:"blocked"` // the kernel drops what it sends
	Why     string    `json:"why"`     // why it is not blocked, or by what it is, in one sentence

	Ignored *Rule      `json:"ignored"`
	Peer    *time.Time `json:"peer"`   // until when it is a peer, unless it has another packet
	Block   *Block     `json:"block"`  // that we have on record, and that it lies in
	Kernel  *Element   `json:"kernel"` // that drops it
	Last    *LastBlock `json:"last"`   // the last block of the source that has ended
	Strikes int        `json:"strikes"`
	Trigger Trigger    `json:"trigger"`
	Probes  Probes     `json:"probes"`
	// Notes say where our record and the kernel differ, and what else a person
	// should know, a sentence each.
	Notes []string `json:"notes"`
}

// A Rule is why a source is never blocked.
type Rule struct {
	Prefix string `json:"prefix"` // that it lies in
	Reason string `json:"reason"` // such as "ignore.sources", "gateway" or a file and its line
}

// An Element is a block as the kernel has it.
type Element struct {
	Set     string     `json:"set"`     // where nft(8) shows it
	First   string     `json:"first"`   // the addresses that it blocks
	Last    string     `json:"last"`    //
	Until   *time.Time `json:"until"`   // null for ever
	Comment string     `json:"comment"` //
	Dropped *Dropped   `json:"dropped"` // since it was last changed; null if the kernel does not count it
}

// A LastBlock is a block that has ended.
type LastBlock struct {
	Block
	Reason    string    `json:"reason"`    // why it ended: "expired", "operator", "room", "ignored"; "" if that is not known any more
	Forgotten time.Time `json:"forgotten"` // until then it is a strike
}

// A Trigger is where a source stands against what makes a block.
type Trigger struct {
	Connects   int       `json:"connects"`    // connections to decoys that count
	OfConnects int       `json:"of_connects"` // as many make a block
	Ports      int       `json:"ports"`       // distinct ports that count; may be more than are named
	OfPorts    int       `json:"of_ports"`    // as many make a block
	Window     int64     `json:"window"`      // how long each counts, in seconds
	Counted    []Counted `json:"counted"`     // what counts
}

// A Counted is a connection or a port that counts.
type Counted struct {
	Port      uint16    `json:"port"`
	Protocol  string    `json:"protocol"`
	Evidence  string    `json:"evidence"`  // "proven" for a connection
	Forgotten time.Time `json:"forgotten"` // when it does not count any more
}

// Probes are what was noticed of a source.
type Probes struct {
	Total uint64     `json:"total"` // since First
	First *time.Time `json:"first"`
	Last  []Probe    `json:"last"` // the oldest first, 16 at most
}

// A Probe is one touch of a tripwire.
type Probe struct {
	Time     time.Time `json:"time"`
	Address  string    `json:"address"`
	Port     uint16    `json:"port"`
	Protocol string    `json:"protocol"` // "tcp", "udp", or "" if it cannot be told
	Kind     string    `json:"kind"`     // one of KindNames, or ""
	Evidence string    `json:"evidence"`
	Outcome  string    `json:"outcome"` // one of OutcomeNames
}

// OutcomeNames are what may come of a probe: those of EventNames that are
// about one, and what the kernel has not counted.
var OutcomeNames = []string{
	"probe", "exempted", "ignored", "repeated", "sentence", "block", "extend", "would-block", "run", "overspent", "crowded",
}

const sourcesPath = "/v1/sources/"

// ParseAddress reads an address. A mapped IPv4 address is the IPv4 address. The
// error is an *AddressError.
func ParseAddress(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if a = a.Unmap(); err == nil && a.Zone() == "" {
		return a, nil
	}
	want := "one address, such as 192.0.2.7"
	if p, bad := ParseSource(s); bad == nil && p.IsSingleIP() {
		want = "the address " + p.Addr().String()
	} else if bad == nil {
		want = "one address in it, such as " + p.Addr().Next().String()
	} else if err == nil {
		want = "one address without a zone, such as " + a.WithZone("").String()
	}
	return netip.Addr{}, &AddressError{s, want}
}

// An AddressError is what ParseAddress cannot read.
type AddressError struct {
	Got  string
	Want string // what to write instead
}

// Error says what to write instead; what was got is quoted and cut.
func (e *AddressError) Error() string {
	return strings.Replace((&SourceError{e.Got, e.Want}).Error(), "is not a source", "is not an address", 1)
}

// explained answers requests for a source.
func explained(r request, daemon Daemon) (any, error) {
	addr, err := ParseAddress(strings.TrimPrefix(r.URL.Path, sourcesPath))
	if err != nil {
		return nil, &RequestError{err}
	}
	x, err := daemon.Explain(r.Context(), addr)
	for i, note := range x.Notes {
		x.Notes[i] = oneLine(note)
	}
	return x, err
}

// pathOf is the route that a path takes: all sources have one.
func pathOf(path string) string {
	if strings.HasPrefix(path, sourcesPath) && len(path) > len(sourcesPath) {
		return sourcesPath
	}
	return path
}

// Explain asks for all that is known of an address.
func (c *Client) Explain(ctx context.Context, addr netip.Addr) (Explanation, error) {
	var x Explanation
	err := c.do(ctx, http.MethodGet, sourcesPath+url.PathEscape(addr.String()), nil, &x)
	return x, err
}
