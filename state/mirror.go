package state

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"time"
)

// rewriteShare bounds the part of the time that goes into rewriting a mirror: after a rewrite that took d the next one
// begins no sooner than rewriteShare x d after the last one began. With few blocks that is a few milliseconds.
const rewriteShare = 20

// slowRewrite is how long a rewrite may take for which somebody who has ended a block waits, and so, by rewriteShare, the
// time until it begins. A larger file follows on its own.
const slowRewrite = 10 * time.Millisecond

// mirror is a text file with a line for each live block, portsentry.blocked.tcp or .udp, which everybody may read.
// Scripts read it. What others do to it stays until the next write, which makes the file anew from the store. It belongs
// to the goroutine that writes.
type mirror struct {
	path    string
	udp     bool           // it shows blocks by UDP, or else all others
	fresh   []byte         // lines to append
	gone    map[string]int // lines to take out, and how many times
	waiting []func(error)  // to be told when those are out
	stale   bool           // the file may differ from the store: make it anew
	seen    os.FileInfo    // of the file as it was written
	took    time.Duration  // the last rewrite
	due     time.Time      // the next rewrite is not before this
}

// add appends the line at the next write.
func (m *mirror) add(line string) {
	m.fresh = append(append(m.fresh, line...), '\n')
}

// drop takes the line out at the next rewrite and calls done then, which may be nil.
func (m *mirror) drop(line string, done func(error)) {
	if m.gone == nil {
		m.gone = make(map[string]int)
	}
	m.gone[line+"\n"]++
	if done != nil {
		m.waiting = append(m.waiting, done)
	}
}

// write brings the file up to date. Lines that must go may stay until m.due, unless all is set. Live gives the rows of all live
// blocks, the oldest first, and is called only if the file must be made anew.
func (m *mirror) write(live liveRows, all bool) error {
	if m.took > slowRewrite {
		m.tell(nil)
	}
	err := m.update(live, all)
	m.stale = err != nil
	if err == nil && len(m.gone) > 0 {
		return nil // the rewrite is yet to come
	}
	m.gone = nil
	m.tell(err)
	return err
}

// tell calls the functions that wait for lines to go.
func (m *mirror) tell(err error) {
	for _, done := range m.waiting {
		settle(done, err)
	}
	m.waiting = nil
}

func (m *mirror) update(live liveRows, all bool) error {
	began := time.Now()
	due := len(m.gone) > 0 && (all || !began.Before(m.due))
	if !m.stale && len(m.fresh) == 0 && !due {
		return nil
	}
	m.stale = m.stale || m.isForeign()
	defer m.look()
	if len(m.fresh) > 0 && !m.stale {
		err := appendLines(m.path, 0, 0, m.fresh, false)
		m.stale = errors.Is(err, fs.ErrNotExist)
		if err != nil && !m.stale {
			return err
		}
	}
	m.fresh = nil
	switch {
	case m.stale:
		if err := m.rebuild(live); err != nil {
			return err
		}
	case due:
		if err := m.filter(live); err != nil {
			return err
		}
	default:
		return nil
	}
	m.gone = nil
	m.took = time.Since(began)
	m.due = nextRewrite(began, m.took)
	return nil
}

// look takes note of the file as it is.
func (m *mirror) look() {
	m.seen, _ = os.Lstat(m.path) // nil is another file than any
}

// isForeign tells whether others have written to the file.
func (m *mirror) isForeign() bool {
	info, err := os.Lstat(m.path)
	return err != nil || m.seen == nil || !os.SameFile(info, m.seen) ||
		info.Size() != m.seen.Size() || !info.ModTime().Equal(m.seen.ModTime())
}

// nextRewrite is when a rewrite may follow one that began then and took so long.
func nextRewrite(began time.Time, took time.Duration) time.Time {
	return began.Add(rewriteShare * took)
}

// rebuild makes the file from the store.
func (m *mirror) rebuild(live liveRows) error {
	rows, err := live()
	if err != nil {
		return err
	}
	return replaceFile(m.path, 0o644, func(w *bufio.Writer) error {
		for i := range rows {
			if r := &rows[i]; r.udp == m.udp {
				w.WriteString(r.line()) // an error stays in the writer
				w.WriteByte('\n')
			}
		}
		return nil
	})
}

// liveRows gives the rows of all live blocks, the oldest first.
type liveRows func() ([]row, error)

// row is what a line is made of, in 32 bytes without a pointer: there may be millions of them at once.
type row struct {
	since   int64    // nanoseconds since 1970
	address [16]byte // an IPv4 address is mapped
	port    uint16
	udp     bool
}

func (r *row) compare(o *row) int {
	if c := cmp.Compare(r.since, o.since); c != 0 {
		return c
	}
	return bytes.Compare(r.address[:], o.address[:])
}

// rows are those of all live blocks that have a line, the oldest first.
func (s *Store) rows() ([]row, error) {
	n, err := s.database().countLive()
	if err != nil {
		return nil, err
	}
	rows := make([]row, 0, n)
	err = s.visit(func(b Block) {
		if b.Address.IsValid() {
			rows = append(rows, row{b.Since.UnixNano(), b.Address.As16(), b.Port, b.Protocol == "udp"})
		}
	})
	slices.SortFunc(rows, func(a, b row) int { return a.compare(&b) })
	return rows, err
}

func (r *row) line() string {
	b := Block{Since: time.Unix(0, r.since), Address: netip.AddrFrom16(r.address).Unmap(), Port: r.port}
	if r.udp {
		b.Protocol = "udp"
	}
	return FormatLine(b)
}

// filter makes the file from itself, without the lines that must go: at 65,536 lines ten times faster than rebuild.
func (m *mirror) filter(live liveRows) error {
	f, err := openFile(m.path, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return m.rebuild(live)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	return replaceFile(m.path, 0o644, func(w *bufio.Writer) error {
		return dropLines(w, bufio.NewReaderSize(f, 64<<10), m.gone)
	})
}

// dropLines copies r to w but for the lines in gone, each as many times as gone says; it counts them down.
func dropLines(w *bufio.Writer, r *bufio.Reader, gone map[string]int) error {
	for {
		line, err := r.ReadSlice('\n')
		if gone[string(line)] > 0 {
			gone[string(line)]--
		} else {
			w.Write(line) // an error stays in the writer
		}
		if err == io.EOF {
			return nil
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) { // a line so long is not ours
			return err
		}
	}
}
