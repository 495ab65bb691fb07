package main

import (
	"bytes"
	"encoding/json"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"nftsentry/conf"
)

// TestLoggerSampled shows that a flood of one message leaves room for others,
// and that it is said how many lines are missing.
func TestLoggerSampled(t *testing.T) {
	var text bytes.Buffer
	log, _ := newLogger(conf.Log{Level: zapcore.InfoLevel, Format: conf.JSON}, &output{messages: &text})
	log = log.Named("controller")
	const flood = 10000
	for i := range flood {
		log.With(zap.Int("i", i)).Info("block")
	}
	log.Warn("something else", zap.String("what", "x"))
	lines, left, others := 0, 0, 0
	for dec := json.NewDecoder(&text); dec.More(); {
		var line struct {
			Msg, Part, What string
			LeftOut         int `json:"left_out"`
		}
		if err := dec.Decode(&line); err != nil {
			t.Fatal(err)
		}
		if line.Part != "controller" {
			t.Errorf("%+v has lost its part", line)
		}
		lines++
		left += line.LeftOut
		if line.Msg == "something else" && line.What == "x" {
			others++
		}
	}
	if lines+left != flood+1 || others != 1 || lines > flood/10 {
		t.Errorf("%d lines, %d left out of %d, the other message %d times", lines, left, flood+1, others)
	}
}

// TestLoggerQuiet shows that what is not logged costs no line and no count.
func TestLoggerQuiet(t *testing.T) {
	var text bytes.Buffer
	log, level := newLogger(conf.Log{Level: zapcore.InfoLevel, Format: conf.Console}, &output{messages: &text})
	for range 1000 {
		log.Debug("probe")
	}
	log.Info("start")
	if got := bytes.Count(text.Bytes(), []byte("\n")); got != 1 || bytes.Contains(text.Bytes(), []byte("left_out")) {
		t.Errorf("wrote %q", text.String())
	}
	level.SetLevel(zapcore.DebugLevel)
	log.Debug("probe")
	if !bytes.Contains(text.Bytes(), []byte("probe")) {
		t.Errorf("the level did not change: %q", text.String())
	}
}
