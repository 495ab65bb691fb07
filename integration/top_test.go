package integration

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// A screen is a terminal on which top runs.
type screen struct {
	*os.File
	t      *testing.T
	cmd    *exec.Cmd
	before *unix.Termios
	shown  lockedBuffer
	read   errgroup.Group
}

func (p *program) screen(t *testing.T) *screen {
	t.Helper()
	ptmx, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	s := &screen{File: ptmx, t: t, cmd: p.host.Command(os.Getenv(programEnv), "top", "-c", p.conf)}
	s.resize(80, 24)
	if s.before, err = unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS); err != nil {
		t.Fatal(err)
	}
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = tty, tty, tty
	s.cmd.Env = append(os.Environ(), "TERM=xterm-256color")
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Pdeathsig: unix.SIGKILL}
	p.host.Start(t, s.cmd)
	s.read.Go(func() error {
		_, _ = io.Copy(&s.shown, ptmx) // ends with the terminal
		return nil
	})
	t.Cleanup(func() {
		_ = tty.Close()
		_ = ptmx.Close()
		_ = s.read.Wait()
	})
	return s
}

func (s *screen) resize(width, height uint16) {
	s.t.Helper()
	if err := pty.Setsize(s.File, &pty.Winsize{Cols: width, Rows: height}); err != nil {
		s.t.Fatal(err)
	}
}

// shows waits until a text has been drawn.
func (s *screen) shows(text string) {
	s.t.Helper()
	eventually(s.t, "the screen shows "+text, patience, func() bool { return strings.Contains(s.shown.String(), text) })
}

// expectEnd compares how top ends, and that the terminal is as it was.
func (s *screen) expectEnd(code int, message string) {
	s.t.Helper()
	timer := time.AfterFunc(patience, func() { _ = s.cmd.Process.Kill() })
	defer timer.Stop()
	_ = s.cmd.Wait() // the exit status tells
	if got := s.cmd.ProcessState.ExitCode(); got != code {
		s.t.Errorf("exit status %d, want %d", got, code)
	}
	after, err := unix.IoctlGetTermios(int(s.Fd()), unix.TCGETS)
	if err != nil {
		s.t.Fatal(err)
	}
	if diff := cmp.Diff(s.before, after); diff != "" {
		s.t.Errorf("the terminal is another one (-before +after):\n%s", diff)
	}
	const alternate, normal, cursor = "\x1b[?1049h", "\x1b[?1049l", "\x1b[?25h"
	eventually(s.t, "the screen is as it was", patience, func() bool {
		_, rest, there := strings.Cut(s.shown.String(), alternate)
		_, rest, back := strings.Cut(rest, normal)
		return there && back && strings.Contains(rest, message) && strings.LastIndex(s.shown.String(), cursor) > strings.LastIndex(s.shown.String(), "\x1b[?25l")
	})
	if bytes.Contains([]byte(s.shown.String()), []byte("goroutine ")) {
		s.t.Errorf("a stack: %q", s.shown.String())
	}
}

// TestTop runs top on a terminal, has it show a block and let it go, and ends
// it in every way there is.
func TestTop(t *testing.T) {
	w := newWorld(t)
	d := guard(t, w.server, "")
	t.Run("keys", func(t *testing.T) {
		s := d.screen(t)
		s.shows("no problems")
		_, _ = touch(w.client, "", server4, 23)
		s.shows(client4)
		s.shows("tcp/23")
		s.resize(120, 40)
		_, _ = touch(w.client, "", server6, 23)
		s.shows("2001:db8:8::/64")
		if _, err := s.WriteString("/" + client4 + "\ru"); err != nil {
			t.Fatal(err)
		}
		s.shows("let " + client4 + " go")
		if _, err := s.WriteString("y"); err != nil {
			t.Fatal(err)
		}
		eventually(t, "one block is left", patience, func() bool { return len(d.sources()) == 1 })
		if _, err := s.WriteString("q"); err != nil {
			t.Fatal(err)
		}
		s.expectEnd(0, "")
	})
	for name, end := range map[string]func(s *screen) error{
		"control-c": func(s *screen) error { _, err := s.WriteString("\x03"); return err },
		"SIGINT":    func(s *screen) error { return s.cmd.Process.Signal(unix.SIGINT) },
		"SIGTERM":   func(s *screen) error { return s.cmd.Process.Signal(unix.SIGTERM) },
		"SIGQUIT":   func(s *screen) error { return s.cmd.Process.Signal(unix.SIGQUIT) },
		"SIGHUP":    func(s *screen) error { return s.cmd.Process.Signal(unix.SIGHUP) },
	} {
		t.Run(name, func(t *testing.T) {
			s := d.screen(t)
			s.shows("no problems")
			if err := end(s); err != nil {
				t.Fatal(err)
			}
			s.expectEnd(0, "")
		})
	}
	t.Run("end of the daemon", func(t *testing.T) {
		s := d.screen(t)
		s.shows("no problems")
		d.end(unix.SIGTERM)
		s.expectEnd(1, "nftsentry is not running any more")
	})
}
