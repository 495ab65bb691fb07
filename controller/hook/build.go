package hook

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
)

// Waits before further attempts.
var (
	mailRetries    = []time.Duration{5 * time.Second, 30 * time.Second, 2 * time.Minute}
	webhookRetries = []time.Duration{time.Second, 5 * time.Second, 30 * time.Second}
	denyRetries    = []time.Duration{time.Second, 5 * time.Second, 30 * time.Second, time.Minute}
)

// denyTimeout bounds a rewriting of hosts.deny, which is a matter of milliseconds.
const denyTimeout = 10 * time.Second

// build makes the hooks of a configuration. The error is all that is wrong.
func build(cfg Config, t trust, log *zap.Logger) ([]spec, error) {
	var out []spec
	var errs []error
	add := func(name string, sp spec, err error) {
		sp.name = name
		out = append(out, sp)
		if err != nil {
			errs = append(errs, fmt.Errorf("hook.%s: %w", name, err))
		}
	}
	for i, c := range cfg.Exec {
		sp, err := execSpec(c, t, cfg.Ran, log)
		add(fmt.Sprintf("exec[%d]", i), sp, err)
	}
	for i, c := range cfg.Mail {
		sp, err := mailSpec(c, t)
		add(fmt.Sprintf("mail[%d]", i), sp, err)
	}
	for i, c := range cfg.Webhook {
		sp, err := webhookSpec(c)
		add(fmt.Sprintf("webhook[%d]", i), sp, err)
	}
	if cfg.HostsDeny != nil {
		sp, err := denySpec(*cfg.HostsDeny, t)
		add("hosts_deny", sp, err)
	}
	return out, errors.Join(errs...)
}

// common makes a spec of what hooks have in common.
func common(c Common, most int) (spec, error) {
	sp := spec{on: make(map[On]bool), timeout: c.Timeout, limit: c.Limit, most: most}
	for _, on := range c.On {
		sp.on[on] = true
	}
	switch {
	case c.Timeout <= 0:
		return sp, errors.New("timeout must be more than 0")
	case c.Limit.Count < 1 || c.Limit.Per <= 0:
		return sp, errors.New("limit must be 1 or more in a time")
	case len(sp.on) == 0:
		return sp, errors.New("on is empty: the hook would never run")
	}
	return sp, nil
}

func execSpec(c Exec, t trust, ran func(Event, string), log *zap.Logger) (spec, error) {
	sp, err := common(c.Common, 2)
	if err != nil {
		return sp, err
	}
	if len(c.Command) == 0 || !filepath.IsAbs(c.Command[0]) {
		return sp, errors.New("command must begin with the absolute path of a program")
	}
	if c.Before {
		sp.on[Before] = sp.on[Block]
		delete(sp.on, Block)
	}
	f, err := t.program(c.Command[0])
	if err != nil {
		return sp, err
	}
	sp.id = fmt.Sprintf("exec %v %q", c.Before, c.Command)
	sp.what = c.Command[0]
	sp.sink = &runs{trust: t, command: slices.Clone(c.Command), ran: ran, log: log}
	return sp, f.Close()
}

func mailSpec(c Mail, t trust) (spec, error) {
	sp, err := common(c.Common, 1)
	if err != nil {
		return sp, err
	}
	m, err := newMailer(c, t)
	if err != nil {
		return sp, err
	}
	sp.id = fmt.Sprintf("mail %q %q %q", c.From, c.To, c.Server)
	sp.what = strings.Join(c.To, ", ")
	sp.digest, sp.final, sp.retries, sp.sink = &c.Digest, true, mailRetries, m
	return sp, nil
}

func webhookSpec(c Webhook) (spec, error) {
	sp, err := common(c.Common, 2)
	if err != nil {
		return sp, err
	}
	w, err := newPoster(c)
	if err != nil {
		return sp, err
	}
	sp.id = fmt.Sprintf("webhook %q %q", c.Method, c.URL)
	sp.what = w.place()
	sp.retries, sp.sink = webhookRetries, w
	return sp, nil
}

func denySpec(c HostsDeny, t trust) (spec, error) {
	d, err := newDenier(c, t)
	return spec{
		id: "hosts_deny " + c.File, what: c.File, sink: d, on: map[On]bool{Block: true, Unblock: true}, timeout: denyTimeout,
		limit: Rate{1, time.Second}, free: true, most: 1, final: true, retries: denyRetries,
	}, err
}
