//go:build bench

package bench

import (
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"nftsentry/integration/netns"
)

// sentry is nftsentry with its defaults.
var sentry = sentryWith("nftsentry", "")

// sentryWith is nftsentry with a configuration of its own.
func sentryWith(name, config string) guard {
	return guard{
		name:  name,
		lasts: (10 * time.Minute).Seconds(), // block.unproven
		version: func(t testing.TB) string {
			out, err := exec.Command(os.Getenv(programEnv), "version").Output()
			if err != nil {
				t.Fatal(err)
			}
			return strings.TrimSpace(strings.TrimPrefix(string(out), "nftsentry "))
		},
		start: func(t testing.TB, host *netns.Host) *running { return startSentry(t, host, config).running() },
	}
}

// A daemon is nftsentry that runs, with folders of its own.
type daemon struct {
	host *netns.Host
	dir  string
	conf string // file
	cmd  *exec.Cmd
}

// startSentry starts it and waits until it is ready.
func startSentry(t testing.TB, host *netns.Host, config string) *daemon {
	t.Helper()
	d := &daemon{host: host, dir: t.TempDir()}
	d.conf = filepath.Join(d.dir, "nftsentry.toml")
	text := fmt.Sprintf("%s\n[state]\ndir = %q\n[control]\nsocket = %q\n", config, filepath.Join(d.dir, "state"), filepath.Join(d.dir, "sock"))
	if err := os.WriteFile(d.conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	d.run(t)
	return d
}

// ready is how long a tool may take to get ready.
const ready = 2 * time.Minute

// run starts the daemon and waits until it says READY=1.
func (d *daemon) run(t testing.TB) {
	t.Helper()
	notify := filepath.Join(d.dir, "notify")
	_ = os.Remove(notify)
	heard, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer heard.Close()
	log, err := os.OpenFile(filepath.Join(d.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	d.cmd = d.host.Command(os.Getenv(programEnv), "run", "-c", d.conf)
	d.cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+notify)
	d.cmd.Stderr = log
	d.host.Start(t, d.cmd)
	_ = heard.SetReadDeadline(time.Now().Add(ready))
	buf := make([]byte, 4096)
	n, err := heard.Read(buf)
	if err != nil || string(buf[:n]) != "READY=1" {
		said, _ := os.ReadFile(log.Name())
		t.Fatalf("nftsentry does not get ready: %q, %v\n%s", buf[:n], err, said)
	}
}

// stop ends it as a service manager does, and waits for that.
func (d *daemon) stop(t testing.TB) {
	t.Helper()
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = d.cmd.Wait()
}

// must runs a command of the program and returns what it prints.
func (d *daemon) must(t testing.TB, args ...string) string {
	t.Helper()
	return d.host.Output(t, os.Getenv(programEnv), append(args, "-c", d.conf)...)
}

func (d *daemon) running() *running {
	return &running{
		pids:    []int{d.cmd.Process.Pid},
		ports:   []uint16{23},
		closed:  []uint16{2, 3, 4},
		block:   func(t testing.TB, _, to int) { d.fill(t, to) },
		watched: d.watched,
		forgive: func(t testing.TB) {
			t.Helper()
			if d.must(t, "list", "--json") != "[]\n" {
				d.must(t, "unblock", "--all")
			}
			for _, set := range []string{"probes4", "probes6", "suspects4", "suspects6"} {
				d.host.Output(t, netns.Tool(t, "nft"), "flush", "set", "inet", "nftsentry", set)
			}
		},
	}
}

// watched are the ports in its sets.
func (d *daemon) watched(t testing.TB) map[uint16]bool {
	t.Helper()
	ports := make(map[uint16]bool)
	for _, set := range []string{"watch_tcp", "decoy_tcp"} {
		list := d.host.Output(t, netns.Tool(t, "nft"), "list", "set", "inet", "nftsentry", set)
		_, elements, _ := strings.Cut(list, "elements")
		maps.Copy(ports, portsIn(t, elements))
	}
	return ports
}
