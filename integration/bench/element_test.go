//go:build bench

package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"nftsentry/nft"
)

// elementTime has sources connect to a decoy of nftsentry, one after the other:
// from connect(2) until the element is in the kernel.
func elementTime(t *testing.T, r *recorder, blocks int) {
	for _, hang := range []bool{false, true} {
		for _, family := range []struct{ name, server, set, prefix string }{
			{"IPv4", server4, "blocked4", "10.8.%d.%d/16"},
			{"IPv6", server6, "blocked6", "2001:db8:8::%x:%x/64"},
		} {
			kase := "connect to element, " + family.name + inPlace(blocks)
			config := "[block]\nprefix6 = 128\n"
			if hang {
				kase += ", a hook hangs"
				config += hangingHook(t)
			}
			t.Run(kase, func(t *testing.T) {
				w := newWorld(t)
				d := startSentry(t, w.server, config)
				d.fill(t, blocks)
				kernel := newSetReader(t, w.server, inet, nft.TableName, family.set)
				for _, a := range w.sources(t, family.prefix, 500) {
					r.add(kase, sentry.name, "time", "ms", milliseconds(touch(t, w, kernel, family.server, a)))
				}
			})
		}
	}
}

// hangingHook is the configuration of a hook that never ends.
func hangingHook(t testing.TB) string {
	t.Helper()
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("[[hook.exec]]\ncommand = [%q, \"1000\"]\ntimeout = \"10m\"\nlimit = \"100000/m\"\n", sleep)
}

// fill blocks hosts that never come.
func (d *daemon) fill(t testing.TB, blocks int) {
	t.Helper()
	if blocks == 0 {
		return
	}
	var list strings.Builder
	for i := range blocks {
		fmt.Fprintln(&list, stranger(i))
	}
	file := filepath.Join(d.dir, "blocks")
	if err := os.WriteFile(file, []byte(list.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	d.must(t, "block", "--file", file, "--timeout", "1h")
}
