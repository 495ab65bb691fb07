package api

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

func TestClientWithoutDaemon(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sock")
	_, err := NewClient(path).Status(t.Context())
	if want := "nftsentry is not running (nobody answers on " + path + `): start it with "nftsentry run"`; !errors.Is(err, ErrNoDaemon) || err.Error() != want {
		t.Errorf("error %v, want %q", err, want)
	}
}

// TestClientSocketError names paths where no daemon can ever answer.
// TestClientAbandoned has a daemon that ends when it is asked.
func TestClientAbandoned(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var g errgroup.Group
	g.Go(func() error {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		_, err = conn.Read(make([]byte, 4096))
		return errors.Join(err, conn.Close(), l.Close())
	})
	_, err = NewClient(path).Status(t.Context())
	if err == nil || !strings.Contains(err.Error(), path+": the daemon went away before it answered") {
		t.Errorf("got %v", err)
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

func TestClientSocketError(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	long := "/" + strings.Repeat("x", 107)
	const other = ": not a socket: name the control socket of the daemon, such as /run/nftsentry/control.sock"
	for path, want := range map[string]string{
		file:                         file + other,
		dir:                          dir + other,
		filepath.Join(file, "below"): file + "/below" + other,
		long:                         long + ": too long for a socket: at most 107 bytes",
	} {
		var wrong *SocketError
		if _, err := NewClient(path).Status(t.Context()); !errors.As(err, &wrong) || err.Error() != want {
			t.Errorf("Status on %s: error %v, want %q", path, err, want)
		}
	}
	if _, err := NewClient(long[:107]).Status(t.Context()); !errors.Is(err, ErrNoDaemon) {
		t.Errorf("Status on a path of 107 bytes: %v, want ErrNoDaemon", err)
	}
}

// TestClientOfOthers asks sockets that are not those of a daemon.
func TestClientOfOthers(t *testing.T) {
	dir := t.TempDir()
	datagrams := filepath.Join(dir, "datagrams")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: datagrams, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := NewClient(datagrams).Status(t.Context()); err == nil || err.Error() != "ask "+datagrams+": connect: protocol wrong type for socket" {
		t.Errorf("Status on a socket of datagrams: %v", err)
	}

	silent := filepath.Join(dir, "silent")
	l, err := net.Listen("unix", silent)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client := NewClient(silent)
	client.http.Timeout = 10 * time.Millisecond
	if _, err := client.Status(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "no answer on "+silent+" in time: ") {
		t.Errorf("Status on a silent socket: %v", err)
	}

	var g errgroup.Group
	g.Go(func() error {
		for {
			conn, err := l.Accept()
			if err != nil {
				return nil
			}
			_, _ = io.WriteString(conn, "220 mail.example.com ESMTP\r\n")
			_ = conn.Close()
		}
	})
	if _, err := NewClient(silent).Status(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "ask "+silent+": ") || strings.Contains(err.Error(), "http://") {
		t.Errorf("Status on a socket of another service: %v", err)
	}
	_ = l.Close()
	_ = g.Wait()
}
