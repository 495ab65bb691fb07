package selftest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"nftsentry/controller/api"
	"nftsentry/integration/namespace"
)

// A daemon is this program, as it guards a host.
type daemon struct {
	*api.Client
	cmd    *exec.Cmd
	log    tail
	ended  chan struct{} // closed when the process has ended
	waiter errgroup.Group
}

// Files in the folder of a test.
const (
	fileConfig = "nftsentry.toml"
	fileSocket = "sock"
	folder     = "state"
)

// startTimeout and stopTimeout are how long the daemon may take, which takes a tenth of a second.
const (
	startTimeout = 20 * time.Second
	stopTimeout  = 5 * time.Second
)

// startDaemon starts this program on a host, with the configuration that is in a folder, and waits until it is ready.
// The calling goroutine keeps its thread, with which the daemon would end.
func startDaemon(ctx context.Context, host *namespace.Host, dir string) (*daemon, error) {
	d := &daemon{
		Client: api.NewClient(filepath.Join(dir, fileSocket)),
		cmd:    namespace.Self("run", "--config", filepath.Join(dir, fileConfig)),
		ended:  make(chan struct{}),
	}
	d.cmd.SysProcAttr.Setpgid = true // Ctrl-C is for who runs the test, and ends the daemon when it is ready to
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "NOTIFY_SOCKET=") && !strings.HasPrefix(v, "WATCHDOG_") { // those of another service
			d.cmd.Env = append(d.cmd.Env, v)
		}
	}
	d.cmd.Stderr = &d.log
	if err := host.Inside(d.cmd.Start); err != nil {
		return nil, fmt.Errorf("start the daemon: %w", err)
	}
	d.waiter.Go(func() error {
		defer close(d.ended)
		return d.cmd.Wait()
	})
	if err := d.ready(ctx); err != nil {
		_ = d.stop() // said already
		return nil, err
	}
	return d, nil
}

// ready waits until the daemon answers.
func (d *daemon) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		if _, err := d.Status(ctx); err == nil {
			return nil
		}
		select {
		case <-d.ended:
			return fmt.Errorf("the daemon ends at once:\n%s", d.log.String())
		case <-ctx.Done():
			return fmt.Errorf("the daemon does not get ready: %w\n%s", ctx.Err(), d.log.String())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// stop ends the daemon. The error tells of one that does not end as it should.
func (d *daemon) stop() error {
	_ = d.cmd.Process.Signal(unix.SIGTERM) // it may have ended already, which Wait tells
	timer := time.AfterFunc(stopTimeout, func() { _ = d.cmd.Process.Kill() })
	defer timer.Stop()
	if err := d.waiter.Wait(); err != nil {
		return fmt.Errorf("the daemon ends with %w:\n%s", err, d.log.String())
	}
	return nil
}

// A tail keeps the end of what is written to it. It may be read meanwhile.
type tail struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

const tailSize = 2048 // bytes, about

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf.Write(p)
	if over := t.buf.Len() - tailSize; over > 0 {
		t.buf.Next(over)
		if _, err := t.buf.ReadBytes('\n'); err != nil {
			return len(p), nil // one line, longer than all that is kept
		}
	}
	return len(p), nil
}

// String has no name of the program before messages: the caller's own message has it.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var b strings.Builder
	for line := range strings.Lines(t.buf.String()) {
		b.WriteString(strings.TrimPrefix(line, "nftsentry: "))
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// waitFor asks until something is so. It is an error if that takes too long.
func waitFor(ctx context.Context, within time.Duration, so func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for {
		if yes, err := so(); yes || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return errNotYet
		case <-time.After(10 * time.Millisecond):
		}
	}
}

var errNotYet = errors.New("not in time")
