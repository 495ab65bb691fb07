package api

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Report answers with what it was asked.
func (fakeDaemon) Report(_ context.Context, r ReportRequest) (Report, error) {
	out := Report{From: r.Edges[0], To: r.Edges[len(r.Edges)-1], Before: ReportPart{From: r.From, To: r.To}}
	for range r.Edges[1:] {
		out.Parts = append(out.Parts, ReportPart{})
	}
	return out, nil
}

// TestReport asks for as many parts as there may be.
func TestReport(t *testing.T) {
	at := func(n int) time.Time { return time.Unix(1795350598, 0).UTC().Add(time.Duration(n) * time.Hour) }
	r := ReportRequest{From: at(-10), To: at(0)}
	for n := range maxEdges {
		r.Edges = append(r.Edges, at(n))
	}
	client := NewClient(serve(t))
	got, err := client.Report(t.Context(), r)
	want := Report{From: at(0), To: at(maxEdges - 1), Before: ReportPart{From: at(-10), To: at(0)}, Parts: make([]ReportPart, maxEdges-1)}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("Report: %v (-want +got):\n%s", err, diff)
	}
	var wrong *RequestError
	if _, err := client.Report(t.Context(), ReportRequest{}); !errors.As(err, &wrong) {
		t.Errorf("Report of nothing: %v, want a RequestError", err)
	}
}

// TestParseReport says what is wrong with a request.
func TestParseReport(t *testing.T) {
	for query, want := range map[string]string{
		"":                        "edges: 1 times, where from 2 to 120",
		"edges=1,2":               `from: "" is not a time`,
		"edges=1,2&from=0":        `to: "" is not a time`,
		"edges=2,2&from=0&to=1":   "each must be later",
		"edges=1,x&from=0&to=1":   `edges: "x" is not a time: write seconds since 1970`,
		"edges=1,-2&from=0&to=1":  `"-2" is not a time`,
		"edges=1,2&from=0&to=1e9": `to: "1e9" is not a time`,
		"edges=1,2&from=0&to=" + fmt.Sprint(int64(1)<<62):           "is not a time",
		"edges=1" + strings.Repeat(",2", maxEdges) + "&from=0&to=1": "edges: 121 times",
	} {
		values, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parseReport(values); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v, want %q", query, err, want)
		}
	}
}
