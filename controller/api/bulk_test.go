package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestBulk asks for many at once, and for what is wrong.
func TestBulk(t *testing.T) {
	client := NewClient(serve(t))
	many := make([]string, 20_000)
	for i := range many {
		many[i] = fmt.Sprintf("10.0.%d.%d", i>>8, i&255)
	}
	var got []string
	err := client.BlockMany(t.Context(), BulkRequest{Sources: many, Seconds: 60, Comment: "list"}, func(b Block) error {
		got = append(got, b.Source)
		return nil
	})
	if err != nil || !slices.Equal(got, many) {
		t.Errorf("BlockMany of %d: %d, %v", len(many), len(got), err)
	}
	u, err := client.UnblockMany(t.Context(), []string{"192.0.2.7", "192.0.2.8"})
	want := BulkUnblocked{Unblocked: []string{"192.0.2.8"}, Problems: []string{"192.0.2.7 is not blocked"}}
	if diff := cmp.Diff(want, u); diff != "" || err != nil {
		t.Errorf("UnblockMany: %v (-want +got):\n%s", err, diff)
	}
	for name, tt := range map[string]struct {
		r    BulkRequest
		want string
	}{
		"none":            {BulkRequest{}, "0 sources: from 1 to 262144 at once"},
		"two bad sources": {BulkRequest{Sources: []string{"a", "192.0.2.7", "b"}}, "\"a\" is not a source"},
		"a bad comment":   {BulkRequest{Sources: []string{"192.0.2.7"}, Comment: "\t"}, "comment: "},
		"a bad timeout":   {BulkRequest{Sources: []string{"192.0.2.7"}, Seconds: -1}, "seconds -1: out of range"},
		"too long":        {BulkRequest{Sources: slices.Repeat([]string{strings.Repeat("1", 1000)}, 20_000)}, "request: http: request body too large"},
	} {
		err := client.BlockMany(t.Context(), tt.r, func(Block) error { return nil })
		var wrong *RequestError
		if !errors.As(err, &wrong) || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%s: %.200v, want %s", name, err, tt.want)
		}
	}
}

// TestBulkIsOne has a client that dawdles over a long request: others with
// short ones are served meanwhile.
func TestBulkIsOne(t *testing.T) {
	path := serve(t)
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	body, _ := json.Marshal(BulkRequest{Sources: []string{"192.0.2.7"}})
	fmt.Fprintf(conn, "POST /v1/bulk/block HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body)+1, body)
	if _, err := NewClient(path).List(t.Context()); err != nil {
		t.Errorf("a list beside a long request: %v", err)
	}
	if _, err := NewClient(path).Block(t.Context(), BlockRequest{Source: "192.0.2.7"}); err != nil {
		t.Errorf("a block beside a long request: %v", err)
	}
	// The next long one has its turn when the patience with the first is over.
	if err := NewClient(path).BlockMany(t.Context(), BulkRequest{Sources: []string{"192.0.2.7", "192.0.2.8"}}, func(Block) error { return nil }); err != nil {
		t.Errorf("a long request after another: %v", err)
	}
}
