package api

import (
	"strings"
	"testing"
)

func TestParseSource(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"192.0.2.7", "192.0.2.7"}, {"::ffff:192.0.2.7", "192.0.2.7"}, {"192.0.2.0/24", "192.0.2.0/24"}, {"192.0.2.7/32", "192.0.2.7"},
		{"2001:DB8::7", "2001:db8::7"}, {"2001:db8::/32", "2001:db8::/32"}, {"0.0.0.0/0", "0.0.0.0/0"},
	} {
		got, err := ParseSource(tt.text)
		if err != nil || Display(got) != tt.want {
			t.Errorf("ParseSource(%q) = %v, %v, want %s", tt.text, got, err, tt.want)
		}
	}
	for _, text := range []string{"", "localhost", "192.0.2", "192.0.2.7/33", "192.0.2.7/24", "::ffff:192.0.2.0/120", "fe80::1%eth0", "fe80::%eth0/64", " 192.0.2.7", "192.0.2.7/"} {
		if got, err := ParseSource(text); err == nil {
			t.Errorf("ParseSource(%q) = %v, want an error", text, got)
		}
	}
}

func FuzzParseSource(f *testing.F) {
	for _, s := range []string{"192.0.2.7", "2001:db8::/32", "::ffff:1.2.3.4", "fe80::1%eth0", "10.0.0.1/8", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParseSource(s)
		if err != nil {
			return
		}
		if again, err := ParseSource(Display(p)); again != p || err != nil || p != p.Masked() || p.Addr().Is4In6() {
			t.Errorf("%q is %v, written and read %v, %v", s, p, again, err)
		}
	})
}

func TestParseComment(t *testing.T) {
	for _, tt := range []struct{ text, want, err string }{
		{"", "", ""},
		{"abuse desk", "abuse desk", ""},
		{" \tabuse desk\n", "abuse desk", ""},
		{"Müller: 日本 'x' \uFFFD", "Müller: 日本 'x' \uFFFD", ""},
		{strings.Repeat("x", 100) + "  ", strings.Repeat("x", 100), ""},
		{strings.Repeat("ü", 51), "", "too long with 102 bytes: at most 100"},
		{" \t ", "", "nothing but blanks: say why, or leave it out"},
		{"a\xffb", "", "not UTF-8: write it in UTF-8"},
		{"two\nlines", "", `'\n' is not allowed: printable characters only, and no double quotes`},
		{`say "no"`, "", `'"' is not allowed: printable characters only, and no double quotes`},
		{"\x1b[2J", "", `'\x1b' is not allowed: printable characters only, and no double quotes`},
		{"a\u202eb", "", `'\u202e' is not allowed: printable characters only, and no double quotes`},
	} {
		got, err := ParseComment(tt.text)
		if got != tt.want || (err == nil) != (tt.err == "") || err != nil && err.Error() != tt.err {
			t.Errorf("ParseComment(%q) = %q, %v, want %q, %s", tt.text, got, err, tt.want, tt.err)
		}
	}
}
