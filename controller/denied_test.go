package controller

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"nftsentry/nft"
)

// denials are what may be the first that a kernel denies, and how long it
// takes until that is known.
var denials = []struct {
	name string
	do   func(o *ordeal)
	wait time.Duration
}{
	{"a connection to a decoy", func(o *ordeal) { o.touch("203.0.113.10", 23) }, 0},
	{"an operator blocks", func(o *ordeal) { o.denied(errOf(o.Block(o.ctx, source("203.0.113.20"), time.Hour, ""))) }, 0},
	{"an operator blocks many", func(o *ordeal) {
		o.denied(errOf(o.BlockMany(o.ctx, []netip.Prefix{source("203.0.113.20"), source("203.0.113.21")}, time.Hour, "")))
	}, 0},
	{"an operator unblocks", func(o *ordeal) { o.denied(errOf(o.Unblock(o.ctx, source("203.0.113.1")))) }, 0},
	{"the host changes", func(o *ordeal) { o.denied(o.SetHost(o.ctx, testHost())) }, 0},
	{"reload", func(o *ordeal) { o.denied(errOf(o.Reconfigure(o.ctx, faultConfig(), nil))) }, 0},
	{"somebody touches the table", func(o *ordeal) { o.changes <- nft.Change{Shape: true} }, 0},
	{"somebody deletes the table", func(o *ordeal) { o.changes <- nft.Change{All: true} }, 0},
	{"events are lost", func(o *ordeal) { o.missed <- struct{}{} }, 10 * time.Second},
	{"nothing at all", func(*ordeal) {}, learnEvery},
}

func errOf[T any](_ T, err error) error { return err }

// denied is what whoever asked for something is told.
func (o *ordeal) denied(err error) {
	o.t.Helper()
	if !errors.Is(err, o.fault.err) {
		o.t.Errorf("answer %v, want %v", err, o.fault.err)
	}
}

// TestDenied has the kernel deny everything: the controller ends with one
// clear error, however it comes to know, in place of trying on for ever.
func TestDenied(t *testing.T) {
	for _, err := range []error{unix.EPERM, unix.EACCES} {
		for _, d := range denials {
			t.Run(fmt.Sprint(d.name, ", ", err), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { deny(t, err, d.do, d.wait) })
			})
		}
	}
}

func deny(t *testing.T, err error, do func(*ordeal), wait time.Duration) {
	o := newOrdeal(t, true, fault{when: before, err: err, lasting: true})
	o.kernel.faults = nil
	o.Controller = New(faultConfig(), false, testHost(), o.kernel, o.store, nil, o.log)
	if err := o.Restore(); err != nil {
		t.Fatal(err)
	}
	o.kernel.faults = []fault{o.fault}
	o.ctx = t.Context()
	var g errgroup.Group
	ended := false
	g.Go(func() error {
		defer func() { ended = true }()
		return o.Run(o.ctx, o.events, o.missed, o.changes)
	})
	do(o)
	time.Sleep(wait)
	synctest.Wait()
	if !ended {
		t.Fatal("the controller goes on")
	}
	if got := g.Wait(); !errors.Is(got, ErrDenied) || !errors.Is(got, err) {
		t.Errorf("Run = %v, want %v of %v", got, ErrDenied, err)
	}
	if n := o.logs.FilterLevelExact(zap.ErrorLevel).Len(); n != 1 {
		t.Errorf("%d errors are logged, want one: %v", n, o.logs.All())
	}
}
