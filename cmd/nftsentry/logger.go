package main

import (
	"os"
	"slices"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"nftsentry/conf"
)

// Under attack there may be thousands of lines a second that say the same of
// others: of each message so many a second are written, and then every so
// manieth. The next line that is written says how many were left out.
const (
	sampleFirst = 100
	sampleEach  = 100
)

// newLogger writes to standard error: lines for a person on a terminal, JSON
// elsewhere, unless the configuration says which. The journal is told the level
// of each line. Its level can be changed.
func newLogger(cfg conf.Log, out *output) (*zap.Logger, zap.AtomicLevel) {
	human := cfg.Format == conf.Console || cfg.Format == conf.Auto && isTerminal(os.Stderr)
	enc := zapcore.EncoderConfig{
		TimeKey: "time", LevelKey: "level", NameKey: "part", MessageKey: "msg",
		EncodeLevel: zapcore.LowercaseLevelEncoder, EncodeTime: zapcore.RFC3339TimeEncoder,
		EncodeDuration: encodeDuration,
	}
	encoder := zapcore.NewJSONEncoder(enc)
	if human {
		enc.EncodeTime = zapcore.TimeEncoderOfLayout("15:04:05")
		enc.ConsoleSeparator = "  "
		encoder = zapcore.NewConsoleEncoder(enc)
	}
	if toJournal(out.messages) {
		encoder = &journalEncoder{encoder}
	}
	level := zap.NewAtomicLevelAt(cfg.Level)
	return zap.New(sampled(zapcore.NewCore(encoder, zapcore.Lock(zapcore.AddSync(out.messages)), level))), level
}

// sampled leaves lines out where there are too many.
func sampled(core zapcore.Core) zapcore.Core {
	left := new(atomic.Uint64)
	count := zapcore.SamplerHook(func(_ zapcore.Entry, d zapcore.SamplingDecision) {
		if d&zapcore.LogDropped != 0 {
			left.Add(1)
		}
	})
	return zapcore.NewSamplerWithOptions(&tellingCore{core, left}, time.Second, sampleFirst, sampleEach, count)
}

// A tellingCore says how many lines were left out before the one it writes.
type tellingCore struct {
	zapcore.Core
	left *atomic.Uint64
}

// With adds fields to all lines.
func (c *tellingCore) With(fields []zapcore.Field) zapcore.Core {
	return &tellingCore{c.Core.With(fields), c.left}
}

// Check takes a line if its level is logged.
func (c *tellingCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

// Write writes a line.
func (c *tellingCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	if n := c.left.Swap(0); n > 0 {
		fields = append(slices.Clip(fields), zap.Uint64("left_out", n))
	}
	return c.Core.Write(e, fields)
}

// encodeDuration writes whole seconds as the configuration has them.
func encodeDuration(d time.Duration, enc zapcore.PrimitiveArrayEncoder) {
	if d >= time.Second && d%time.Second == 0 {
		enc.AppendString(conf.FormatDuration(d))
		return
	}
	enc.AppendString(d.String())
}
