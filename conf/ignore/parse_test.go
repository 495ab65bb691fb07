package ignore

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// texts writes entries as "line prefix".
func texts(entries []Entry) []string {
	out := []string{}
	for _, e := range entries {
		out = append(out, fmt.Sprintf("%d %s", e.Line, e.Prefix))
	}
	return out
}

func TestParse(t *testing.T) {
	for _, test := range []struct {
		name, text string
		want       []string
	}{
		{"empty", "", nil},
		{"address", "192.0.2.7\n", []string{"1 192.0.2.7/32"}},
		{"prefix", "192.0.2.0/24\n", []string{"1 192.0.2.0/24"}},
		{"full length", "127.0.0.1/32\n", []string{"1 127.0.0.1/32"}},
		{"loopback of old, one address", "127.0.0.0\n", []string{"1 127.0.0.0/32"}},
		{"as Debian ships it", "# static\n127.0.0.1/32\n0.0.0.0\n", []string{"2 127.0.0.1/32", "3 0.0.0.0/32"}},
		{"host bits", "192.168.2.1/24", []string{"1 192.168.2.0/24"}},
		{"no newline at the end", "192.0.2.1\n192.0.2.123", []string{"1 192.0.2.1/32", "2 192.0.2.123/32"}},
		{"CR LF", "192.0.2.1\r\n\r\n# x\r\n192.0.2.2/31\r\n", []string{"1 192.0.2.1/32", "4 192.0.2.2/31"}},
		{"blanks", " \t192.0.2.1 \t\n\n  \n\t# x\n\v192.0.2.2\u00a0\n", []string{"1 192.0.2.1/32", "5 192.0.2.2/32"}},
		{"comments", "#192.0.2.1\n192.0.2.2 # office\n192.0.2.3#x\n192.0.2.4 office, first floor\n", []string{"2 192.0.2.2/32", "3 192.0.2.3/32", "4 192.0.2.4/32"}},
		{"comment in Latin-1", "192.0.2.2 # b\xfcro\n", []string{"1 192.0.2.2/32"}},
		{"commas", "192.0.2.2,\n192.0.2.3; office\n", []string{"1 192.0.2.2/32", "2 192.0.2.3/32"}},
		{"byte order mark", "\ufeff192.0.2.2\n", []string{"1 192.0.2.2/32"}},
		{"IPv6", "2001:DB8::1\n2001:db8:1::7/48\n::1\n::\n", []string{"1 2001:db8::1/128", "2 2001:db8:1::/48", "3 ::1/128", "4 ::/128"}},
		{"mapped", "::ffff:192.0.2.1\n::ffff:192.0.2.1/120\n", []string{"1 192.0.2.1/32", "2 192.0.2.0/24"}},
		{"blank before the slash", "192.0.2.0 /24 # office\n192.0.2.0 // office\n", []string{"1 192.0.2.0/24", "2 192.0.2.0/32"}},
		{"netmask", "192.0.2.9/255.255.255.0\n10.0.0.0/255.0.0.0\n", []string{"1 192.0.2.0/24", "2 10.0.0.0/8"}},
		{"zero before the length", "10.0.0.0/08\n", []string{"1 10.0.0.0/8"}},
		{"twice", "192.0.2.1\n192.0.2.1\n", []string{"1 192.0.2.1/32", "2 192.0.2.1/32"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := Parse("f", []byte(test.text))
			if err != nil {
				t.Fatal(err)
			}
			if test.want == nil {
				test.want = []string{}
			}
			if diff := cmp.Diff(test.want, texts(got)); diff != "" {
				t.Errorf("entries (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseBad(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"name", "# x\nscanner.example.net\n", `f:2: "scanner.example.net": ` + isName},
		{"word", "any\n", `f:1: "any": ` + isName},
		{"mask too long", "192.0.2.0/33\n", `f:1: "192.0.2.0/33": the length of this prefix, what follows the slash, must be from 1 to 32: correct it`},
		{"mask too long for IPv6", "2001:db8::/129", `f:1: "2001:db8::/129": the length of this prefix, what follows the slash, must be from 1 to 128: correct it`},
		{"mask negative", "192.0.2.0/-1", `f:1: "192.0.2.0/-1": the length of this prefix, what follows the slash, must be from 1 to 32: correct it`},
		{"no length", "192.0.2.0/", `f:1: "192.0.2.0/": ` + noLength},
		{"two lengths", "192.0.2.0/24/8", `f:1: "192.0.2.0/24/8": the length of this prefix, what follows the slash, must be from 1 to 32: correct it`},
		{"mask with a hole", "192.0.2.0/255.0.255.0", `f:1: "192.0.2.0/255.0.255.0": ` + notMask},
		{"everybody", "0.0.0.0/0", `f:1: "0.0.0.0/0": ` + everybody},
		{"everybody by IPv6", "::/0", `f:1: "::/0": ` + everybody},
		{"everybody by mask", "0.0.0.0/0.0.0.0", `f:1: "0.0.0.0/0.0.0.0": ` + everybody},
		{"everybody, mapped", "::ffff:0:0/96", `f:1: "::ffff:0:0/96": ` + everybody},
		{"NUL", "192.0.2.1\x00\n", `f:1: "192.0.2.1\x00": ` + hasNUL},
		{"NUL in a comment", "# \x00", `f:1: "# \x00": ` + hasNUL},
		{"zone", "fe80::1%eth0", `f:1: "fe80::1%eth0": ` + hasZone},
		{"octal", "010.0.0.1", `f:1: "010.0.0.1": ` + leadingZero},
		{"short", "10.0.0", `f:1: "10.0.0": ` + tooShort},
		{"large", "10.0.0.256", `f:1: "10.0.0.256": ` + tooShort},
		{"two", "192.0.2.1 192.0.2.2", `f:1: "192.0.2.1 192.0.2.2": ` + twoOnLine},
		{"two with a comma", "192.0.2.1,192.0.2.0/24", `f:1: "192.0.2.1,192.0.2.0/24": ` + twoOnLine},
		{"address and mask", "192.0.2.1 255.255.255.0", `f:1: "192.0.2.1 255.255.255.0": ` + twoOnLine},
		{"range", "192.0.2.1-192.0.2.9", `f:1: "192.0.2.1-192.0.2.9": ` + notAddress},
		{"only a comma", ",", `f:1: ",": ` + notAddress},
		{"other digits", "١.0.0.1", `f:1: "١.0.0.1": ` + notAddress},
		{"long", strings.Repeat("y", 100), `f:1: "` + strings.Repeat("y", 61) + `...": ` + isName},
		{"colons", "::1::", `f:1: "::1::": ` + notAddress},
		{"several", "x.y\n192.0.2.1\nz.y", "f:1: \"x.y\": " + isName + "\nf:3: \"z.y\": " + isName},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := Parse("f", []byte(test.text))
			var errs Errors
			if !errors.As(err, &errs) || got != nil {
				t.Fatalf("Parse = %v, %v, want Errors alone", got, err)
			}
			if diff := cmp.Diff(test.want, err.Error()); diff != "" {
				t.Errorf("message (-want +got):\n%s", diff)
			}
		})
	}
}

// TestParseManyBad shows that a file which is no list at all does not fill the log.
func TestParseManyBad(t *testing.T) {
	_, err := Parse("f", []byte(strings.Repeat("x\n", 1000)))
	lines := strings.Split(err.Error(), "\n")
	if want := "f:20: and 980 more bad lines after this one"; len(lines) != maxBad+1 || lines[maxBad] != want {
		t.Errorf("%d lines, the last %q, want %d and %q", len(lines), lines[len(lines)-1], maxBad+1, want)
	}
}

func TestParseTooMany(t *testing.T) {
	text := bytes.Repeat([]byte("192.0.2.1\n"), MaxEntries+1)
	if got, err := Parse("f", text[:len(text)-10]); err != nil || len(got) != MaxEntries {
		t.Errorf("%d entries, %v, want %d", len(got), err, MaxEntries)
	}
	want := fmt.Sprintf("f:%d: more than %d addresses and prefixes in all ignore.files: join neighbours into prefixes", MaxEntries+1, MaxEntries)
	if _, err := Parse("f", text); err == nil || err.Error() != want {
		t.Errorf("one more: %v, want %q", err, want)
	}
}

// list is a file of so many lines, IPv4 and IPv6.
func list(lines int) []byte {
	var b bytes.Buffer
	for i := range lines {
		if i%4 == 0 {
			fmt.Fprintf(&b, "2001:db8:%x:%x::/64 # line %d\n", i>>16, i&0xffff, i)
		} else {
			fmt.Fprintf(&b, "10.%d.%d.%d/%d\n", i>>16, i>>8&0xff, i&0xff, 32-i%3)
		}
	}
	return b.Bytes()
}

// TestParseLarge reads a file as large as they may be, nearly all of it comments, without taking many times its size.
func TestParseLarge(t *testing.T) {
	comment := []byte("# " + strings.Repeat("x", 61) + "\n")
	text := append(bytes.Repeat(comment, maxSize/len(comment)-1), "192.0.2.1\n"...)
	var got []Entry
	var err error
	began := time.Now()
	allocs := testing.AllocsPerRun(1, func() { got, err = Parse("f", text) })
	if err != nil || len(got) != 1 || allocs > 100 {
		t.Errorf("%v, %v, with %v allocations, want one entry and few of them", got, err, allocs)
	}
	if took := time.Since(began); took > time.Minute {
		t.Errorf("read twice in %v", took)
	}
}

func BenchmarkParse(b *testing.B) {
	text := list(100000)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, err := Parse("f", text); err != nil {
			b.Fatal(err)
		}
	}
}

// naive reads a file by other means: what it has and which lines are bad.
func naive(text string) (entries []Entry, wrong []int) {
	for i, line := range strings.Split(strings.TrimPrefix(text, "\ufeff"), "\n") {
		content, _, _ := strings.Cut(line, "#")
		words := strings.FieldsFunc(content, parts)
		switch {
		case strings.ContainsRune(line, 0):
			wrong = append(wrong, i+1)
			continue
		case len(words) == 0 || strings.IndexFunc(strings.TrimSpace(content), parts) == 0:
			if strings.TrimSpace(content) != "" {
				wrong = append(wrong, i+1)
			}
			continue
		}
		if len(words) > 1 && len(words[1]) > 1 && words[1][0] == '/' && strings.ContainsAny(words[1][1:2], "0123456789") && !strings.Contains(words[0], "/") {
			words = append([]string{words[0] + words[1]}, words[2:]...)
		}
		p, ok := naivePrefix(words[0])
		if len(words) > 1 {
			second, _, _ := strings.Cut(words[1], "/")
			if _, err := netip.ParseAddr(second); err == nil {
				ok = false
			}
		}
		if !ok {
			wrong = append(wrong, i+1)
			continue
		}
		entries = append(entries, Entry{p, i + 1})
	}
	return entries, wrong
}

// naivePrefix tries all lengths by name, and masks bit by bit.
func naivePrefix(word string) (netip.Prefix, bool) {
	address, length, isPrefix := strings.Cut(word, "/")
	a, err := netip.ParseAddr(address)
	if err != nil || a.Zone() != "" {
		return netip.Prefix{}, false
	}
	bits := -1
	mask := uint32(0)
	for n := 0; n <= a.BitLen(); n++ {
		dotted := fmt.Sprintf("%d.%d.%d.%d", mask>>24, mask>>16&0xff, mask>>8&0xff, mask&0xff)
		digits := strings.TrimLeft(length, "0")
		if length != "" && digits == "" {
			digits = "0"
		}
		if !isPrefix && n == a.BitLen() || isPrefix && (digits == fmt.Sprint(n) || a.Is4() && length == dotted) {
			bits = n
		}
		mask = mask>>1 | 1<<31
	}
	if a.Is4In6() && bits >= 96 {
		a, bits = a.Unmap(), bits-96
	}
	if bits < 1 {
		return netip.Prefix{}, false
	}
	raw := a.AsSlice()
	for i := bits; i < a.BitLen(); i++ {
		raw[i/8] &^= 0x80 >> (i % 8)
	}
	masked, _ := netip.AddrFromSlice(raw)
	return netip.PrefixFrom(masked, bits), true
}

// FuzzParse holds Parse to a naive reader: the same entries, or the same bad lines.
func FuzzParse(f *testing.F) {
	for _, file := range []string{"testdata/portsentry.ignore", "testdata/portsentry.ignore.static"} {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, wrong := naive(string(data))
		got, err := Parse("f", data)
		var errs Errors
		if errors.As(err, &errs) != (len(wrong) > 0) {
			t.Fatalf("bad lines %v, want %v", err, wrong)
		}
		for i, e := range errs {
			if i < min(maxBad, len(wrong)) && e.Line != wrong[i] || strings.ContainsAny(e.Error(), "\n\x00") {
				t.Errorf("message %q, want one line about %d", e, wrong[min(i, len(wrong)-1)])
			}
		}
		if len(wrong) == 0 && !cmp.Equal(texts(entries), texts(got)) {
			t.Errorf("entries (-want +got):\n%s", cmp.Diff(texts(entries), texts(got)))
		}
	})
}
