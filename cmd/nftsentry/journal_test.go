package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sys/unix"

	"nftsentry/conf"
)

// TestJournal shows that each line has its level where the journal reads it, and
// only there.
func TestJournal(t *testing.T) {
	const told = "<7>debug\tprobe\n<6>info\tcontroller\tblock\n<4>warn\tfull\n<3>error\tcannot\n<4>nftsentry: a\n<4>nftsentry: b\n<3>nftsentry: end\n"
	tests := map[string]struct {
		stream func(unix.Stat_t) string
		want   string
	}{
		"the journal": {func(s unix.Stat_t) string { return fmt.Sprintf("%d:%d", s.Dev, s.Ino) }, told},
		"another file": {func(s unix.Stat_t) string { return fmt.Sprintf("%d:%d", s.Dev, s.Ino+1) },
			"debug\tprobe\ninfo\tcontroller\tblock\nwarn\tfull\nerror\tcannot\nnftsentry: a\nnftsentry: b\nnftsentry: end\n"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			var stat unix.Stat_t
			if err := unix.Fstat(int(f.Fd()), &stat); err != nil {
				t.Fatal(err)
			}
			t.Setenv("JOURNAL_STREAM", tt.stream(stat))
			writeEachLevel(&output{messages: f})
			got, err := os.ReadFile(f.Name())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, clock.ReplaceAllString(strings.ReplaceAll(string(got), "  ", "\t"), "")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// clock is the time that a line for a person begins with.
var clock = regexp.MustCompile(`\d\d:\d\d:\d\d\t`)

// writeEachLevel writes a line of each level, and messages of both kinds.
func writeEachLevel(out *output) {
	log, _ := newLogger(conf.Log{Level: zapcore.DebugLevel, Format: conf.Console}, out)
	log.Debug("probe")
	log.Named("controller").With(zap.Skip()).Info("block")
	log.Warn("full")
	log.Error("cannot")
	out.message(errors.New("a\nb"))
	out.finish(errors.New("end"))
}
