package conf

import (
	"errors"
	"io/fs"
	"testing"
)

func TestError(t *testing.T) {
	for _, tt := range []struct {
		err  Error
		want string
	}{
		{Error{"f", 12, 1, "block.timeout", "600", "no unit"}, "f:12:1: block.timeout = 600: no unit"},
		{Error{"f", 1, 2, "blokc", "", "unknown table"}, "f:1:2: blokc: unknown table"},
		{Error{"f", 1, 2, "", "", "no TOML"}, "f:1:2: no TOML"},
	} {
		if got := tt.err.Error(); got != tt.want {
			t.Errorf("%#v is %q, want %q", tt.err, got, tt.want)
		}
	}
}

func TestErrors(t *testing.T) {
	one, two := &Error{File: "f", Line: 1, Column: 1, Problem: "a"}, &Error{File: "f", Line: 2, Column: 1, Problem: "b"}
	err := error(Errors{one, two})
	if got, want := err.Error(), "f:1:1: a\nf:2:1: b"; got != want {
		t.Errorf("text %q, want %q", got, want)
	}
	if !errors.Is(err, two) || errors.Is(err, fs.ErrNotExist) {
		t.Error("the mistakes are not found one by one")
	}
}

// TestNoSpuriousErrors shows that one mistake is one message, though other values depend on the wrong one.
func TestNoSpuriousErrors(t *testing.T) {
	for _, text := range []string{
		"tcp.decoy = \"none\"\ntcp.port = 79",
		"tcp.exclude = \"none\"\ntcp.port = 853",
		"block.timeout = 1\nblock.escalate = [\"1s\"]",
		"block.timeout = \"1h\"\nblock.escalate = [\"1s\", 7]",
		"[blokc]\ntimeout = 1\nescalate = 2",
	} {
		_, err := Parse("f", []byte(text))
		var errs Errors
		if !errors.As(err, &errs) || len(errs) != 1 {
			t.Errorf("%q: want one message: %v", text, err)
		}
	}
}
