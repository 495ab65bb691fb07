package compat

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// DefaultPath is where syslogd, or the journal in its place, takes messages.
const DefaultPath = "/dev/log"

const (
	queued   = 1024        // lines that may wait
	patience = time.Second // with a syslogd that does not read
	tag      = "portsentry"
	priority = 3<<3 | 5 // LOG_DAEMON and LOG_NOTICE, RFC 3164 section 4.1.1
)

// A Log writes lines to syslog. A line that finds the queue full, or no
// syslogd, is lost and counted. package log/syslog waits for ever for a syslogd
// that does not read.
type Log struct {
	path  string
	log   *zap.Logger
	lines chan string // closed by nobody; a full one loses what comes
	lost  atomic.Uint64

	// These belong to Run.
	conn   net.Conn
	stream bool // conn needs an end of each message
	failed bool // the last line was lost for want of a syslogd
}

// New makes a Log for the socket at path. It connects when there is a line.
func New(path string, log *zap.Logger) *Log {
	return &Log{path: path, log: log, lines: make(chan string, queued)}
}

// Tell hands in a line. It never waits, and may be called by many at once.
func (l *Log) Tell(line string) {
	select {
	case l.lines <- line:
	default:
		l.lost.Add(1)
	}
}

// Lost is how many lines were lost.
func (l *Log) Lost() uint64 { return l.lost.Load() }

// Run writes lines until ctx ends, and then those that wait. It returns nil.
func (l *Log) Run(ctx context.Context) error {
	defer l.hangUp()
	for {
		select {
		case line := <-l.lines:
			l.write(line)
		case <-ctx.Done():
			l.drain()
			return nil
		}
	}
}

// drain writes what waits, unless nobody takes it.
func (l *Log) drain() {
	for {
		select {
		case line := <-l.lines:
			l.write(line)
		default:
			return
		}
		if l.failed {
			return
		}
	}
}

func (l *Log) write(line string) {
	now := time.Now()
	err := l.try(now, line)
	if err != nil && l.conn == nil { // syslogd was restarted since the last line
		err = l.try(now, line)
	}
	if err != nil {
		l.lost.Add(1)
	}
	if err != nil && !l.failed {
		l.log.Warn("cannot write portsentry's lines to syslog: they are lost until it can be reached", zap.String("socket", l.path), zap.Error(err))
	}
	l.failed = err != nil
}

// try writes one line, and hangs up after an error.
func (l *Log) try(now time.Time, line string) error {
	if err := l.connect(); err != nil {
		return err
	}
	if err := l.conn.SetWriteDeadline(now.Add(patience)); err != nil {
		return err
	}
	message := fmt.Sprintf("<%d>%s %s[%d]: %s", priority, now.Format(time.Stamp), tag, os.Getpid(), line)
	if l.stream {
		message += "\n"
	}
	if _, err := l.conn.Write([]byte(message)); err != nil {
		l.hangUp()
		return err
	}
	return nil
}

// connect takes whatever kind of socket there is.
func (l *Log) connect() (err error) {
	if l.conn != nil {
		return nil
	}
	l.conn, err = net.DialTimeout("unixgram", l.path, patience)
	l.stream = errors.Is(err, unix.EPROTOTYPE)
	if l.stream {
		l.conn, err = net.DialTimeout("unix", l.path, patience)
	}
	if err != nil {
		l.conn = nil // no nil of a type
	}
	return err
}

func (l *Log) hangUp() {
	if l.conn != nil {
		_ = l.conn.Close()
		l.conn = nil
	}
}
