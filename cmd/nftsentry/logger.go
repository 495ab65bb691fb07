package main

import (
	"os"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"nftsentry/conf"
)

// newLogger writes to standard error: lines for a person on a terminal, JSON
// elsewhere, unless the configuration says which. Its level can be changed.
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
	level := zap.NewAtomicLevelAt(cfg.Level)
	return zap.New(zapcore.NewCore(encoder, zapcore.Lock(zapcore.AddSync(out.messages)), level)), level
}

// encodeDuration writes whole seconds as the configuration has them.
func encodeDuration(d time.Duration, enc zapcore.PrimitiveArrayEncoder) {
	if d >= time.Second && d%time.Second == 0 {
		enc.AppendString(conf.FormatDuration(d))
		return
	}
	enc.AppendString(d.String())
}
