package controller

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

func TestOperator(t *testing.T) {
	drive(t, testConfig(), func(r *rig) {
		block := func(source string, timeout time.Duration, text string) error {
			_, err := r.Block(r.ctx, netip.MustParsePrefix(source), timeout, text)
			return err
		}
		if err := errors.Join(
			block("203.0.113.7/32", 0, ""),
			block("198.51.100.0/24", time.Hour, "abuse desk"),
			block("2001:db8:7::5/128", time.Minute, ""),
		); err != nil {
			t.Fatal(err)
		}
		r.expect("after three blocks",
			"198.51.100.0/24 1h0m0s operator: abuse desk",
			"203.0.113.7 10m0s operator",
			"2001:db8:7::5 1m0s operator")

		if err := errors.Join(block("203.0.113.7/32", time.Hour, ""), block("198.51.100.0/24", time.Minute, "")); err != nil {
			t.Fatal(err)
		}
		r.expect("one longer, one shorter",
			"198.51.100.0/24 1m0s operator: abuse desk",
			"203.0.113.7 1h0m0s operator",
			"2001:db8:7::5 1m0s operator")
		time.Sleep(time.Minute)
		synctest.Wait()
		r.expect("a minute later", "203.0.113.7 59m0s operator")

		r.touch("203.0.113.8", 23)
		if n, err := r.UnblockAll(r.ctx); n != 2 || err != nil {
			t.Errorf("UnblockAll = %d, %v, want 2", n, err)
		}
		r.expect("after all are let go")
		if n, err := r.UnblockAll(r.ctx); n != 0 || err != nil {
			t.Errorf("UnblockAll again = %d, %v, want 0", n, err)
		}
	})
}

func TestOperatorErrors(t *testing.T) {
	drive(t, testConfig(), func(r *rig) {
		if _, err := r.Block(r.ctx, netip.MustParsePrefix("198.51.100.0/24"), 0, ""); err != nil {
			t.Fatal(err)
		}
		block := func(source string, timeout time.Duration, text string) error {
			p, _ := netip.ParsePrefix(source)
			_, err := r.Block(r.ctx, p, timeout, text)
			return err
		}
		unblock := func(source string) error {
			_, err := r.Unblock(r.ctx, netip.MustParsePrefix(source))
			return err
		}
		for _, tt := range []struct {
			got  error
			is   error
			text string
		}{
			{block("192.0.2.1/32", 0, ""), ErrIgnored, "192.0.2.1 is covered by 192.0.2.0/24 (ignore.sources): an ignored source is never blocked"},
			{block("10.0.0.1/32", 0, ""), ErrIgnored, "10.0.0.1 is covered by 10.0.0.1 (gateway)"},
			{block("127.0.0.0/9", 0, ""), ErrIgnored, "127.0.0.0/9 is covered by 127.0.0.0/8 (loopback)"},
			{block("", 0, ""), ErrInvalid, "neither an address nor a prefix"},
			{block("203.0.113.7/24", 0, ""), ErrInvalid, "203.0.113.7/24 is neither an address nor a prefix without host bits"},
			{block("203.0.113.7/32", time.Millisecond, ""), ErrInvalid, "timeout 1ms: from 1s to 3650d"},
			{block("203.0.113.7/32", 11*365*24*time.Hour, ""), ErrInvalid, "from 1s to 3650d"},
			{block("203.0.113.7/32", 0, strings.Repeat("x", 101)), ErrInvalid, "comment of 101 bytes: at most 100"},
			{block("203.0.113.7/32", 0, "two\nlines"), ErrInvalid, "printable characters only"},
			{block("203.0.113.7/32", 0, `"`), ErrInvalid, "no quotes"},
			{unblock("203.0.113.7/32"), ErrNotBlocked, "203.0.113.7 is not blocked: \"nftsentry list\" shows who is"},
			{unblock("198.51.100.7/32"), ErrNotBlocked, "198.51.100.7 by itself is not blocked; it lies in 198.51.100.0/24, which is: run \"nftsentry unblock 198.51.100.0/24\""},
			{unblock("198.51.0.0/16"), ErrNotBlocked, "198.51.0.0/16 is not blocked"},
		} {
			if !errors.Is(tt.got, tt.is) || !strings.Contains(tt.got.Error(), tt.text) {
				t.Errorf("error %q, want %q with %q", tt.got, tt.is, tt.text)
			}
		}
		r.expect("after all errors", "198.51.100.0/24 10m0s operator")

		r.kernel.fail = unix.ENOBUFS
		if err := block("203.0.113.7/32", 0, ""); !errors.Is(err, unix.ENOBUFS) {
			t.Errorf("Block that the kernel refuses = %v, want ENFILE", err)
		}
		r.expect("after the kernel's error", "198.51.100.0/24 10m0s operator")

		r.store.fail = unix.ENOSPC
		if err := block("203.0.113.7/32", 0, ""); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("Block on a full disk = %v, want ENOSPC", err)
		}
		ended, cancel := context.WithCancel(r.ctx)
		cancel()
		if _, err := r.List(ended); !errors.Is(err, context.Canceled) {
			t.Errorf("List after the end = %v, want Canceled", err)
		}
	})
}

// TestRestore ends one controller and starts the next on the same store.
func TestRestore(t *testing.T) {
	var clockBack bool
	for _, tt := range []struct {
		name      string
		meanwhile func(k *fakeKernel)
		want      []string
	}{
		{"restart", func(*fakeKernel) { time.Sleep(time.Minute) }, []string{
			"198.51.100.0/24 59m0s operator", "203.0.113.7 9m0s tcp/23 connect", "203.0.113.8 9m0s tcp/79 connect",
		}},
		{"reboot", func(k *fakeKernel) {
			*k = *newFakeKernel()
			time.Sleep(time.Minute + 500*time.Millisecond)
		}, []string{ // whole seconds, rounded up
			"198.51.100.0/24 59m0s operator", "203.0.113.7 9m0s tcp/23 connect", "203.0.113.8 9m0s tcp/79 connect",
		}},
		{"long reboot", func(k *fakeKernel) {
			*k = *newFakeKernel()
			time.Sleep(30 * time.Minute)
		}, []string{"198.51.100.0/24 30m0s operator"}},
		{"the clock was set back over a reboot", func(k *fakeKernel) {
			*k = *newFakeKernel()
			clockBack = true
		}, []string{
			"198.51.100.0/24 1h0m0s operator", "203.0.113.7 10m0s tcp/23 connect", "203.0.113.8 10m0s tcp/79 connect",
		}},
		{"blocked by others meanwhile", func(k *fakeKernel) {
			k.ends[netip.MustParsePrefix("203.0.113.9/32")] = time.Now().Add(time.Hour)
			k.comment[netip.MustParsePrefix("203.0.113.9/32")] = "by hand"
			k.ends[netip.MustParsePrefix("203.0.113.10/32")] = time.Now().Add(time.Second) // not worth it
			k.ends[netip.MustParsePrefix("192.0.2.1/32")] = time.Now().Add(time.Hour)      // ignored
		}, []string{
			"198.51.100.0/24 1h0m0s operator", "203.0.113.7 10m0s tcp/23 connect",
			"203.0.113.8 10m0s tcp/79 connect", "203.0.113.9 1h0m0s by hand",
		}},
		{"the clock was set, and the kernel knows better", func(k *fakeKernel) {
			k.ends[netip.MustParsePrefix("203.0.113.7/32")] = time.Now().Add(5 * time.Minute)
		}, []string{
			"198.51.100.0/24 1h0m0s operator", "203.0.113.7 5m0s tcp/23 connect", "203.0.113.8 10m0s tcp/79 connect",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			drive(t, testConfig(), func(r *rig) {
				r.touch("203.0.113.7", 23)
				r.touch("203.0.113.8", 79)
				if _, err := r.Block(r.ctx, netip.MustParsePrefix("198.51.100.0/24"), time.Hour, ""); err != nil {
					t.Fatal(err)
				}
				r.stop()
				clockBack = false
				tt.meanwhile(r.kernel)
				for source, b := range r.store.live {
					if clockBack { // what was stored then lies in the future now
						b.Since, b.Until = b.Since.Add(24*time.Hour), b.Until.Add(24*time.Hour)
						r.store.live[source] = b
					}
				}
				next := &rig{t: r.t, kernel: r.kernel, store: r.store, events: r.events}
				next.start(testConfig(), func(r *rig) { r.expect(tt.name, tt.want...) })
			})
		})
	}
}
