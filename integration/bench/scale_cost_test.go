//go:build bench

package bench

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"nftsentry/integration/netns"
)

// A cost is what something has taken.
type cost struct {
	took time.Duration
	peak int  // resident memory of all processes at the most, in bytes; 0 if there is none
	cut  bool // it was cut off
}

// plus is the cost of one after the other.
func (c cost) plus(d cost) cost {
	return cost{took: c.took + d.took, peak: max(c.peak, d.peak), cut: c.cut || d.cut}
}

// spend runs a command, with files for input and output; "" is none.
//
// It runs under time(1): Linux counts the memory of whoever starts a program,
// until it is started, as the program's own, and that of a test is large.
func spend(t testing.TB, host *netns.Host, in, out string, args ...string) (c cost) {
	t.Helper()
	memory := filepath.Join(t.TempDir(), "memory")
	cmd := host.Command(netns.Tool(t, "time"), append([]string{"-f", "%M", "-o", memory}, args...)...)
	cmd.SysProcAttr.Setpgid = true
	var problems bytes.Buffer
	cmd.Stderr = &problems
	if in != "" {
		cmd.Stdin = open(t, in, os.O_RDONLY)
	}
	if out != "" {
		cmd.Stdout = open(t, out, os.O_CREATE|os.O_TRUNC|os.O_WRONLY)
	}
	var cut atomic.Bool
	began := time.Now()
	host.Start(t, cmd)
	timer := time.AfterFunc(tooLong, func() {
		cut.Store(true)
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	})
	err := cmd.Wait()
	c.took = time.Since(began)
	timer.Stop()
	if c.cut = cut.Load(); c.cut {
		return c
	}
	if err != nil {
		t.Fatalf("%v: %v\n%s", args, err, problems.Bytes())
	}
	text, err := os.ReadFile(memory)
	if err != nil {
		t.Fatal(err)
	}
	kibibytes, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	c.peak = kibibytes << 10
	return c
}

// open opens a file until the test ends.
func open(t testing.TB, name string, flags int) *os.File {
	t.Helper()
	f, err := os.OpenFile(name, flags, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// dots counts the dots in a file: three for each IPv4 address.
func dots(t testing.TB, name string) (n int) {
	t.Helper()
	f := open(t, name, os.O_RDONLY)
	buf := make([]byte, 1<<20)
	for {
		more, err := f.Read(buf)
		n += bytes.Count(buf[:more], []byte("."))
		if errors.Is(err, io.EOF) {
			return n
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// How many blocks must be in place so that what each weighs is more than noise:
// all that a machine does makes and frees memory of its kernel.
const (
	fewToWeigh     = 10_000
	fewInTheKernel = 100_000
)

// A holding is what a keeper holds, in bytes.
type holding struct {
	kernel, resident int
	files            map[string]int // by name
}

// held weighs it, once the kernel has come to rest.
func (g *keeping) held(t testing.TB) holding {
	t.Helper()
	h := holding{kernel: settle(t), files: make(map[string]int)}
	if g.pids != nil {
		h.resident = usageOf(t, g.pids()).rss
	}
	names, _ := filepath.Glob(filepath.Join(g.dir, "*"))
	for _, name := range names {
		if info, err := os.Stat(name); err == nil && g.dir != "" {
			h.files[filepath.Base(name)] = int(info.Size())
		}
	}
	return h
}

// since hands on what each of n blocks has added.
func (h holding) since(before holding, n int, add func(measure, unit string, values ...float64)) {
	if n < fewToWeigh {
		return
	}
	each := func(bytes int) float64 { return float64(bytes) / float64(n) }
	if n >= fewInTheKernel && h.kernel > before.kernel { // or else something large has ended meanwhile
		add("kernel memory a block", "B", each(h.kernel-before.kernel))
	}
	if before.resident > 0 {
		add("resident memory a block", "B", each(h.resident-before.resident))
	}
	for name, size := range h.files {
		if each(size) >= 1 {
			add(name+" a block", "B", each(size-before.files[name]))
		}
	}
}

// settle waits until the kernel is at rest, for a few seconds, and returns what
// its memory comes to.
func settle(t testing.TB) (bytes int) {
	t.Helper()
	const still, steps = 256 << 10, 30
	last, calm := kernelMemory(t), 0
	for i := 0; i < steps && calm < 3; i++ {
		time.Sleep(100 * time.Millisecond)
		now := kernelMemory(t)
		if calm++; now-last > still || last-now > still {
			calm = 0
		}
		last = now
	}
	return last
}

// vacate waits until the kernel has given back what n elements took that are
// gone, which it does a while later, for a few seconds.
func vacate(t testing.TB, before, n int) {
	t.Helper()
	const steps, rest = 100, 10 // the rest in bytes an element
	for i := 0; i < steps && kernelMemory(t) > before+rest*max(n, fewInTheKernel); i++ {
		time.Sleep(100 * time.Millisecond)
	}
}

// kernelMemory is what sets are made of: elements are slabs, and the tables
// that find them are slabs or, if they are large, virtual memory.
func kernelMemory(t testing.TB) (bytes int) {
	t.Helper()
	info, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		t.Fatal(err)
	}
	return (field(info, "SUnreclaim:") + field(info, "VmallocUsed:")) << 10
}

func mebibytes(bytes int) float64 { return float64(bytes) / (1 << 20) }
