package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// maxEdges bounds the parts of a report.
const maxEdges = 120

// A ReportRequest says which time a report is about.
type ReportRequest struct {
	// Edges are where the parts of the period begin, ascending, and at last its end: from 2 to 120, in whole seconds.
	Edges []time.Time
	// From and To are the period that it is compared with.
	From, To time.Time
}

// A Report is what was counted in a period. Hours are counted whole, and
// belong to the part in which they begin; after five weeks whole days of UTC.
type Report struct {
	Generated time.Time `json:"generated"` // RFC 3339, UTC, whole seconds, as all times here
	Host      string    `json:"host"`      // name of this host
	Mode      string    `json:"mode"`      // as of Status; "" if the daemon does not run
	Live      int       `json:"live"`      // blocks in force now; 0 if the daemon does not run
	Since     time.Time `json:"since"`     // when the counting began
	From      time.Time `json:"from"`
	To        time.Time `json:"to"`

	Totals ReportCounts `json:"totals"`
	Before ReportPart   `json:"before"` // the period that it is compared with
	Parts  []ReportPart `json:"parts"`  // of the period, the oldest first

	Kinds   []ReportKind   `json:"kinds"`   // scan kinds, those that did not come included
	Origins []ReportOrigin `json:"origins"` // of blocks, likewise
	Strikes []ReportStrike `json:"strikes"` // of blocks, by how many there were before

	Ports     ReportList `json:"ports"`     // by probes
	Sources   ReportList `json:"sources"`   // IPv4 addresses and IPv6 /64, by probes
	Networks  ReportList `json:"networks"`  // IPv4 /24 and IPv6 /48, by probes
	Offenders ReportList `json:"offenders"` // what was or would have been blocked, by strikes and blocks
	Unread    int        `json:"unread"`    // hours and days that are left out, since their record is damaged
}

// A ReportPart is a part of a period.
type ReportPart struct {
	From   time.Time    `json:"from"`
	To     time.Time    `json:"to"`
	Totals ReportCounts `json:"totals"`
}

// ReportCounts are exact totals.
type ReportCounts struct {
	Probes   uint64 `json:"probes"`   // packets and connections to tripwires, those of ignored sources and peers aside
	Ignored  uint64 `json:"ignored"`  // probes of sources that are never blocked
	Peers    uint64 `json:"peers"`    // probes of peers, which do not count
	Repeated uint64 `json:"repeated"` // of the probes, those of sources that were blocked already
	Blocks   uint64 `json:"blocks"`   // made
	Proven   uint64 `json:"proven"`   // of these, on proven evidence
	Unproven uint64 `json:"unproven"` // of these, on unproven evidence
	Again    uint64 `json:"again"`    // of these, of sources that had a strike
	Extended uint64 `json:"extended"` // blocks that became longer
	Ended    uint64 `json:"ended"`    // blocks that ended
	Would    uint64 `json:"would"`    // blocks that were only logged
	Run      uint64 `json:"run"`      // blocks that were left to the hooks
	Heals    uint64 `json:"heals"`    // times that the table in the kernel was put right
	Doubts   uint64 `json:"doubts"`   // times that unproven evidence was not trusted any more
	Packets  uint64 `json:"dropped_packets"`
	Bytes    uint64 `json:"dropped_bytes"`
}

// ReportKind is what came of a scan kind.
type ReportKind struct {
	Kind   string `json:"kind"` // as of Block, or "other"
	Probes uint64 `json:"probes"`
	Blocks uint64 `json:"blocks"`
}

// ReportOrigin is what came of an origin.
type ReportOrigin struct {
	Origin string `json:"origin"` // as of Block, or "import", "fleet" or "other"
	Blocks uint64 `json:"blocks"`
}

// ReportStrike is how many blocks were of sources with so many strikes.
type ReportStrike struct {
	Strikes int    `json:"strikes"` // earlier blocks that counted; the last one stands for more, too
	Blocks  uint64 `json:"blocks"`
}

// A ReportList is the first rows of a list. Its numbers are exact unless there
// were more than were counted, and then may be too low.
type ReportList struct {
	Rows   []ReportRow `json:"rows"`   // 50 at the most
	Others int         `json:"others"` // how many are left out
	More   bool        `json:"more"`   // there were still others
}

// A ReportRow is a port, a source or a network. Probes and Last are those of
// the period; of an offender Probes is 0.
type ReportRow struct {
	Name    string    `json:"name"` // such as "tcp/23", "hidden port", "192.0.2.7" or "192.0.2.0/24"
	Probes  uint64    `json:"probes"`
	Blocks  uint64    `json:"blocks"`
	Would   uint64    `json:"would"`   // blocks that were not made
	Strikes int       `json:"strikes"` // the most at a block; 0 but for offenders
	Last    time.Time `json:"last"`
	Comment string    `json:"comment"` // of the last block of an offender
}

// Report asks what was counted.
func (c *Client) Report(ctx context.Context, r ReportRequest) (Report, error) {
	var out Report
	err := c.do(ctx, http.MethodGet, "/v1/report?"+r.encode(), nil, &out)
	return out, err
}

// encode is the request as a query.
func (r ReportRequest) encode() string {
	var edges []string
	for _, t := range r.Edges {
		edges = append(edges, strconv.FormatInt(t.Unix(), 10))
	}
	return url.Values{
		"edges": {strings.Join(edges, ",")}, "from": {strconv.FormatInt(r.From.Unix(), 10)}, "to": {strconv.FormatInt(r.To.Unix(), 10)},
	}.Encode()
}

// parseReport reads what encode has written, and says what is wrong with it.
func parseReport(query url.Values) (r ReportRequest, err error) {
	edges := strings.Split(query.Get("edges"), ",")
	if len(edges) < 2 || len(edges) > maxEdges {
		return r, fmt.Errorf("edges: %d times, where from 2 to %d seconds since 1970 are needed, with commas between", len(edges), maxEdges)
	}
	for _, text := range edges {
		t, err := parseSeconds("edges", text)
		if err != nil {
			return r, err
		}
		if n := len(r.Edges); n > 0 && !t.After(r.Edges[n-1]) {
			return r, errors.New("edges: each must be later than the one before")
		}
		r.Edges = append(r.Edges, t)
	}
	if r.From, err = parseSeconds("from", query.Get("from")); err != nil {
		return r, err
	}
	r.To, err = parseSeconds("to", query.Get("to"))
	return r, err
}

// parseSeconds reads a time in the years that can be written.
func parseSeconds(name, text string) (time.Time, error) {
	const last = 253402300799 // in the year 9999
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > last {
		return time.Time{}, fmt.Errorf("%s: %.64q is not a time: write seconds since 1970", name, text)
	}
	return time.Unix(n, 0).UTC(), nil
}

func report(r request, daemon Daemon) (any, error) {
	req, err := parseReport(r.URL.Query())
	if err != nil {
		return nil, &RequestError{err}
	}
	return daemon.Report(r.Context(), req)
}
