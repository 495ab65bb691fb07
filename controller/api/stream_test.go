package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nftsentry/state"
)

// TestListing compares lists with those of encoding/json.
func TestListing(t *testing.T) {
	plain := state.Block{
		Source: netip.MustParsePrefix("192.0.2.7/32"), Address: netip.MustParseAddr("192.0.2.7"), Since: since, Until: since.Add(time.Hour),
		Port: 65535, Protocol: "tcp", Kind: "syn-fin", Evidence: "unproven", Strikes: 12, Origin: state.OriginKernel, Comment: "tcp/65535 syn-fin x13",
	}
	named := func(comment string) state.Block {
		b := plain
		b.Comment = comment
		return b
	}
	elsewhere := plain
	elsewhere.Since = since.Add(time.Nanosecond).In(time.FixedZone("", 3600))
	for name, blocks := range map[string][]state.Block{
		"none":        {},
		"one":         {plain},
		"a prefix":    {{Source: netip.MustParsePrefix("2001:db8::/48"), Since: since, Until: since}},
		"other zones": {elsewhere},
		"escapes":     {named("a \"b\" \\ <c> & \t d\x00"), named("grüße \u2028 \xff"), named("")},
		"many":        slices.Repeat([]state.Block{plain}, 3000),
	} {
		t.Run(name, func(t *testing.T) {
			var got bytes.Buffer
			if err := listing(slices.Values(blocks)).writeTo(&got); err != nil {
				t.Fatal(err)
			}
			want := []Block{}
			for _, b := range blocks {
				want = append(want, BlockOf(b))
			}
			text, err := json.Marshal(want)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(text)+"\n", strings.ReplaceAll(got.String(), "},\n{", "},{")); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			read := []Block{}
			if err := readList(&got, func(b Block) error { read = append(read, b); return nil }); err != nil {
				t.Fatal(err)
			}
			var back []Block
			if err := json.Unmarshal(text, &back); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(back, read); diff != "" {
				t.Errorf("read back (-want +got):\n%s", diff)
			}
		})
	}
}

// TestReadList has the answers that are no list, and those that are cut short.
func TestReadList(t *testing.T) {
	enough := errors.New("enough")
	for _, tt := range []struct {
		name, text string
		want       error // nil for any
		blocks     int
	}{
		{"nothing", "", errNoList, 0},
		{"an object", `{"error":"x"}`, errNoList, 0},
		{"cut short after the begin", "[", nil, 0},
		{"cut short after a block", `[{"source":"192.0.2.7"}`, nil, 1},
		{"cut short in a block", `[{"source":"192.0.2.7"},{"sou`, nil, 1},
		{"the reader has enough", `[{"source":"192.0.2.7"},{"source":"192.0.2.8"},{}]`, enough, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := 0
			err := readList(strings.NewReader(tt.text), func(Block) error {
				if n++; n == 2 {
					return enough
				}
				return nil
			})
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) || n != tt.blocks {
				t.Errorf("readList = %v after %d blocks, want %v after %d", err, n, tt.want, tt.blocks)
			}
		})
	}
}
