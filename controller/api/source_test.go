package api

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestExplain(t *testing.T) {
	client, ctx := NewClient(serve(t)), t.Context()
	for _, address := range []string{"192.0.2.7", "2001:db8::7"} {
		x, err := client.Explain(ctx, netip.MustParseAddr(address))
		if diff := cmp.Diff(Explanation{Address: address, Notes: []string{"one; two"}}, x); diff != "" || err != nil {
			t.Errorf("Explain(%s) (-want +got):\n%s%v", address, diff, err)
		}
	}
	if _, err := client.Explain(ctx, netip.MustParseAddr("192.0.2.66")); err == nil || err.Error() != errRefuse.Error() {
		t.Errorf("Explain that fails: %v, want %q", err, errRefuse)
	}
	var wrong *RequestError
	if _, err := client.Explain(ctx, netip.MustParseAddr("fe80::1%eth0")); !errors.As(err, &wrong) {
		t.Errorf("Explain of a zone: %v, want a RequestError", err)
	}
}

func TestParseAddress(t *testing.T) {
	for _, tt := range []struct{ in, want, problem string }{
		{"192.0.2.7", "192.0.2.7", ""},
		{"::ffff:192.0.2.7", "192.0.2.7", ""},
		{"2001:DB8::7", "2001:db8::7", ""},
		{"192.0.2.0/24", "", `"192.0.2.0/24" is not an address: write one address in it, such as 192.0.2.1`},
		{"192.0.2.7/32", "", `"192.0.2.7/32" is not an address: write the address 192.0.2.7`},
		{"192.0.2.7/24", "", `"192.0.2.7/24" is not an address: write one address, such as 192.0.2.7`},
		{"localhost", "", `"localhost" is not an address: write one address, such as 192.0.2.7`},
		{"", "", `"" is not an address: write one address, such as 192.0.2.7`},
		{"fe80::1%eth0", "", `"fe80::1%eth0" is not an address: write one address without a zone, such as fe80::1`},
		{strings.Repeat("x", 99), "", `"` + strings.Repeat("x", 64) + `" is not an address: write one address, such as 192.0.2.7`},
	} {
		got, err := ParseAddress(tt.in)
		problem := ""
		if err != nil {
			problem = err.Error()
		}
		if problem != tt.problem || err == nil && got.String() != tt.want {
			t.Errorf("ParseAddress(%q) = %v, %q, want %q, %q", tt.in, got, problem, tt.want, tt.problem)
		}
	}
}
