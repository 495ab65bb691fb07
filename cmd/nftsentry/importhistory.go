package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"nftsentry/conf/portsentry"
	"nftsentry/state"
)

// maxOldHistory is how large a history of Portsentry's may be, in bytes: its lines are held in memory to be told apart.
const maxOldHistory = 256 << 20

// A historyMerge writes Portsentry's history in front of ours.
type historyMerge struct {
	w         *bufio.Writer
	strict    bool            // of 2.x: what is not understood is left out
	seen      map[string]bool // the keys of the old lines
	lines     int             // old ones that are written
	converted int             // of those, the ones of 2.x
	unblocked int             // lines of 2.x that tell of no block
	strange   int             // lines that are not understood
}

// mergeHistory puts the lines of Portsentry's history in front of ours, without those of ours that tell of the same
// blocks: the store has written one for each block that was taken over. Done again it changes nothing.
func (t *takeover) mergeHistory(ours string) error {
	var old []oldFile
	for _, f := range t.files {
		if f.history && !f.linked {
			old = append(old, f)
		}
	}
	if len(old) == 0 {
		return nil
	}
	m := &historyMerge{strict: t.config.Version == portsentry.V2, seen: make(map[string]bool)}
	err := replaceHistory(ours, func(w *bufio.Writer) error {
		m.w = w
		return errors.Join(m.old(old[0].path), m.own(ours))
	})
	if err != nil {
		return fmt.Errorf("the blocks are taken over, but not the history: %w", err)
	}
	m.report(t, old[0].path, ours)
	return nil
}

// report says what became of the lines.
func (m *historyMerge) report(t *takeover, path, ours string) {
	t.say("%s: %s in %s", path, plural(m.lines, "line"), ours)
	if m.converted > 0 {
		t.say("%s: %s of Portsentry 2.x, written as 1.2 does, without the kind of scan and the milliseconds", path, plural(m.converted, "line"))
	}
	if m.unblocked > 0 {
		t.say("%s: %s left out, of packets for which nobody was blocked: the format of Portsentry 1.2 cannot say that", path, plural(m.unblocked, "line"))
	}
	switch {
	case m.strange > 0 && m.strict:
		t.say("%s: %s left out, not of Portsentry 2.x", path, plural(m.strange, "line"))
	case m.strange > 0:
		t.say("%s: %s not of Portsentry 1.2, kept all the same", path, plural(m.strange, "line"))
	}
}

// old writes the lines of Portsentry's history.
func (m *historyMerge) old(path string) error {
	f, err := openOld(path)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil && info.Size() > maxOldHistory {
		err = fmt.Errorf("%s: larger than %d MiB: keep the older half of it elsewhere", path, maxOldHistory>>20)
	}
	if err == nil {
		err = eachHistoryLine(io.LimitReader(f, maxOldHistory), m.oldLine)
	}
	return errors.Join(err, f.Close())
}

// oldLine writes a line, of 2.x as one of 1.2. Its newline may be missing, when a crash has cut it short.
func (m *historyMerge) oldLine(line []byte) {
	text, whole := strings.CutSuffix(string(line), "\n")
	if e, err := portsentry.ParseEntry(text); err == nil {
		m.write(e.Key(), text)
		return
	}
	switch s, err := portsentry.ParseScan(text); {
	case err == nil && s.Blocked:
		m.converted++
		m.write(s.Key(), state.Line{Time: s.Time, Host: s.Host, Address: s.Address, Port: s.Port, Protocol: s.Protocol}.String())
	case err == nil:
		m.unblocked++
	case m.strict || !whole:
		m.strange++
	default:
		m.strange++
		m.write(text, text)
	}
}

func (m *historyMerge) write(key, text string) {
	m.seen[key] = true
	m.lines++
	m.w.WriteString(text + "\n") // an error stays in the writer
}

// own writes the lines of ours that are not among the old ones.
func (m *historyMerge) own(path string) error {
	f, err := openOld(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	err = eachHistoryLine(f, func(line []byte) {
		key, whole := strings.CutSuffix(string(line), "\n")
		if e, err := portsentry.ParseEntry(key); err == nil {
			key = e.Key()
		}
		if whole && !m.seen[key] {
			m.w.Write(line)
		}
	})
	return errors.Join(err, f.Close())
}

// eachHistoryLine calls a function with each line, its newline included.
func eachHistoryLine(r io.Reader, do func(line []byte)) error {
	for br := bufio.NewReaderSize(r, 64<<10); ; {
		line, err := br.ReadBytes('\n')
		if len(line) > 0 {
			do(line)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// replaceHistory puts a file with what write writes in the place of a history, all at once and synced, unless it has just
// that already. Only its owner may read it.
func replaceHistory(path string, write func(w *bufio.Writer) error) (err error) {
	temp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".import")
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 64<<10)
	err = errors.Join(write(w), w.Flush(), f.Sync(), f.Close())
	same := false
	if err == nil {
		same, err = sameContents(path, temp)
	}
	if err != nil || same {
		return errors.Join(err, os.Remove(temp))
	}
	return errors.Join(os.Rename(temp, path), syncFolder(filepath.Dir(path)))
}

// sameContents tells whether two files have the same bytes. One that is missing has none.
func sameContents(a, b string) (bool, error) {
	first, err := openOld(a)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	second, err := openOld(b)
	if err != nil {
		return false, errors.Join(err, first.Close())
	}
	same, err := equalReaders(first, second)
	return same, errors.Join(err, first.Close(), second.Close())
}

func equalReaders(a, b io.Reader) (bool, error) {
	var bufA, bufB [64 << 10]byte
	for {
		n, errA := io.ReadFull(a, bufA[:])
		m, errB := io.ReadFull(b, bufB[:])
		if !bytes.Equal(bufA[:n], bufB[:m]) {
			return false, nil
		}
		ended := errA == io.EOF || errA == io.ErrUnexpectedEOF
		switch {
		case ended:
			return true, nil
		case errA != nil || errB != nil:
			return false, errors.Join(errA, errB)
		}
	}
}
