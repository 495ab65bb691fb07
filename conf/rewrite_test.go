package conf

import (
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"net/netip"
)

func TestRewrite(t *testing.T) {
	values := map[string]any{"mode": "observe", "state.dir": "/tmp/state", "trigger.ports": 5}
	for _, tt := range []struct{ name, in, want string }{
		{"empty", "", "mode = \"observe\"\n\n[state]\n  dir = \"/tmp/state\"\n\n[trigger]\n  ports = 5\n"},
		{"others stay, hooks go", "[tcp]\nwatch = \"1-9\" # comment\n[state]\ndir = \"/var\"\n[[hook.mail]]\nto = \"a\"\n[hook.hosts_deny]\nline = \"b\"\n",
			"mode = \"observe\"\n\n[state]\n  dir = \"/tmp/state\"\n\n[tcp]\n  watch = \"1-9\"\n\n[trigger]\n  ports = 5\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Rewrite([]byte(tt.in), values, "hook", "metrics")
			if diff := cmp.Diff(tt.want, string(got)); diff != "" || err != nil {
				t.Errorf("error %v (-want +got):\n%s", err, diff)
			}
		})
	}
	for _, in := range []string{"state = 1", "= 1"} {
		if got, err := Rewrite([]byte(in), values); err == nil {
			t.Errorf("%q: no error, but %q", in, got)
		}
	}
}

// TestRewriteReference shows that nothing is lost of any key that there is.
func TestRewriteReference(t *testing.T) {
	data, err := os.ReadFile("reference.toml")
	if err != nil {
		t.Fatal(err)
	}
	want, err := Parse("reference.toml", data)
	if err != nil {
		t.Fatal(err)
	}
	data, err = Rewrite(data, map[string]any{"state.dir": "/tmp/state"})
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse("rewritten", data)
	if err != nil {
		t.Fatal(err)
	}
	want.State.Dir = "/tmp/state"
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
