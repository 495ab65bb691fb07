package main

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"nftsentry/cmd/nftsentry/internal/sandbox"
	"nftsentry/conf"
	"nftsentry/controller/api"
	"nftsentry/controller/host"
)

// What the running daemon reads of the kernel: see package host, and for
// metrics the process collector of prometheus.
var (
	kernelFiles  = []string{"/proc/sys/net/ipv4", "/proc/sys/net/netfilter"}
	metricsFiles = []string{"/proc/self", "/proc/stat"}
	groupFiles   = []string{"/etc/group", "/etc/nsswitch.conf"}
)

// hooksWithin tells whether the daemon itself runs hooks. They need programs
// and files that no sandbox can foresee.
func (g *guard) hooksWithin(h conf.Hook) bool {
	return g.service == nil && (len(h.Exec)+len(h.Mail)+len(h.Webhook) > 0 || h.HostsDeny != nil)
}

// Why a daemon is in no sandbox.
const (
	openForHooks  = "the hooks run in the daemon, and need programs and files"
	openForKernel = "this kernel has no Landlock"
)

// enterSandbox takes all files from this process that it does not need any
// more. It comes last, when all is open, and before the first packet is read.
func (g *guard) enterSandbox(cfg conf.Config) error {
	if g.hooksWithin(cfg.Hook) {
		g.unboxed = openForHooks
		return nil
	}
	_, _ = time.Now().Zone() // reads /etc/localtime, once
	box, err := sandbox.Enter(rulesOf(cfg, *g.file.Load()))
	if errors.Is(err, sandbox.ErrUnsupported) {
		g.unboxed = openForKernel
		g.log.Warn("this kernel has no Landlock: nothing but the rights of its user keeps files from this process")
		return nil
	}
	g.box = box
	return err
}

// rulesOf are the files that a daemon with this configuration needs when all
// is open.
func rulesOf(cfg conf.Config, file string) sandbox.Rules {
	r := sandbox.Rules{
		Follow: append([]string{absolute(cmp.Or(file, conf.DefaultPath))}, cfg.Ignore.Files...),
		Await:  host.ResolvFiles(),
		Read:   kernelFiles,
		Write:  []string{cfg.State.Dir},
		Remove: []string{filepath.Dir(cfg.Control.Socket)},
	}
	if cfg.Metrics.Listen != "" {
		r.Read = append(r.Read[:len(r.Read):len(r.Read)], metricsFiles...)
	}
	if filepath.IsAbs(cfg.Metrics.Listen) {
		r.Remove = append(r.Remove, filepath.Dir(cfg.Metrics.Listen))
	}
	if cfg.Control.Group != "" { // a reload looks it up again
		r.Read = append(r.Read[:len(r.Read):len(r.Read)], groupFiles...)
	}
	return r
}

// absolute is a path from the root. Without a working folder there is none,
// and it stays as it is.
func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

// An outsideError is a configuration that needs what the sandbox has taken.
type outsideError struct{ what []string }

// Error has a line for each thing that is out of reach.
func (e *outsideError) Error() string {
	lines := make([]string, len(e.what))
	for i, what := range e.what {
		lines[i] = what + ": the running daemon has taken that from itself (Landlock): restart it, such as by \"systemctl restart nftsentry\""
	}
	return strings.Join(lines, "\n")
}

// outside tells what a configuration needs that is out of the reach of the
// running daemon; nil if there is nothing.
func (g *guard) outside(cfg conf.Config) error {
	if g.box == nil {
		return nil
	}
	var what []string
	for _, file := range cfg.Ignore.Files {
		if !g.box.Reads(file) {
			what = append(what, fmt.Sprintf("ignore.files: %s lies in a folder that was not read at the start", file))
		}
	}
	if g.hooksWithin(cfg.Hook) {
		what = append(what, "hook: hooks run programs and read files that were not needed at the start")
	}
	if what == nil {
		return nil
	}
	return &outsideError{what}
}

// outsideFile explains why a configuration file cannot be read.
func (g *guard) outsideFile(file string, err error) error {
	if g.box == nil || g.box.Reads(absolute(file)) {
		return err
	}
	return errors.Join(err, &outsideError{[]string{file + " lies in a folder that was not read at the start"}})
}

// sandboxStatus says what the process has taken from itself.
func (g *guard) sandboxStatus() api.Sandbox {
	if g.box == nil {
		return api.Sandbox{Reason: g.unboxed}
	}
	return api.Sandbox{Landlock: g.box.ABI()}
}

// sandboxProblems says what the daemon cannot follow for its sandbox.
func (g *guard) sandboxProblems() []string {
	if g.box == nil {
		return nil
	}
	for _, file := range host.ResolvFiles() {
		if !g.box.Reads(file) {
			return []string{file + " has moved to where the daemon may not read (Landlock): restart it, or new resolvers are not known"}
		}
	}
	return nil
}

// sandboxLine is a sandbox as a person sees it.
func sandboxLine(s api.Sandbox) string {
	if s.Landlock == 0 {
		return "none: " + s.Reason
	}
	return fmt.Sprintf("Landlock, ABI %d: no files but its own, and no programs", s.Landlock)
}
