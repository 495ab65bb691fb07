package state

import (
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestSaveAll hands in many blocks, of which each is on record, in the mirror
// and in the history when the one call comes, and then has them end.
func TestSaveAll(t *testing.T) {
	for name, n := range map[string]int{"one": 1, "as many as a transaction has": commitChunk, "more": 2*commitChunk + 1} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				s := mustOpen(t, dir)
				stop := start(s)
				blocks, sources := make([]Block, n), make([]netip.Prefix, n)
				for i := range blocks {
					a := netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 14: byte(i >> 8), 15: byte(i)})
					sources[i] = netip.PrefixFrom(a, 128)
					blocks[i] = Block{Source: sources[i], Address: a, Since: time.Now(), Until: time.Now().Add(time.Hour), Origin: OriginOperator}
				}
				var told calls
				s.SaveAll(blocks, told.done("saved"))
				synctest.Wait()
				diff(t, "calls", []string{"saved"}, told.take())
				live, err := s.Live()
				if err != nil || len(live) != n {
					t.Errorf("%d live blocks, %v, want %d", len(live), err, n)
				}
				for _, name := range []string{tcpName, historyName} {
					if got := strings.Count(read(t, dir, name), "\n"); got != n {
						t.Errorf("%s has %d lines, want %d", name, got, n)
					}
				}
				s.EndAll(sources, time.Now(), true, told.done("ended"))
				time.Sleep(time.Minute) // a mirror is not rewritten all the time
				synctest.Wait()
				diff(t, "calls", []string{"ended"}, told.take())
				if live, err := s.Live(); err != nil || len(live) != 0 {
					t.Errorf("%d live blocks at the end, %v, want none", len(live), err)
				}
				if err := stop(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}
