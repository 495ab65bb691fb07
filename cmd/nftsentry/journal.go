package main

import (
	"fmt"
	"io"
	"os"

	"go.uber.org/zap/buffer"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sys/unix"
)

// toJournal tells whether messages go to systemd's journal, which says in
// JOURNAL_STREAM which file that is. A program that inherits the variable and
// writes elsewhere does not.
func toJournal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	var stat unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &stat); err != nil {
		return false
	}
	return os.Getenv("JOURNAL_STREAM") == fmt.Sprintf("%d:%d", stat.Dev, stat.Ino)
}

// A journalEncoder puts before each line its priority as the journal wants it,
// see sd-daemon(3); the journal takes it off again.
type journalEncoder struct{ zapcore.Encoder }

// Clone copies the encoder.
func (e *journalEncoder) Clone() zapcore.Encoder { return &journalEncoder{e.Encoder.Clone()} }

// EncodeEntry makes a line.
func (e *journalEncoder) EncodeEntry(entry zapcore.Entry, fields []zapcore.Field) (*buffer.Buffer, error) {
	line, err := e.Encoder.EncodeEntry(entry, fields)
	if err != nil {
		return nil, err
	}
	defer line.Free()
	prefixed := buffers.Get()
	prefixed.AppendString(priority(entry.Level))
	prefixed.AppendBytes(line.Bytes())
	return prefixed, nil
}

var buffers = buffer.NewPool()

// priority is that of syslog(3) for a level.
func priority(level zapcore.Level) string {
	switch {
	case level >= zapcore.ErrorLevel:
		return "<3>"
	case level == zapcore.WarnLevel:
		return "<4>"
	case level == zapcore.InfoLevel:
		return "<6>"
	}
	return "<7>"
}
