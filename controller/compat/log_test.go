package compat

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/sync/errgroup"
)

// run writes lines while f lasts.
func run(t *testing.T, path string, f func(l *Log)) *observer.ObservedLogs {
	t.Helper()
	core, logs := observer.New(zap.DebugLevel)
	l := New(path, zap.New(core))
	ctx, cancel := context.WithCancel(t.Context())
	var g errgroup.Group
	g.Go(func() error { return l.Run(ctx) })
	f(l)
	cancel()
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	return logs
}

// syslogd opens a socket of datagrams.
func syslogd(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func receive(t *testing.T, conn net.Conn) string {
	t.Helper()
	buf := make([]byte, 1024)
	if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

// header is what stands before each line, RFC 3164 section 4.1 without a host.
func header() string {
	return fmt.Sprintf(`^<29>[A-Z][a-z]{2} [ 1-3]\d \d\d:\d\d:\d\d portsentry\[%d\]: `, os.Getpid())
}

func TestLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	conn := syslogd(t, path)
	logs := run(t, path, func(l *Log) {
		for _, line := range []string{Active, Down} {
			l.Tell(line)
			if got := receive(t, conn); !regexp.MustCompile(header() + regexp.QuoteMeta(line) + "$").MatchString(got) {
				t.Errorf("syslog got %q", got)
			}
		}
	})
	if logs.Len() != 0 {
		t.Errorf("said %v", logs.All())
	}
}

// TestLogStream is for a syslogd that reads a stream.
func TestLogStream(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	run(t, path, func(l *Log) {
		l.Tell(Active)
		conn, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if got := receive(t, conn); !strings.HasSuffix(got, Active+"\n") {
			t.Errorf("syslog got %q", got)
		}
	})
}

// TestLogRestart has syslogd restarted, and one that is missing said once.
func TestLogRestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	conn := syslogd(t, path)
	logs := run(t, path, func(l *Log) {
		l.Tell("one")
		receive(t, conn)
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
		_ = os.Remove(path)
		l.Tell("two")
		l.Tell("three")
		for deadline := time.Now().Add(time.Minute); l.Lost() < 2; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%d lost, want 2", l.Lost())
			}
		}
		conn = syslogd(t, path)
		l.Tell("four")
		if got := receive(t, conn); !strings.HasSuffix(got, ": four") {
			t.Errorf("syslog got %q", got)
		}
	})
	if n := logs.FilterMessageSnippet("cannot write portsentry's lines").Len(); n != 1 || logs.Len() != 1 {
		t.Errorf("said %v, want one warning", logs.All())
	}
}

// TestLogFull shows that a syslogd that does not read holds up nobody.
func TestLogFull(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	syslogd(t, path)
	began := time.Now()
	run(t, path, func(l *Log) {
		for range 10 * queued {
			l.Tell(Active)
		}
		if took := time.Since(began); took > 10*patience { // for each line
			t.Errorf("Tell waited: %v", took)
		}
		if l.Lost() == 0 {
			t.Error("nothing was lost")
		}
	})
	if took := time.Since(began); took > 60*patience {
		t.Errorf("the end took %v", took)
	}
}

func TestLines(t *testing.T) {
	source := netip.MustParseAddr("10.9.9.1")
	for _, tt := range []struct{ want, got string }{
		{"attackalert: Connect from host: 10.9.9.1/10.9.9.1 to TCP port: 23", Attack("Connect", source, "tcp", 23)},
		{"attackalert: TCP SYN/Normal scan from host: 10.9.9.1/10.9.9.1 to TCP port: 2222", Attack("TCP SYN/Normal scan", source, "tcp", 2222)},
		{"attackalert: UDP scan from host: 2001:db8::1/2001:db8::1 to UDP port: 69", Attack("UDP scan", netip.MustParseAddr("2001:db8::1"), "udp", 69)},
		{`attackalert: Host 10.9.9.1 has been blocked via nftables set: "inet nftsentry blocked4"`, Blocked("10.9.9.1", "inet nftsentry blocked4")},
		{`attackalert: Host 10.9.9.1 has been blocked via wrappers with string: "ALL: 10.9.9.1"`, Denied("10.9.9.1", "ALL: 10.9.9.1")},
		{`attackalert: External command run for host: 10.9.9.1 using command: "/bin/true x"`, Ran("10.9.9.1", "/bin/true x")},
		{"attackalert: Host: 10.9.9.1 is already blocked. Ignoring", Repeated("Connect", source)},
		{"attackalert: Host: 10.9.9.1/10.9.9.1 is already blocked Ignoring", Repeated("UDP scan", source)},
		{"attackalert: Ignoring TCP response per configuration file setting.", Spared("tcp")},
	} {
		if diff := cmp.Diff(tt.want, tt.got); diff != "" {
			t.Errorf("line (-want +got):\n%s", diff)
		}
	}
}

// TestLogwatch has logwatch 7.7's expressions of services/portsentry, in
// Go's syntax, find in the lines what they look for.
func TestLogwatch(t *testing.T) {
	source := netip.MustParseAddr("10.9.9.1")
	for _, tt := range []struct {
		expression, line string
		want             []string
	}{
		{`attackalert: (.+) scan from host: [^/]+/(\S+) to (\w+) port: (\d+)`, Attack("TCP XMAS scan", source, "tcp", 79), []string{"TCP XMAS", "10.9.9.1", "TCP", "79"}},
		{`Host (\S+) has been blocked`, Blocked("10.9.9.1", "inet nftsentry blocked4"), []string{"10.9.9.1"}},
		{`Host: (\S+) is already blocked`, Repeated("Connect", source), []string{"10.9.9.1"}},
	} {
		got := regexp.MustCompile(tt.expression).FindStringSubmatch(tt.line)
		if len(got) == 0 {
			t.Errorf("%s finds nothing in %q", tt.expression, tt.line)
			continue
		}
		if diff := cmp.Diff(tt.want, got[1:]); diff != "" {
			t.Errorf("%s in %q (-want +got):\n%s", tt.expression, tt.line, diff)
		}
	}
}
