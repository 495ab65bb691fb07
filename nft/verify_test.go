package nft

import (
	"errors"
	"testing"
	"time"
)

// TestVerifyGone finds what is still blocked after it was let go, and passes
// over what the kernel has blocked anew by itself.
func TestVerifyGone(t *testing.T) {
	ours, kernels, gone := element("192.0.2.77/32", time.Hour, "operator"), element("2001:db8:7::/64", time.Hour, ""), element("192.0.2.78/32", time.Hour, "operator")
	_, table := load(t, enforce(), ours, kernels, gone)
	if err := table.Unblock(gone.Prefix); err != nil {
		t.Fatal(err)
	}
	if err := table.verifyGone([]Element{kernels, gone}); err != nil {
		t.Errorf("verifyGone of what is gone, or the kernel's own: %v", err)
	}
	if err := table.verifyGone([]Element{gone, ours}); !errors.Is(err, ErrNotApplied) {
		t.Errorf("verifyGone of what is there: %v, want ErrNotApplied", err)
	}
}

// TestVerifyNoMore finds an interval that nobody has asked for.
func TestVerifyNoMore(t *testing.T) {
	net := element("198.51.100.0/24", time.Hour, "operator")
	_, table := load(t, enforce(), net)
	if err := table.verifyNoMore(time.Now()); err != nil {
		t.Error(err)
	}
	delete(table.nets, net.Prefix)
	if err := table.verifyNoMore(time.Now()); !errors.Is(err, ErrNotApplied) {
		t.Errorf("verifyNoMore with one too many: %v, want ErrNotApplied", err)
	}
}

// TestBlockMany blocks many in one transaction, or none.
func TestBlockMany(t *testing.T) {
	_, table := load(t, enforce(), element("10.0.0.1/32", time.Minute, "old"))
	many := manyHosts(3000)
	many = append(many, element("198.51.100.0/24", time.Hour, "net"), element("2001:db8:7::/64", time.Hour, "six"))
	if err := table.Block(many...); err != nil {
		t.Fatal(err)
	}
	got, _, err := table.Blocked()
	if err != nil || len(got) != len(many) {
		t.Errorf("%d are blocked, %v, want %d", len(got), err, len(many))
	}
	for _, e := range got {
		if e.Timeout < 50*time.Minute {
			t.Errorf("%v has an old timeout", e)
		}
	}
	bad := append(manyHosts(10)[:9:9], element("203.0.113.0/24", time.Hour, "x"), element("10.0.0.0/32", 0, ""))
	if err := table.Block(bad...); err == nil {
		t.Error("one of many has no timeout: want an error")
	}
	if again, _, _ := table.Blocked(); len(again) != len(got) {
		t.Errorf("%d are blocked after an error, want %d", len(again), len(got))
	}
}
