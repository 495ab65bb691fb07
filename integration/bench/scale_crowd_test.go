//go:build bench

package bench

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// A crowd is sources that are blocked all at once.
type crowd struct {
	addrs []netip.Addr
	more  []netip.Addr // others that are not
	dir   string       // for files
}

// moreSources is how many sources are blocked one by one.
const moreSources = 20

// newCrowd has n IPv4 sources that are nobody's neighbours, the same each time.
func newCrowd(t testing.TB, n int) *crowd {
	t.Helper()
	random := rand.New(rand.NewPCG(1, 2))
	seen := make(map[netip.Addr]bool, n)
	addrs := make([]netip.Addr, 0, n+moreSources)
	for len(addrs) < cap(addrs) {
		r := random.Uint32()
		a := netip.AddrFrom4([4]byte{byte(r >> 24), byte(r >> 16), byte(r >> 8), byte(r)})
		if first := a.As4()[0]; first == 0 || first >= 224 || !a.IsGlobalUnicast() || a.IsPrivate() || seen[a] {
			continue
		}
		seen[a] = true
		addrs = append(addrs, a)
	}
	return &crowd{addrs: addrs[:n], more: addrs[n:], dir: t.TempDir()}
}

func (c *crowd) path(name string) string { return filepath.Join(c.dir, name) }

// sample are some of the crowd, the first and the last among them.
func (c *crowd) sample() (some []netip.Addr) {
	const enough = 64
	for i := range enough {
		some = append(some, c.addrs[i*(len(c.addrs)-1)/(enough-1)])
	}
	return some
}

// file writes a file of lines, each of at most so many of the crowd.
func (c *crowd) file(t testing.TB, name, head string, each int, line func(w io.Writer, some []netip.Addr), tail string) string {
	t.Helper()
	f, err := os.Create(c.path(name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := bufio.NewWriter(f)
	_, _ = w.WriteString(head) // Flush has the error
	for some := range slices.Chunk(c.addrs, each) {
		line(w, some)
	}
	_, _ = w.WriteString(tail)
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// lists are files with an address a line, of at most so many each.
func (c *crowd) lists(t testing.TB, most int) (files []string) {
	t.Helper()
	for part := range slices.Chunk(c.addrs, most) {
		name := fmt.Sprintf("sources%d.txt", len(files))
		files = append(files, (&crowd{addrs: part, dir: c.dir}).file(t, name, "", 1, func(w io.Writer, some []netip.Addr) {
			fmt.Fprintln(w, some[0])
		}, ""))
	}
	return files
}
