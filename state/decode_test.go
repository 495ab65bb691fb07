package state

import (
	"encoding/json"
	"net/netip"
	"testing"
	"time"
)

// TestDecodeIsQuick sees that what encode writes needs no encoding/json.
func TestDecodeIsQuick(t *testing.T) {
	strange := block("192.0.2.1", 0)
	strange.Comment = "operator <&> \"x\"\n\xff"
	for want, b := range map[bool]Block{true: block("2001:db8::1", 0), false: strange} {
		_, value, err := encode(b)
		if err != nil {
			t.Fatal(err)
		}
		var r record
		if got := r.quick(value); got != want {
			t.Errorf("%s: want quick %v, got %v", value, want, got)
		}
	}
}

// FuzzDecode compares the quick way with encoding/json.
func FuzzDecode(f *testing.F) {
	all := block("192.0.2.1", 0)
	all.Strikes = 3
	for _, b := range []Block{all, {}, {Source: netip.MustParsePrefix("192.0.2.0/24"), Since: time.Unix(1, 0).UTC()}} {
		_, value, err := encode(b)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(value)
	}
	for _, s := range []string{
		``, `{`, `{}`, `{"port":01}`, `{"port":65536}`, `{"port":-1}`, `{"port":"1"}`, `{"Port":1}`, `{"port":1,}`, `{"port":1}x`,
		`{"kind":"a","kind":"b"}`, `{"since":"2026-11-22T12:00:00Z"}`, `{"since":"2026-11-22T12:00:00,5Z"}`, `{"since":""}`,
		`{"address":""}`, `{"address":"fe80::1%eth0"}`, `{"comment":"\u0041"}`, `{"kind":""}`, `{"port":}`, `{"strikes":null}`,
		`{"since":"2026-11-22T12:00:00+24:00"}`, `{"since":"2026-11-22T1:00:00Z"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		var got, want record
		if !got.quick(value) {
			return
		}
		if err := json.Unmarshal(value, &want); err != nil {
			t.Fatalf("%q: read, but %v", value, err)
		}
		diff(t, string(value), want, got)
	})
}
