package state

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// records are blocks with all that a record may hold.
func records() []Block {
	wide := block("2001:db8::5", 0)
	wide.Source = netip.MustParsePrefix("2001:db8::/64")
	mixed := block("192.0.2.1", 0)
	mixed.Address = netip.MustParseAddr("2001:db8::1")
	strange := block("192.0.2.2", 0)
	strange.Comment, strange.Kind, strange.Origin = "operator <&> \"x\"\n\xff", "x", "y"
	strange.Strikes, strange.Port = 1<<31-1, 65535
	late := block("::1", 0)
	late.Until = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)
	early := block("0.0.0.0", 0)
	early.Since, early.Until = time.Unix(0, 0).UTC(), time.Unix(0, 1).UTC()
	return []Block{
		block("192.0.2.1", 0), block("2001:db8::1", 0), wide, mixed, strange, late, early,
		{Source: netip.MustParsePrefix("0.0.0.0/0"), Since: time.Unix(1, 0).UTC()}, {Source: netip.MustParsePrefix("::/0")},
	}
}

func TestRecord(t *testing.T) {
	for _, want := range records() {
		key, value := encode(&want)
		for _, behind := range []string{"", "what a newer nftsentry adds"} {
			got, err := decode(key, append(value, behind...))
			if err != nil {
				t.Errorf("%s: %v", want.Source, err)
			}
			diff(t, want.Source.String(), want, got)
		}
		for n := range value {
			if b, err := decode(key, value[:n]); err == nil {
				t.Errorf("%s: the first %d bytes of %q are read as %v", want.Source, n, value, b)
			}
		}
	}
}

// TestRecordsAreSmall holds the size that the documentation gives.
func TestRecordsAreSmall(t *testing.T) {
	for want, b := range map[int]Block{47: block("192.0.2.1", 0), 59: block("2001:db8::1", 0)} {
		if key, value := encode(&b); len(key)+len(value) != want {
			t.Errorf("%s: want %d bytes, got %d", b.Source, want, len(key)+len(value))
		}
	}
}

func TestRecordRefuses(t *testing.T) {
	b := block("192.0.2.1", 0)
	key, value := encode(&b)
	with := func(b []byte, at int, bytes ...byte) []byte {
		return slices.Replace(slices.Clone(b), at, at+len(bytes), bytes...)
	}
	tests := map[string]struct{ key, value []byte }{
		"no key":              {nil, value},
		"text for a key":      {[]byte("192.0.2.1/32"), value},
		"another family":      {with(key, 0, 6), value},
		"a long prefix":       {with(key, 5, 33), value},
		"bits behind":         {with(key, 5, 24), value},
		"year 10000":          {key, with(value, 0, 59)},
		"a long second":       {key, with(value, 5, 0xff)},
		"nanoseconds of none": {key, with(value, 0, 0, 0, 0, 0, 0)},
		"a long address":      {key, with(value, 21, 5)},
		"an unknown word":     {key, with(value, 22, 0x7f)},
		"a long text":         {key, with(value, 22, 0x7e)},
		"endless strikes":     {key, with(value, 20, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)},
	}
	for name, test := range tests {
		if b, err := decode(test.key, test.value); err == nil {
			t.Errorf("%s: read as %v", name, b)
		}
	}
}

// TestKeysAreInOrder sees that what is written in the order of sources is written in the order of keys.
func TestKeysAreInOrder(t *testing.T) {
	var sources []netip.Prefix
	for _, s := range []string{
		"255.0.0.0/8", "10.0.0.0/8", "10.0.0.0/9", "10.0.0.1/32", "9.0.0.0/8", "0.0.0.0/0", "::/0", "2001:db8::/32",
		"2001:db8::/64", "2001:db8::1/128", "fe80::1/128", "192.0.2.0/24",
	} {
		sources = append(sources, netip.MustParsePrefix(s))
	}
	slices.SortFunc(sources, compareSources)
	if !slices.IsSortedFunc(sources, netip.Prefix.Compare) {
		t.Errorf("sources are in another order than netip has: %v", sources)
	}
	if !slices.IsSortedFunc(sources, func(a, b netip.Prefix) int { return bytes.Compare(keyOf(a), keyOf(b)) }) {
		t.Errorf("keys are in another order than %v", sources)
	}
	times := []time.Time{{}, time.Unix(0, 0), time.Unix(0, 1), time.Unix(1, 0), time.Unix(1<<32, 0), time.Unix(maxSeconds, 0)}
	if !slices.IsSortedFunc(times, func(a, b time.Time) int { return bytes.Compare(appendTime(nil, a), appendTime(nil, b)) }) {
		t.Error("times are in another order than their bytes")
	}
}

// FuzzDecode reads any record; what can be read can be written and read again.
func FuzzDecode(f *testing.F) {
	for _, b := range records() {
		key, value := encode(&b)
		f.Add(key, value)
	}
	f.Fuzz(func(t *testing.T, key, value []byte) {
		want, err := decode(key, value)
		if err != nil {
			return
		}
		got, err := decode(encode(&want))
		if err != nil {
			t.Fatalf("%q, %q: read once, and then %v", key, value, err)
		}
		diff(t, "again", want, got)
	})
}
