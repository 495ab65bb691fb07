package main

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"

	"nftsentry/conf"
	"nftsentry/controller"
)

// TestAttend has a loop that answers, fails, hangs and answers again. Nothing
// is told of it while it does not answer.
func TestAttend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		began := time.Now()
		type beat struct {
			At   time.Duration
			Line string
		}
		var told []beat
		hang, asked := make(chan struct{}), 0
		ask := func(context.Context) (string, error) {
			switch asked++; asked {
			case 2:
				return "", errors.New("no answer")
			case 4:
				<-hang
			}
			return "well", nil
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			attend(ctx, time.Second, ask, func(line string) { told = append(told, beat{time.Since(began), line}) })
		}()
		time.Sleep(time.Minute)
		synctest.Wait()
		want := []beat{{0, "well"}, {2 * time.Second, "well"}}
		if diff := cmp.Diff(want, told); diff != "" {
			t.Errorf("told while the loop hangs (-want +got):\n%s", diff)
		}
		close(hang)
		synctest.Wait()
		if len(told) < 3 {
			t.Error("nothing is told once the loop goes on")
		}
		cancel()
		<-done
	})
}

// TestNotifyLines looks at what a service manager is sent, on a socket.
func TestNotifyLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	g := &guard{log: zap.NewNop()}
	over := g.notifyReload()
	over()
	var got []string
	buf := make([]byte, 256)
	for range 2 {
		_ = socket.SetReadDeadline(time.Now().Add(20 * time.Second))
		n, err := socket.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(buf[:n]))
	}
	first, usec, _ := strings.Cut(got[0], "\nMONOTONIC_USEC=")
	if first != "RELOADING=1" || usec == "" || strings.Trim(usec, "0123456789") != "" || got[1] != "READY=1" {
		t.Errorf("got %q", got)
	}
}

// TestNotifyNobody has a service manager that does not read, and one that is
// not there: neither holds the daemon up for long, or for ever.
func TestNotifyNobody(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	for tries := 0; ; tries++ { // until the queue of the socket is full
		if err = sendTo(path, "STATUS=x"); err != nil || tries > 10000 {
			break
		}
	}
	var slow net.Error
	if !errors.As(err, &slow) || !slow.Timeout() {
		t.Errorf("nobody reads: %v, want a time-out", err)
	}
	if err := sendTo(path+".not", "STATUS=x"); err == nil {
		t.Error("nobody is there: no error")
	}
}

func TestGuardLine(t *testing.T) {
	cfg := conf.Default()
	observe := cfg
	observe.Mode = conf.Observe
	for _, tt := range []struct {
		name  string
		cfg   conf.Config
		stats controller.Stats
		want  string
	}{
		{"blocks", cfg, controller.Stats{Live: 12}, "Guarding by 28 decoy ports and 1010 ports watched: 12 sources blocked"},
		{"one", cfg, controller.Stats{Live: 1}, "Guarding by 28 decoy ports and 1010 ports watched: 1 source blocked"},
		{"observe", observe, controller.Stats{WouldHave: 3}, "Observing 28 decoy ports and 1010 ports watched: nobody is blocked, 3 would have been"},
		{"panic", cfg, controller.Stats{Live: 2, Panicked: true}, `Panic: nothing is noticed or blocked until "nftsentry resume"; 2 blocks suspended`},
		{"unlisted", cfg, controller.Stats{Unlisted: true}, "Nothing is noticed or blocked until ignore.files can be read; 0 blocks suspended"},
	} {
		if got := guardLine(tt.cfg, tt.stats); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}
