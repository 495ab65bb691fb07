package state

import (
	"bytes"
	"io"
	"os"
	"strings"
)

// owedLimit bounds the lines, in bytes, that are kept for a history that cannot be written: some 26,000 blocks, and
// wholeChunk of them in any case.
const owedLimit = 2 << 20

// owed is what the history still lacks. It is committed with the blocks that the lines tell of, so that after a crash
// in between each line is written once and only once.
type owed struct {
	Offset int64  `json:"offset"` // the size of the file that the lines go to
	Lines  string `json:"lines"`  // whole lines
}

// history is portsentry.history: one line for each block there ever was, for the daemon's user alone, as Portsentry has
// it. Others may rotate it. It belongs to the goroutine that writes.
type history struct {
	path  string
	owed  owed
	stale bool // whether it ends in a whole line is not known
}

// owe is what the file lacks with these lines too. Of more than owedLimit the oldest are given up.
func (h *history) owe(lines string) owed {
	o := owed{h.owed.Offset, h.owed.Lines + lines}
	if h.owed.Lines == "" {
		o.Offset = h.size()
	}
	if over := len(o.Lines) - owedLimit; over > 0 {
		o.Lines = o.Lines[over+strings.IndexByte(o.Lines[over:], '\n')+1:]
	}
	return o
}

// size is the size of the file. Where it cannot be told a crash before the next write could cost the lines owed.
func (h *history) size() int64 {
	info, err := os.Lstat(h.path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// write appends what the file lacks, with fsync. After an error it is tried again at the next write.
func (h *history) write() error {
	if h.owed.Lines == "" && !h.stale {
		return nil
	}
	err := appendLines(h.path, os.O_CREATE, 0o600, []byte(h.owed.Lines), true)
	h.stale = err != nil
	if err == nil {
		h.owed = owed{}
	}
	return err
}

// resume takes up what a crash may have cut short: o is what the store says was owed with the last new block. If the
// file goes on from there with a part of those lines, it lacks the rest. If not, it has them, or was rotated since.
func (h *history) resume(o owed) error {
	h.stale = true
	f, err := openFile(h.path, os.O_RDONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	tail, err := io.ReadAll(io.NewSectionReader(f, o.Offset, int64(len(o.Lines))+1))
	if err != nil || h.size() < o.Offset || !strings.HasPrefix(o.Lines, string(tail)) {
		return err
	}
	whole := bytes.LastIndexByte(tail, '\n') + 1
	h.owed = owed{o.Offset + int64(whole), o.Lines[whole:]}
	return nil
}
